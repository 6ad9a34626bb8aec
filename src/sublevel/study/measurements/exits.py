"""Where random rays leave the sublevel sets of the train loss, the train error and the test error.

The three sets share a centre, the solution, and rays in the same directions, so their sizes compare directly. Heights
are above the solution's own value: eps nats for the loss, a share of the examples for an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sublevel.field import ErrorRate
from sublevel.geometry.volume import Rays, RaySearch, identity
from sublevel.study.cells import Context, Output, Row, Rows, cell
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.options import Chooses, Policy, Subspace, Where
from sublevel.tables import SOLUTION, table

Of = Literal["train loss", "train error", "test error"]


class ExitsSpec(Where):
    """Rays from each solution to the border of sublevel sets of the loss and of the error.

    ``loss`` are heights in nats, ``error`` heights as shares of the examples. An error moves in steps of one example:
    a height below one over the number of examples asks for no change at all.
    """

    of: Chooses[tuple[Of, ...]] = ("train loss", "train error", "test error")
    spaces: Chooses[tuple[Subspace, ...]] = ("own",)
    loss: Chooses[tuple[float, ...]] = (0.1,)
    error: Chooses[tuple[float, ...]] = (0.02,)
    rays: int = Field(default=32, ge=2)
    radius: float = Field(default=100.0, gt=0)
    growth: float = Field(default=1.1, gt=1)
    size: int | None = Field(default=None, ge=1)
    policy: Policy = "stored"


SEARCH = 50
"""Evaluations of a ray's search, as a guess."""

EXITS = table(
    "exits",
    SOLUTION,
    """
    'space', 'of', 'buffers', dimension
    value: of the loss or the error at the solution
    height: above that value
    rays
    radius_low, radius, radius_high: the lower quartile, the median and the upper quartile of the exits' distances
    log_volume: of the part of the set that rays reach
    se, ess
    capped: share of the rays that reach the largest radius inside the set
    'reason': why log_volume is not to be trusted; the quartiles of the distances stand in any case
    """,
)
"""Distances at which rays leave a sublevel set. of = train loss | train error | test error."""


def cells(scene: Scene, block: ExitsSpec) -> None:
    """One cell for each set, space and solution."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for of in block.of:
                heights = block.loss if of == "train loss" else block.error
                inputs = {"point": s.end, "mask": mask, "of": of, "heights": heights}
                named = of.replace(" ", "-")
                scene.add("exits", s, named, space, options=block, inputs=inputs, space=space, of=of)


def compute(
    c: Context, options: ExitsSpec, *, point: str, mask: str | None, of: Of, heights: tuple[float, ...]
) -> Output:
    """The exits of the rays at every height, and the volume that they give."""
    split, what = of.split()
    risk = c.problem.field(split, size=options.size, policy=options.policy)
    field = risk if what == "loss" else ErrorRate(risk)
    search = RaySearch(options.radius, options.rays, failure=0.05, growth=options.growth, seed=0)
    rays = Rays.around(field, c.point(point), c.mask(mask), search, lambda of: identity(of.dimension))
    found = []
    for height in heights:
        exits = rays.exits(height)
        volume = rays.volume_of(exits, height)
        low, middle, high = np.quantile([exp(e.log_radius) for e in exits], (0.25, 0.5, 0.75)).tolist()
        row = {"height": height, "radius_low": low, "radius": middle, "radius_high": high, "rays": len(exits)}
        row |= {"log_volume": volume.log_volume, "se": volume.se, "reason": volume.reason}
        found.append(row | {name: volume.diagnostics[name] for name in ("ess", "capped")})
    return Output({"buffers": field.policy, "dimension": rays.dimension, "value": rays.base, "rows": found})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``exits``."""
    values = entry["values"]
    for row in values["rows"]:
        yield "exits", {**labels, **{n: values[n] for n in ("buffers", "dimension", "value")}, **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A search along every ray at every height: steps outwards, then a bisection to 0.01 / n."""
    split = inputs["of"].split()[0]
    examples = min(inputs.get("size") or sizes[split], sizes[split])
    return len(inputs["heights"]) * inputs["rays"] * SEARCH * examples / 3


cell("exits", 1, compute, options=ExitsSpec, rows=rows, cost=cost)
measurement("exits", ExitsSpec, cells)
