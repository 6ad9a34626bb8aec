"""Membership: can a solution be joined to the dense one without leaving its sublevel set, and with what effort?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel.geometry.connection import connected
from sublevel.risk import MiniBatches
from sublevel.study.blocks import ConnectSpec
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import Scene, examples, measurement, used


@measurement("connect")
def connections(scene: Scene, block: ConnectSpec) -> None:
    """From every chosen solution to the dense one of its seed, in R^D."""
    for s in scene.admitted(block, dense=False):
        dense = scene.builders[s.seed].dense()
        for part, which in examples(block):
            inputs = {"a": dense.end, "b": s.end, "bends": block.bends, "iterations": block.iterations}
            inputs |= {"points": block.points, "batch_size": block.batch_size, **which}
            scene.add("connection", s, *([f"part-{part}"] if part else []), inputs=inputs, part=part)


@kernel("connection", 1)
def connection_cell(
    c: Context,
    *,
    a: str,
    b: str,
    bends: int,
    iterations: int,
    points: int,
    batch_size: int,
    size: int | None,
    policy: str,
    part: int = 0,
) -> Output:
    """The segment, then a curve unless the segment is nowhere above its higher end.

    The threshold of the search is the height of the higher end: no path can stay below less. What holds at other
    heights can be read off the maxima.
    """
    start, end = c.point(a), c.point(b)
    field = c.problem.field("train", size=size, policy=policy, part=part)
    threshold = max(field.loss(start), field.loss(end))
    found = connected(
        field,
        start,
        end,
        threshold,
        stochastic=MiniBatches(field, batch_size=batch_size),
        effort=(iterations,),
        bends=(bends,),
        points=points,
    )
    return Output(
        {
            "buffers": field.policy,
            "threshold": threshold,
            "found": found.found,
            "segment_max": found.segment,
            "curve_max": found.curve,
            "lowest_max": found.lowest_maximum,
            "excess": found.excess,
            "evaluations": found.effort["evaluations"],
            "gradient_steps": found.effort["gradient_steps"],
            "reason": found.reason,
            "distances": (found.profile.alphas).tolist(),
            "losses": found.profile.loss.tolist(),
        }
    )


@rows("connection")
def connection_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``membership``: every path begins at the dense solution and ends at the sparse one, whose losses these are."""
    values = entry["values"]
    yield "membership", {**labels, **values, "loss_dense": values["losses"][0], "loss": values["losses"][-1]}


@cost("connection")
def connection_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Two profiles, and the steps of one curve."""
    return 2 * inputs["points"] * used(inputs, sizes) / 3 + inputs["iterations"] * inputs["batch_size"]
