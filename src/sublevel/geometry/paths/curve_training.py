"""Training of curves of low loss between two points.

Two families have fixed ends and free inner control points: Bezier curves (Garipov et al. 1802.10026, equation 6) and
polygonal chains (the same, equation 5; Draxler et al. 1803.00885). Training lowers the mean loss E_t L(phi(t)) with t
uniform in [0, 1]; its gradient in control point j is E_t w_j(t) grad L(phi(t)). This mean weighs a wall by the share of
t in it, whereas `sublevel.geometry.paths.connection` judges a curve on a grid that is even in its length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch

from sublevel._types import Bool, Tensor
from sublevel.errors import unknown
from sublevel.field import Stochastic
from sublevel.geometry.paths.curves import Curve
from sublevel.rng import generator
from sublevel.space import project

OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True, kw_only=True)
class CurveTraining:
    """Options for training the bends of a curve.

    ``lr`` falls linearly to 1% between half and nine tenths of the steps (Garipov et al.). For ``adam`` it is in units
    of the ends' root mean square difference per coordinate, so that one value serves any scale of theta; for ``sgd``
    (with ``momentum``) it is the plain learning rate. ``jitter`` first moves each bend in a random direction, in units
    of the distance between the ends, since a straight curve may be a saddle of the mean loss.
    """

    steps: int = 300
    optimizer: str = "adam"
    lr: float = 0.05
    momentum: float = 0.9
    jitter: float = 0.01

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer of a curve", self.optimizer, OPTIMIZERS)
        if self.steps < 1 or not self.lr > 0 or not self.jitter >= 0:
            raise ValueError(
                f"training a curve needs steps >= 1, lr > 0 and jitter >= 0, got {self.steps}, {self.lr}, {self.jitter}"
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step, as a share of ``lr``."""
        done = step / self.steps
        return 1.0 if done <= 0.5 else max(0.01, 1 - 0.99 * (done - 0.5) / 0.4)


@dataclass(frozen=True, eq=False)
class TrainedCurve:
    """A trained curve and the batch losses [steps] of its training; ``reason`` says why it is unusable, or is empty."""

    curve: Curve
    losses: np.ndarray
    reason: str = ""


def train_curve(
    stochastic: Stochastic,
    curve: Curve,
    how: CurveTraining | None = None,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    seed: int = 0,
) -> TrainedCurve:
    """Lower the mean loss along a curve by moving its bends, with one batch and one t per step.

    ``mask`` keeps the curve in a subspace that contains both ends (the union of their masks). The t of a step is drawn
    from (``seed``, "curve", step).

    Raises TypeError if ``stochastic`` is not a `Stochastic` (see `EveryExample`), ValueError for a curve without bends,
    a mask of another length, or an end outside the mask's subspace.
    """
    how = how or CurveTraining()
    if not isinstance(stochastic, Stochastic):
        raise TypeError(f"a curve is trained on a Stochastic field, got {type(stochastic).__name__}")
    if not len(curve.bends):
        raise ValueError("a curve without bends has nothing to train")
    keep = moving(curve, mask)
    bends = _jittered(curve, how.jitter, keep, seed)
    if how.optimizer == "sgd":
        optimizer = torch.optim.SGD([bends], lr=how.lr, momentum=how.momentum)
    else:
        per_coordinate = float((curve.end.theta.double() - curve.start.theta.double()).norm()) / sqrt(len(keep))
        optimizer = torch.optim.Adam([bends], lr=how.lr * per_coordinate)
    moved, losses = replace(curve, bends=bends), []
    for step in range(how.steps):
        t = float(torch.rand((), generator=generator(seed, "curve", step), dtype=torch.float64))
        loss, grad = stochastic.loss_and_grad(moved(t), step)
        grad = grad if mask is None else project(grad, mask.to(grad.device))
        bends.grad = torch.outer(torch.from_numpy(curve.weights(t)[1:-1]).to(grad), grad)
        optimizer.param_groups[0]["lr"] = how.rate(step) * optimizer.defaults["lr"]
        optimizer.step()
        losses.append(loss)
    seen = torch.stack(losses).double().cpu().numpy()
    reason = "" if bool(torch.isfinite(bends).all()) else "a control point is not finite after training"
    bad = np.flatnonzero(~np.isfinite(seen))
    if len(bad):
        reason = f"the loss in training is {seen[bad[0]]} at step {bad[0]}"
    return TrainedCurve(replace(curve, bends=bends.detach()), seen, reason)


def moving(curve: Curve, mask: Bool[Tensor, "D"] | None) -> Tensor:
    """The coordinates that the bends may move in."""
    dim = len(curve.start.theta)
    if mask is None:
        return torch.arange(dim)
    if len(mask) != dim:
        raise ValueError(f"a mask of length {len(mask)} does not fit a curve in dimension {dim}")
    for name, end in (("start", curve.start), ("end", curve.end)):
        outside = int(((end.theta != 0) & ~mask.to(end.theta.device)).sum())
        if outside:
            raise ValueError(f"the {name} has {outside} non-zero coordinates outside the mask: take the union of both")
    keep = mask.cpu().nonzero().squeeze(1)
    if not len(keep):
        raise ValueError("a mask that keeps no coordinate leaves a curve nothing to move in")
    return keep


def _jittered(curve: Curve, jitter: float, keep: Tensor, seed: int) -> Tensor:
    bends = curve.bends.clone()
    size = jitter * float((curve.end.theta.double() - curve.start.theta.double()).norm())
    for j in range(len(bends)):
        v = torch.randn(len(keep), generator=generator(seed, "curve:bends", j), dtype=torch.float64)
        bends[j, keep.to(bends.device)] += (size * v / v.norm()).to(bends)
    return bends
