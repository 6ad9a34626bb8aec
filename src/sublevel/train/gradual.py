"""Pruning during training: a mask that tightens at given steps of one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.data.splits import Part
from sublevel.inputs import Inputs
from sublevel.space import Point, Space
from sublevel.train.engine import Watch, descend
from sublevel.train.engines import weights
from sublevel.train.recipe import Recipe
from sublevel.train.resume import Keeper, State
from sublevel.train.step import Loss
from sublevel.train.update import Moments

Tighten = Callable[[int, Point, Tensor], tuple[Tensor, Tensor]]
"""From a step, the point there and the mask [D] so far to a mask nested in it, and the weights [D] to go on from."""


@dataclass(frozen=True, eq=False)
class Tightened:
    """Where a run stands after its last pruning: all that is needed to go on as if nothing had been between."""

    end: Point
    mask: Bool[Tensor, "D"]
    moments: Moments
    history: list[dict[str, float]]


def cubic(before: int, after: int, done: int, steps: int) -> int:
    """Weights left after ``done`` of ``steps``: n_f + (n_i - n_f) (1 - done / steps)^3, rounded.

    Zhu and Gupta 1710.01878, eq. 1, in weights left for the sparsity there.

    >>> [cubic(1000, 100, n, 4) for n in range(5)]
    [1000, 480, 213, 114, 100]
    """
    return floor(after + (before - after) * Fraction(steps - done, steps) ** 3 + Fraction(1, 2))


def gradual(
    space: Space,
    module: nn.Module,
    start: Point,
    data: Part,
    *,
    tighten: Tighten,
    at: Sequence[int],
    prepare: Callable[[Tensor], Inputs],
    loss: Loss,
    recipe: Recipe,
    seed: int,
    order: str = "",
    watch: Watch | None = None,
    keeper: Keeper | None = None,
) -> Tightened:
    """Train from step 0 to the last step of ``at``, and prune after each of them.

    ``at`` counts the steps taken; what is pruned is exactly 0 from then on in weights, gradients and momentum, and the
    momentum of the others goes on. Until the first pruning the run is that of `train`; all else as there.
    """
    run = _Tightening(space, module, start, tighten, at, recipe, prepare, loss)
    rates = recipe.rates(len(data))[: at[-1]]
    done = descend(run, module, data, recipe=recipe, seed=seed, order=order, rates=rates, watch=watch, keeper=keeper)
    return Tightened(done.end, run.mask, run.weights.moments(), done.history)


class _Tightening:
    """Descent of the weights, interrupted by prunings."""

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        start: Point,
        tighten: Tighten,
        at: Sequence[int],
        recipe: Recipe,
        prepare: Callable[[Tensor], Inputs],
        loss: Loss,
    ) -> None:
        self.weights = weights(space, module, start, None, recipe, prepare, loss)
        self.mask = space.full_mask().to(start.theta.device)
        self.point = self.weights.point
        self._tighten, self._at, self._now = tighten, frozenset(at), 0

    def step(self, x: Tensor, y: Tensor, lr: float) -> Float[Tensor, ""]:
        """One step, and a pruning where one is due; the mean loss before it."""
        mean = self.weights.step(x, y, lr)
        self._now += 1
        if self._now in self._at:
            self.mask, theta = self._tighten(self._now, self.point(), self.mask)
            self.weights.restrict(self.mask, theta)
        return mean

    def state(self) -> State:
        """The weights' own, the mask so far and the steps taken."""
        return {**self.weights.state(), "mask": self.mask, "now": torch.tensor(self._now)}

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.mask, self._now = state["mask"].to(self.mask.device), int(state["now"])
        if not bool(self.mask.all()):
            self.weights.restrict(self.mask, self.point().theta)
        self.weights.restore(state)
