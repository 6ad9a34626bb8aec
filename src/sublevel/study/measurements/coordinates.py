"""Curvature and widths along the weights that a level prunes, keeps, and random ones: before pruning and retrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from sublevel._types import Tensor
from sublevel.errors import ModelError
from sublevel.field import Field
from sublevel.geometry import curvature
from sublevel.geometry.profiles import profile, random_direction, width
from sublevel.space import Point
from sublevel.study.blocks import CoordinatesSpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.graph import Ref
from sublevel.study.measurements.base import Scene, examples, measurement, used
from sublevel.study.measurements.prunings import made_from

SLICE = 9
"""Points on either side of a slice."""

WIDTHS = 40
"""Evaluations that the search for a width takes, as a guess."""


@measurement("coordinates")
def coordinates(scene: Scene, block: CoordinatesSpec) -> None:
    """Before pruning: along what the study's criterion would take next. Retrained: along what the own mask took.

    The latter in the subspace of the mask that the own one was made from, where that is known.
    """
    for s in scene.admitted(block):
        after = scene.next_mask(s)
        if after is not None:
            _add(scene, block, s, "before", {"before": s.mask, "after": after})
        known, parent = made_from(scene, s)
        if known:
            _add(scene, block, s, "retrained", {"before": parent, "after": s.mask, "within": parent})


def _add(scene: Scene, block: CoordinatesSpec, s: Solution, when: str, masks: Mapping[str, Ref | None]) -> None:
    for part, which in examples(block):
        inputs = {"point": s.end, **masks, "probes": block.probes, "directions": block.directions}
        inputs |= {"rise": block.rise, **which}
        names = [*([when] if when != "before" else []), *([f"part-{part}"] if part else [])]
        scene.add("coordinates", s, *names, inputs=inputs, part=part, when=when)


@kernel("coordinates", 2)
def coordinates_cell(
    c: Context,
    *,
    point: str,
    before: str | None,
    after: str,
    probes: int,
    directions: int,
    rise: float,
    size: int | None,
    policy: str,
    part: int = 0,
    within: str | None = None,
) -> Output:
    """Equal counts in every layer, so that neither number nor place can make a difference.

    The steepest direction is that of the subspace ``within`` (None: R^D).
    """
    at, old, new = c.point(point), c.mask(before), c.mask(after)
    assert new is not None
    field = c.problem.field("train", size=size, policy=policy, part=part)
    old = c.problem.space.full_mask().to(new.device) if old is None else old
    try:
        sets = curvature.matched_sets(c.problem.space, old, new)
    except ValueError as error:
        raise ModelError(str(error)) from error
    found = curvature.along(field, at, sets, probes=probes)
    out, lines = [], []
    for name, index in sets.items():
        along = [random_direction(index, len(at.theta), draw=i) for i in range(directions)]
        seen = Seen(name, len(index), found[name].value, found[name].se, found[name].reason)
        out.append(seen.row(field, at, along, rise))
        lines += _slice(field, at, name, along[:1], rise)
    top = curvature.top_eigenvalues(field, at, k=1, mask=c.mask(within), restarts=0)
    doubt = "" if top.converged else f"eigenvalue not converged ({top.stop})"
    steepest = Seen("steepest", 1, float(top.values[0]), 0.0, doubt)
    out.append(steepest.row(field, at, [top.vectors[0]], rise))
    lines += _slice(field, at, "steepest", [top.vectors[0]], rise)
    return Output({"buffers": field.policy, "rows": out, "slices": lines})


@dataclass(frozen=True)
class Seen:
    """A set of coordinates with its mean curvature."""

    name: str
    count: int
    curvature: float
    se: float
    reason: str

    def row(self, field: Field, at: Point, along: list[Tensor], rise: float) -> dict[str, Any]:
        """The set with the spread of its finite-scale widths along some directions."""
        about = {"set": self.name, "count": self.count, "curvature": self.curvature, "se": self.se}
        about |= {"reason": self.reason, "rise": rise, "directions": len(along)}
        if not along:
            return about | {"capped": 0}
        seen = [width(field, at, direction, rise, tolerance=1e-2) for direction in along]
        whole = [w.total for w in seen]
        spread = {"width_low": min(whole), "width": median(whole), "width_high": max(whole)}
        return about | spread | {"capped": sum(w.left_capped or w.right_capped for w in seen)}


def _slice(field: Field, at: Point, name: str, along: list[Tensor], rise: float) -> list[dict[str, Any]]:
    """The loss along a direction, to where it has risen four times as far on either side, or as far as was looked."""
    out = []
    for direction in along:
        ends = width(field, at, direction, 4 * rise, tolerance=1e-1)
        radii = np.concatenate([np.linspace(-ends.left, 0, SLICE)[:-1], np.linspace(0, ends.right, SLICE)])
        seen = profile(field, at, direction, radii)
        for radius, loss, error in zip(radii.tolist(), seen.loss.tolist(), seen.error.tolist(), strict=True):
            out.append({"set": name, "radius": radius, "loss": loss, "error": error})
    return out


@rows("coordinates")
def coordinates_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``coordinates``: one row for each set; and ``slices``."""
    labels = {"when": "before", **labels}
    for table, found in (("coordinates", "rows"), ("slices", "slices")):
        for row in entry["values"][found]:
            yield table, {**labels, "buffers": entry["values"]["buffers"], **row}


@cost("coordinates")
def coordinates_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Three sets: a product for each probe, a search for each direction."""
    return 3 * (3 * inputs["probes"] + WIDTHS * inputs["directions"] / 3) * used(inputs, sizes)
