"""The search for a path in a sublevel set: the segment, then curves of growing effort.

A curve that stays below a threshold certifies that its ends share a connected sublevel set, at the grid's resolution. A
failed search proves nothing: its result is "not found", with the effort spent, and never "outside".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isnan, nan

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.display import Shown
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.estimate import join_reasons
from sublevel.geometry.paths.curve_training import CurveTraining, moving, train_curve
from sublevel.geometry.paths.curves import Curve
from sublevel.geometry.paths.segments import Profile, along
from sublevel.rng import derive


@dataclass(frozen=True)
class Attempt:
    """One curve of a search: kind, effort, maximum, and mean ``loss`` of the last tenth of its training."""

    kind: str
    bends: int
    steps: int
    maximum: float
    evaluations: int
    loss: float
    reason: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Connection(Shown):
    """The result of a search for a path between two points in the sublevel set {L <= ``threshold``}.

    ``found`` is ``segment``, ``curve`` or ``not found``, which does not prove the opposite. ``path`` is the best path
    tried, ``lowest_maximum`` the maximum along it, and ``profile`` its profile at equal distances; ``excess`` =
    lowest_maximum - threshold. ``effort`` counts ``evaluations`` of the field and ``gradient_steps``. ``segment`` is
    the maximum of the segment, to compare with ``curve``, the lowest maximum of the ``attempts`` (nan without any);
    each grid has equally many points.
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
        """The excess height as a function of c: lowest maximum - c, at most 0 if the points were found inside.

        The search ended at the first path below ``threshold``. For smaller c the excess is an upper bound.
        """
        with np.errstate(invalid="ignore"):
            return self.lowest_maximum - np.asarray(thresholds, dtype=float)

    def _facts(self) -> dict[str, object]:
        return {
            "": f"joined by a {self.found}" if self.inside else "no path found (which proves nothing)",
            "lowest maximum": self.lowest_maximum,
            "threshold": self.threshold,
            "gradient steps:": self.effort.get("gradient_steps"),
            "caution:": self.reason,
        }


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

    The search tries the segment; then, for every number of gradient steps in ``effort``, a curve for every number in
    ``bends``: a quadratic Bezier curve for 1, a polygonal chain for more. Every path is judged on equally many
    ``points`` and rounds of ``refine``. The search ends at the first path that stays below the threshold or nowhere
    exceeds its higher end, since no path can be lower. With the threshold -inf it compares segment and curve for any c.
    Curves are trained on ``stochastic`` (by default the field itself), in the subspace of ``mask``.

    Raises TypeError for a stochastic field, ValueError for a threshold of nan, an effort or number of bends below 1, or
    fields of two dimensions.

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
        """The profile, refined only at the maximum so that every path takes equal effort."""
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
        attempts.append(
            Attempt(
                kind=start.kind,
                bends=inner,
                steps=len(trained.losses),
                maximum=nan if found is None else found.barrier().maximum,
                evaluations=0 if found is None else found.evaluations,
                loss=float(trained.losses[-max(1, len(trained.losses) // 10) :].mean()),
                reason=trained.reason if found is None else found.reason,
            )
        )
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
        curve=min(tops, default=nan),
        attempts=attempts,
        reason=join_reasons({above: True, profile.reason: True}),
    )


def _top(profile: Profile) -> float:
    """The maximum along a path, with nan as inf."""
    top = profile.barrier().maximum
    return inf if isnan(top) else top
