"""Membership: whether a path below a height joins a solution to the dense one, and the effort of the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sublevel.errors import ModelError
from sublevel.geometry.paths import connected, infer_spec, weight_matching
from sublevel.risk import MiniBatches
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, drawn, measurement
from sublevel.study.options import Chooses, Examples
from sublevel.tables import SOLUTION, table


class ConnectSpec(Examples):
    """Whether a path within a sublevel set joins a solution to the dense one: a segment, then a curve.

    ``aligned`` repeats the search with the same effort after weight matching, if the solution has another
    initialisation than the dense one and the network's hidden units are known.
    """

    bends: int = Field(default=1, ge=1)
    iterations: int = Field(default=200, ge=1)
    points: int = Field(default=21, ge=3)
    batch_size: int = Field(default=128, ge=1)
    aligned: Chooses[bool] = True


MEMBERSHIP = table(
    "membership",
    SOLUTION,
    """
    part, 'buffers'
    aligned: 1: its hidden units were first permuted to match the dense one (of another initialisation) | 0
    loss: of the solution, and of the dense one, on the same examples
    loss_dense, threshold, 'found', segment_max, curve_max, lowest_max
    excess: lowest_max - threshold
    height: lowest_max - max(loss, loss_dense): 0 where the higher end is the highest point
    evaluations, gradient_steps, 'reason'
    """,
)
"""Whether a path below a height joins a solution to the dense one. found = segment | curve | not found, at the height
of the higher end; the maxima answer for every other height. Not found is no proof that there is none. The effort is
listed, and is the same before and after weight matching.
"""


def cells(scene: Scene, block: ConnectSpec) -> None:
    """From every chosen solution to the dense one of its seed, in R^D.

    For a solution with another initialisation the search is made twice with the same effort: as it is, and with its
    hidden units permuted to match the dense solution, if they can be.
    """
    try:
        matching = block.aligned and bool(infer_spec(scene.space))
    except ModelError:  # the order of the layers does not show which units are hidden
        matching = False
    for s in scene.admitted(block, dense=False):
        dense = scene.builders[s.seed].dense()
        origin = drawn(scene.graph, s.start)
        other = origin is None or origin != drawn(scene.graph, dense.start)
        for align in (0, 1) if matching and other else (0,):
            inputs = {"a": dense.end, "b": s.end} | ({"align": True} if align else {})
            names = ["aligned"] if align else []
            scene.add("connection", s, *names, options=block, inputs=inputs, aligned=align)


def compute(c: Context, options: ConnectSpec, *, a: str, b: str, part: int = 0, align: bool = False) -> Output:
    """The segment, then a curve unless the segment is nowhere above its higher end.

    The threshold of the search is the loss of the higher end, which no path can stay below. The maxima answer for other
    heights. If the hidden units of a network cannot be matched, there is a reason and no path.
    """
    start, end = c.point(a), c.point(b)
    field = c.problem.field("train", size=options.size, policy=options.policy, part=part)
    if align:
        try:
            end = weight_matching(c.problem.space, start, end).point
        except ModelError as error:
            return Output({"buffers": field.policy, "reason": str(error)})
    threshold = max(field.loss(start), field.loss(end))
    effort = {"effort": (options.iterations,), "bends": (options.bends,), "points": options.points}
    batches = MiniBatches(field, batch_size=options.batch_size)
    found = connected(field, start, end, threshold, stochastic=batches, **effort)
    spent = {name: found.effort[name] for name in ("evaluations", "gradient_steps")}
    maxima = {"segment_max": found.segment, "curve_max": found.curve, "lowest_max": found.lowest_maximum}
    profile = {"distances": found.profile.alphas.tolist(), "losses": found.profile.loss.tolist()}
    values = {"buffers": field.policy, "threshold": threshold, "found": found.found, **maxima, **spent, **profile}
    return Output(values | {"excess": found.excess, "reason": found.reason})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``membership``; every path leads from the dense solution to the sparse one."""
    values = {"aligned": 0, **labels, **entry["values"]}
    if "losses" in values:
        dense, loss = values["losses"][0], values["losses"][-1]
        values |= {"loss_dense": dense, "loss": loss, "height": values["lowest_max"] - max(loss, dense)}
    yield "membership", values


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Two profiles, and the steps of one curve."""
    return 2 * inputs["points"] * used(inputs, sizes) / 3 + inputs["iterations"] * inputs["batch_size"]


cell("connection", 1, compute, options=ConnectSpec, rows=rows, cost=cost)
measurement("connect", ConnectSpec, cells)
