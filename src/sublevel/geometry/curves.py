"""Curves of low loss between two points, and the search for one that stays in a sublevel set.

Two families have their ends fixed and their inner control points free: Bezier curves (Garipov et al. 1802.10026,
equation 6) and polygonal chains (the same, equation 5; Draxler et al. 1803.00885). Training lowers the mean loss
E_t L(phi(t)), t uniform in [0, 1], whose gradient in control point j is E_t w_j(t) grad L(phi(t)). That mean charges a
wall by the time spent in it, so a curve is judged on a grid that is even in its length, not in t.

A curve that stays below a threshold certifies that its ends share a sublevel set, at the grid's resolution. A search
that finds none proves nothing: its answer is "not found", with the effort it took, and never "outside".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isnan, sqrt

import numpy as np
import torch

from sublevel._types import Bool, Tensor
from sublevel.errors import unknown
from sublevel.field import At, EveryExample, Field, Stochastic, require_field
from sublevel.geometry.control_points import Curve
from sublevel.geometry.segments import Profile, along
from sublevel.rng import derive, generator
from sublevel.space import project

OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How the bends of a curve are trained.

    ``lr`` falls linearly to 1% of itself between half and nine tenths of the steps (Garipov et al.). For ``adam`` it
    is in units of the ends' root mean square difference per coordinate, so that one value serves any scale of theta;
    for ``sgd`` (with ``momentum``) it is the plain learning rate. ``jitter`` moves each bend at the start in a random
    direction, in units of the ends' distance: a straight curve may be a saddle of the mean loss.
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
class Trained:
    """A trained curve, the batch losses [steps] it was trained on, and in ``reason`` why it is not to be used."""

    curve: Curve
    losses: np.ndarray
    reason: str = ""


def train_curve(
    stochastic: Stochastic,
    curve: Curve,
    how: Descent | None = None,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    seed: int = 0,
) -> Trained:
    """Lower the mean loss along a curve by moving its bends, one batch and one t a step.

    ``mask`` keeps the curve in a subspace that holds both ends (the union of their masks). t of a step is drawn from
    (``seed``, "curve", step).

    Raises TypeError where ``stochastic`` is not a `Stochastic` (see `EveryExample`), ValueError for a curve without
    bends, a mask of another length, or an end outside the mask's subspace.
    """
    how = how or Descent()
    if not isinstance(stochastic, Stochastic):
        raise TypeError(f"a curve is trained on a Stochastic field, got {type(stochastic).__name__}")
    if not len(curve.bends):
        raise ValueError("a curve without bends has nothing to train")
    keep = _subspace(curve, mask)
    bends = _jittered(curve, how.jitter, keep, seed)
    optimizer = _optimizer(bends, curve, how, len(keep))
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
    return Trained(replace(curve, bends=bends.detach()), seen, _diverged(seen, bends))


@dataclass(frozen=True)
class Attempt:
    """One curve of a search: what it was, its effort, its training loss over the last tenth, the maximum along it."""

    kind: str
    bends: int
    steps: int
    maximum: float
    evaluations: int
    loss: float
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Connection:
    """Whether two points were found in one connected sublevel set {L <= ``threshold``}, and with what effort.

    ``found`` is ``segment``, ``curve`` or ``not found``; the latter is no proof of the contrary. ``lowest_maximum`` is
    that of ``path``, the best of all that were tried, whose ``profile`` is taken at equal distances along it;
    ``excess`` = lowest_maximum - threshold. ``effort`` counts ``evaluations`` of the field and ``gradient_steps``.
    ``segment`` is the segment's maximum, to be read beside ``curve``, the lowest of the ``attempts`` (nan if none was
    made), each from a grid of as many points.
    """

    inside: bool
    found: str
    lowest_maximum: float
    path: Curve
    excess: float
    effort: Mapping[str, int]
    threshold: float
    profile: Profile
    segment: float
    curve: float
    attempts: tuple[Attempt, ...]
    reason: str = ""

    def excess_over(self, thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
        """The excess height as a function of c: lowest maximum - c, at most 0 where the points were found inside.

        The search ended at the first path below ``threshold``: for smaller c it is an upper bound that more effort
        may lower.
        """
        with np.errstate(invalid="ignore"):
            return self.lowest_maximum - np.asarray(thresholds, dtype=float)


def connected(
    field: Field,
    a: At,
    b: At,
    threshold: float,
    *,
    stochastic: Stochastic | None = None,
    effort: Sequence[int] = (100, 300, 1000),
    bends: Sequence[int] = (1, 3),
    seed: int = 0,
    mask: Bool[Tensor, "D"] | None = None,
    how: Descent | None = None,
    points: int = 21,
    refine: int = 4,
) -> Connection:
    """Search for a path from a to b along which the loss stays at or below ``threshold``.

    First the segment; then, for every number of gradient steps in ``effort``, a curve for every number in ``bends``: a
    quadratic Bezier curve for 1, a polygonal chain for more. Every path is judged on as many ``points`` and rounds
    of ``refine``. The search ends at the first that stays below the threshold, or that is nowhere above its higher
    end, since none can be lower; with the threshold -inf it compares segment and curve whatever c. Curves are trained
    on ``stochastic`` (by default the field itself), in the subspace of ``mask``.

    Raises TypeError where the field is stochastic, ValueError for a threshold that is nan, an effort or a number of
    bends below 1, or fields of two dimensions.

    >>> from sublevel.field import Autograd
    >>> ring = Autograd(lambda x: (x.norm() - 1) ** 2, 2)
    >>> a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> answer = connected(ring, a, -a, 0.05)
    >>> answer.found, round(answer.segment, 3)
    ('curve', 1.0)
    """
    require_field(field, "a search for a connection")
    if isnan(threshold):
        raise ValueError("a threshold is a height of the loss, got nan")
    if any(n < 1 for n in (*effort, *bends)):
        raise ValueError(f"effort and bends are counts of at least 1, got {tuple(effort)} and {tuple(bends)}")
    batches = EveryExample(field) if stochastic is None else stochastic
    if batches.dim != field.dim:
        raise ValueError(f"curves trained in dimension {batches.dim} do not lie in a field of dimension {field.dim}")
    best = Curve.straight(a, b, kind="chain", bends=0)
    _subspace(best, mask)

    def look(curve: Curve) -> Profile:
        """At equal effort for every curve: refined beside its maximum alone."""
        return along(field, curve.at_length, points=points, refine=refine, chord=False)

    first = profile = look(best)
    enough = max(threshold, float(first.loss[0]), float(first.loss[-1]))
    attempts: list[Attempt] = []
    for i, (steps, inner) in enumerate(product(effort, bends)):
        if _top(profile) <= enough:
            break
        start = Curve.straight(a, b, kind="bezier" if inner == 1 else "chain", bends=inner)
        descent = replace(how or Descent(), steps=steps)
        trained = train_curve(batches, start, descent, mask=mask, seed=derive(seed, "curve:attempt", i))
        found = None if trained.reason else look(trained.curve)
        attempts.append(_attempt(trained, found))
        if found is not None and _top(found) < _top(profile):
            best, profile = trained.curve, found
    return _connection(threshold, first, best, profile, tuple(attempts))


def _connection(
    threshold: float, first: Profile, best: Curve, profile: Profile, attempts: tuple[Attempt, ...]
) -> Connection:
    lowest = profile.barrier().maximum
    inside = lowest <= threshold
    found = "not found" if not inside else "curve" if len(best.bends) else "segment"
    higher = max(profile.loss[0], profile.loss[-1])
    above = f"an end lies above the threshold: its loss is {higher:.6g}" if higher > threshold else ""
    tops = [attempt.maximum for attempt in attempts if not isnan(attempt.maximum)]
    return Connection(
        inside=inside,
        found=found,
        lowest_maximum=lowest,
        path=best,
        excess=profile.excess(threshold),
        effort={
            "evaluations": first.evaluations + sum(attempt.evaluations for attempt in attempts),
            "gradient_steps": sum(attempt.steps for attempt in attempts),
        },
        threshold=threshold,
        profile=profile,
        segment=first.barrier().maximum,
        curve=min(tops, default=float("nan")),
        attempts=attempts,
        reason="; ".join(filter(None, (above, profile.reason))),
    )


def _attempt(trained: Trained, found: Profile | None) -> Attempt:
    curve, steps = trained.curve, len(trained.losses)
    return Attempt(
        kind=curve.kind,
        bends=len(curve.bends),
        steps=steps,
        maximum=float("nan") if found is None else found.barrier().maximum,
        evaluations=0 if found is None else found.evaluations,
        loss=float(trained.losses[-max(1, steps // 10) :].mean()),
        reason=trained.reason if found is None else found.reason,
    )


def _top(profile: Profile) -> float:
    """The maximum that a search compares: nan is worse than anything."""
    top = profile.barrier().maximum
    return inf if isnan(top) else top


def _subspace(curve: Curve, mask: Bool[Tensor, "D"] | None) -> Tensor:
    """The coordinates that the bends move in."""
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


def _optimizer(bends: Tensor, curve: Curve, how: Descent, n: int) -> torch.optim.Optimizer:
    if how.optimizer == "sgd":
        return torch.optim.SGD([bends], lr=how.lr, momentum=how.momentum)
    per_coordinate = float((curve.end.theta.double() - curve.start.theta.double()).norm()) / sqrt(n)
    return torch.optim.Adam([bends], lr=how.lr * per_coordinate)


def _diverged(losses: np.ndarray, bends: Tensor) -> str:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        return f"the loss in training is {losses[bad[0]]} at step {bad[0]}"
    return "" if bool(torch.isfinite(bends).all()) else "a control point is not finite after training"
