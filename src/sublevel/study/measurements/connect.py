"""Membership: can a solution be joined to the dense one without leaving its sublevel set, and with what effort?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel.errors import ModelError
from sublevel.geometry.align import infer_spec, weight_matching
from sublevel.geometry.connection import connected
from sublevel.risk import MiniBatches
from sublevel.study.blocks import ConnectSpec
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import Scene, drawn, examples, measurement, used


@measurement("connect")
def connections(scene: Scene, block: ConnectSpec) -> None:
    """From every chosen solution to the dense one of its seed, in R^D.

    One with another initialisation is looked at twice with the same effort: as it is, and with its hidden units
    permuted to match the dense solution, where they can be.
    """
    matching = block.aligned and _can_be_matched(scene)
    for s in scene.admitted(block, dense=False):
        dense = scene.builders[s.seed].dense()
        origin = drawn(scene.graph, s.start)
        other = origin is None or origin != drawn(scene.graph, dense.start)
        for align in (0, 1) if matching and other else (0,):
            for part, which in examples(block):
                inputs = {"a": dense.end, "b": s.end, "bends": block.bends, "iterations": block.iterations}
                inputs |= {"points": block.points, "batch_size": block.batch_size, **which}
                inputs |= {"align": True} if align else {}
                names = [*(["aligned"] if align else []), *([f"part-{part}"] if part else [])]
                scene.add("connection", s, *names, inputs=inputs, part=part, aligned=align)


def _can_be_matched(scene: Scene) -> bool:
    """Whether the order of the layers shows which units are hidden ones."""
    try:
        infer_spec(scene.space)
    except ModelError:
        return False
    return True


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
    align: bool = False,
) -> Output:
    """The segment, then a curve unless the segment is nowhere above its higher end.

    The threshold of the search is the height of the higher end: no path can stay below less. What holds at other
    heights can be read off the maxima. A network whose units turn out not to be known has a reason and no path.
    """
    start, end = c.point(a), c.point(b)
    field = c.problem.field("train", size=size, policy=policy, part=part)
    if align:
        try:
            end = weight_matching(c.problem.space, start, end).point
        except ModelError as error:
            return Output({"buffers": field.policy, "reason": str(error)})
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
    values = {"aligned": 0, **labels, **entry["values"]}
    if "losses" in values:
        dense, loss = values["losses"][0], values["losses"][-1]
        values |= {"loss_dense": dense, "loss": loss, "height": values["lowest_max"] - max(loss, dense)}
    yield "membership", values


@cost("connection")
def connection_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Two profiles, and the steps of one curve."""
    return 2 * inputs["points"] * used(inputs, sizes) / 3 + inputs["iterations"] * inputs["batch_size"]
