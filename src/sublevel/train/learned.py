"""Masks learned by gradient descent: edge-popup and continuous sparsification.

The loop of `sublevel.train.engine` runs both, so they see the same batches as a training with the same data order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.codec import under, within
from sublevel.errors import Diverged
from sublevel.space import Point, Space
from sublevel.train.engine import descend
from sublevel.train.resume import State, overwrite
from sublevel.train.setup import TrainingSetup
from sublevel.train.update import flat, update
from sublevel.train.weights import LossAndGrad

Choose = Callable[[Tensor], Tensor]
"""Maps scores [D] to the mask [D] of the best scores."""


@dataclass(frozen=True, eq=False)
class Learned:
    """The result of a run: the trained network and the scores of its mask.

    ``end`` is the masked network, ``m * weights``, with its buffers; ``scores`` [D] are those of the last step.
    """

    end: Point
    weights: Float[Tensor, "D"]
    scores: Float[Tensor, "D"]
    history: list[dict[str, float]]


def edge_popup(setup: TrainingSetup, frozen: Point, scores: Float[Tensor, "D"], *, choose: Choose) -> Learned:
    """Train the scores of frozen weights (edge-popup, Ramanujan et al. 1911.13299).

    The network is ``m * w`` with ``m = choose(|s|)``, 1 for the best. In the backward pass the straight-through
    estimator replaces m by |s|, so every score moves, also that of a masked weight:

        ds = dL/d(m * w) * w * sign(s),    s <- the recipe's step along ds.

    Weights, biases and affine parameters stay fixed; running statistics move. ``scores`` are 0 where none is learned.

    Raises Diverged if a score becomes infinite or NaN.
    """
    run = _Scores(setup, frozen, scores, choose)
    done = descend(run, setup)
    end = Point(frozen.theta, done.end.buffers).project(choose(run.scores.abs()))
    return Learned(end, frozen.theta, run.scores, done.history)


def continuous_sparsification(
    setup: TrainingSetup,
    start: Point,
    scores: Float[Tensor, "D"],
    *,
    soft: Bool[Tensor, "D"],
    penalty: float,
    beta: float,
    first: int = 0,
) -> Learned:
    """Train weights and soft masks together (Savarese et al. 1912.04427): one round of their ticket search.

    The network is ``m * w`` with ``m = sigmoid(b s)`` where ``soft``, 1 elsewhere; the loss is ``L + penalty sum(m)``,
    the L1 norm of the masks. b rises exponentially from 1 at the first step to ``beta`` at the last, so the masks
    harden to 1 where s > 0 and 0 elsewhere. Weights and s take the recipe's steps, s without weight decay. The history
    holds L without the penalty.
    """
    run = _SoftMasks(setup, start, scores, soft, penalty, _Annealing(beta, len(setup.rates) - first))
    done = descend(run, setup, first=first)
    return Learned(done.end, run.weights, run.scores, done.history)


def next_round(scores: Float[Tensor, "D"], beta: float, initial: float) -> Float[Tensor, "D"]:
    """The scores at the start of the next round: ``min(beta s, initial)``.

    A mask that is off stays off; a mask that is on returns to its initial score (``prune`` in models/layers.py of
    lolemacs/continuous-sparsification).

    >>> next_round(torch.tensor([-0.5, 0.5]), 200.0, 0.25)
    tensor([-100.0000,    0.2500])
    """
    return (beta * scores).clamp(max=initial)


def initial_scores(space: Space, dtype: torch.dtype, generator: torch.Generator) -> Float[Tensor, "D"]:
    """Scores of prunable weights, uniform on +-1/sqrt(fan_in), others 0 (CPU).

    This is Kaiming's uniform initialisation with a = sqrt(5), as in the paper's code (allenai/hidden-networks).
    """
    out = torch.zeros(space.dim, dtype=dtype)
    for layer in space.prunable_layers:
        uniform = torch.rand(layer.size, dtype=dtype, generator=generator)
        out[layer.coordinates] = (2 * uniform - 1) / math.sqrt(layer.fan_in)
    return out


def signed_constant(space: Space, theta: Float[Tensor, "D"]) -> Float[Tensor, "D"]:
    """Every prunable weight replaced by its sign times sqrt(2 / fan_in), Kaiming's deviation for ReLU.

    The "signed Kaiming constant" of Ramanujan et al. 1911.13299; the signs are those of the given weights (Zhou et al.
    1905.01067).
    """
    out = theta.clone()
    for layer in space.prunable_layers:
        out[layer.coordinates] = theta[layer.coordinates].sign() * math.sqrt(2 / layer.fan_in)
    return out


class _Scores:
    """Training of scores, in place, over frozen weights."""

    def __init__(self, setup: TrainingSetup, frozen: Point, scores: Tensor, choose: Choose) -> None:
        self._frozen, self.scores, self._choose = frozen.theta, scores.clone(), choose
        self._loss_and_grad = LossAndGrad(setup, frozen)
        self._update = update(setup.recipe, [self.scores], None)
        self._set()

    def point(self) -> Point:
        """The current point, as a copy. Raises Diverged if a score is not finite."""
        if not bool(self.scores.isfinite().all()):
            raise Diverged("edge-popup diverged: a score is not finite; a lower lr may help")
        return self._loss_and_grad.point()

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Take one step of the scores; return the mean loss before it."""
        mean, gradients = self._loss_and_grad(x, y)
        self._update([flat(gradients) * self._frozen * self.scores.sign()], lr)
        self._set()
        return mean

    def state(self) -> State:
        """Scores, their momentum and the network's buffers."""
        return {
            "scores": self.scores,
            **under("buffer", self._loss_and_grad.buffers),
            **under("moment", self._update.moments()),
        }

    def restore(self, state: State) -> None:
        """Restore a state."""
        self.scores.copy_(state["scores"])
        self._update.resume(within("moment", state))
        overwrite(self._loss_and_grad.buffers, within("buffer", state))
        self._set()

    def _set(self) -> None:
        mask = self._choose(self.scores.abs())
        torch.mul(self._frozen, mask.to(self._frozen.dtype), out=self._loss_and_grad.theta)


