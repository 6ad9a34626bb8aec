"""The search for a path that stays in a sublevel set: the segment, then curves of growing effort.

A curve that stays below a threshold certifies that its ends share a sublevel set, at the grid's resolution. A search
that finds none proves nothing: its answer is "not found", with the effort it took, and never "outside".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isnan

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.paths.curve_training import CurveTraining, TrainedCurve, moving, train_curve
from sublevel.geometry.paths.curves import Curve
from sublevel.geometry.paths.segments import Profile, along
from sublevel.rng import derive


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
    a: PointLike,
    b: PointLike,
    threshold: float,
    *,
    stochastic: Stochastic | None = None,
    effort: Sequence[int] = (100, 300, 1000),
    bends: Sequence[int] = (1, 3),
    seed: int = 0,
    mask: Bool[Tensor, "D"] | None = None,
    how: CurveTraining | None = None,
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

    >>> import torch
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
    moving(best, mask)

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
        descent = replace(how or CurveTraining(), steps=steps)
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


def _attempt(trained: TrainedCurve, found: Profile | None) -> Attempt:
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
