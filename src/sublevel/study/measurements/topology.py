"""The disconnectivity graph: segments between all chosen solutions, and the tree that their maxima make."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from sublevel.engine.graph import Node
from sublevel.study.blocks import TopologySpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import Scene, ends, measurement, used
from sublevel.study.measurements.paths import profile_between


@measurement("topology")
def joins(scene: Scene, block: TopologySpec) -> None:
    """A segment between every two chosen solutions, of one seed or of two."""
    for a, b in combinations(scene.admitted(block), 2):
        inputs = {
            **ends((a.end, None), (b.end, None)),
            "points": block.points,
            "refine": block.refine,
            "size": block.size,
            "policy": block.buffers if scene.space.statistics else "averaged",
        }
        labels = {"a": called(a), "b": called(b), "branch": b.branch, "level": b.level, "seed": b.seed}
        scene.graph.add(Node(f"join/{labels['a']}/{labels['b']}", "join", inputs, labels))


def called(s: Solution) -> str:
    """A solution's name among those of all seeds."""
    return f"{s.branch} L{s.level} s{s.seed}"


@kernel("join", 3)
def join_cell(
    c: Context,
    *,
    a: str,
    a_mask: str | None,
    b: str,
    b_mask: str | None,
    points: int,
    refine: int,
    size: int | None,
    policy: str,
) -> Output:
    """The ends and the maximum of a segment, in train loss and train error, refined beside the maximum alone."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    profile = profile_between(c, start, end, points=points, refine=refine, size=size, policy=policy, chord=False)
    found = {of: profile.barrier(of) for of in ("loss", "error")}
    return Output(
        {
            "buffers": profile.policy,
            **{of: {"start": b.start, "end": b.end, "maximum": b.maximum} for of, b in found.items()},
        }
    )


@rows("join")
def join_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``joins``: what the trees are made from."""
    for of in ("loss", "error"):
        heights = entry["values"][of]
        row = {"of": of, "a": labels["a"], "b": labels["b"], "buffers": entry["values"]["buffers"]}
        yield "joins", {**row, "height_a": heights["start"], "height_b": heights["end"], "maximum": heights["maximum"]}


@cost("join")
def join_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """An evaluation at every point, twice where statistics are computed anew."""
    again = 2 if inputs["policy"] == "recomputed" else 1
    return again * used(inputs, sizes) * (inputs["points"] + 4 * inputs["refine"]) / 3