@dataclass(frozen=True)
class _Annealing:
    """beta^(t / (T - 1)) for steps t = 0 to T - 1, then beta."""

    beta: float
    steps: int

    def __call__(self, t: int) -> float:
        return self.beta ** min(t / (self.steps - 1), 1.0) if self.steps > 1 else self.beta


class _SoftMasks:
    """Training of weights and the scores of their soft masks, in place."""

    def __init__(
        self,
        setup: TrainingSetup,
        start: Point,
        scores: Tensor,
        soft: Tensor,
        penalty: float,
        annealing: _Annealing,
    ) -> None:
        self.weights, self.scores = start.theta.clone(), scores.clone()
        self._soft, self._penalty, self._annealing, self._steps = soft, penalty, annealing, 0
        self._loss_and_grad = LossAndGrad(setup, start)
        self.point = self._loss_and_grad.point
        self._updates = (
            update(setup.recipe, [self.weights], None),
            update(replace(setup.recipe, weight_decay=0.0), [self.scores], None),
        )
        self._set()

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Take one step of both; return the mean loss before it, without the penalty."""
        mean, gradients = self._loss_and_grad(x, y)
        g, m = flat(gradients), self._mask
        of_scores = (g * self.weights + self._penalty) * self._b * m * (1 - m)  # 0 where m is 1 for good
        for each, gradient in zip(self._updates, (g * m, of_scores), strict=True):
            each([gradient], lr)
        self._steps += 1
        self._set()
        return mean

    def state(self) -> State:
        """Weights and scores with their momentum, the buffers, and the steps taken."""
        moments = [under(f"moment-{i}", each.moments()) for i, each in enumerate(self._updates)]
        own = {"weights": self.weights, "scores": self.scores, "steps": torch.tensor(self._steps)}
        return {**own, **under("buffer", self._loss_and_grad.buffers), **moments[0], **moments[1]}

    def restore(self, state: State) -> None:
        """Restore a state."""
        self.weights.copy_(state["weights"])
        self.scores.copy_(state["scores"])
        self._steps = int(state["steps"])
        for i, each in enumerate(self._updates):
            each.resume(within(f"moment-{i}", state))
        overwrite(self._loss_and_grad.buffers, within("buffer", state))
        self._set()

    def _set(self) -> None:
        self._b = self._annealing(self._steps)
        self._mask = torch.where(self._soft, torch.sigmoid(self._b * self.scores), 1.0)
        torch.mul(self.weights, self._mask, out=self._loss_and_grad.theta)
