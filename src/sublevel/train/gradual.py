"""Pruning during training: one run whose mask shrinks at given steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.space import Point
from sublevel.train.engine import descend
from sublevel.train.engines import weights
from sublevel.train.resume import State
from sublevel.train.setup import TrainingSetup
from sublevel.train.update import Moments

Tighten = Callable[[int, Point, Tensor], tuple[Tensor, Tensor]]
"""Maps a step, its point and the current mask [D] to a nested mask and the weights [D] to continue from."""


@dataclass(frozen=True, eq=False)
class Tightened:
    """The state of a run after its last pruning, complete enough to continue the training."""

    end: Point
    mask: Bool[Tensor, "D"]
    moments: Moments
    history: list[dict[str, float]]


def cubic(before: int, after: int, done: int, steps: int) -> int:
    """Weights left after ``done`` of ``steps``: n_f + (n_i - n_f) (1 - done / steps)^3, rounded.

    Zhu and Gupta 1710.01878, eq. 1, with remaining weights instead of sparsity.

    >>> [cubic(1000, 100, n, 4) for n in range(5)]
    [1000, 480, 213, 114, 100]
    """
    return floor(after + (before - after) * Fraction(steps - done, steps) ** 3 + Fraction(1, 2))


def gradual(setup: TrainingSetup, start: Point, *, tighten: Tighten, at: Sequence[int]) -> Tightened:
    """Train from step 0 to the last step of ``at``, and prune after each of them.

    ``at`` counts the steps taken. From then on pruned weights are exactly 0 in weights, gradients and momentum; the
    momentum of the other weights continues. Until the first pruning the run equals that of `train`.
    """
    run = _Tightening(setup, start, tighten, at)
    done = descend(run, setup, rates=setup.rates[: at[-1]])
    return Tightened(done.end, run.mask, run.weights.moments(), done.history)


class _Tightening:
    """Training steps of the weights, with prunings between them."""

    def __init__(self, setup: TrainingSetup, start: Point, tighten: Tighten, at: Sequence[int]) -> None:
        self.weights = weights(setup, start, None)
        self.mask = setup.space.full_mask().to(start.theta.device)
        self.point = self.weights.point
        self._tighten, self._at, self._now = tighten, frozenset(at), 0

    def step(self, x: Tensor, y: Tensor, lr: float) -> Float[Tensor, ""]:
        """Take one step, and prune if due; return the mean loss before it."""
        mean = self.weights.step(x, y, lr)
        self._now += 1
        if self._now in self._at:
            self.mask, theta = self._tighten(self._now, self.point(), self.mask)
            self.weights.restrict(self.mask, theta)
        return mean

    def state(self) -> State:
        """The state of the weights, the current mask and the steps taken."""
        return {**self.weights.state(), "mask": self.mask, "now": torch.tensor(self._now)}

    def restore(self, state: State) -> None:
        """Restore a state."""
        self.mask, self._now = state["mask"].to(self.mask.device), int(state["now"])
        if not bool(self.mask.all()):
            self.weights.restrict(self.mask, self.point().theta)
        self.weights.restore(state)
