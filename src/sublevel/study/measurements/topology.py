"""The disconnectivity graph: segments between all chosen solutions, and the tree of their maxima."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, Literal

from pydantic import Field

from sublevel.engine.graph import Node
from sublevel.geometry.topology import disconnectivity
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, ends, measurement
from sublevel.study.measurements.paths import SegmentOptions, profile_between
from sublevel.study.options import Chooses, Where
from sublevel.tables import table


class TopologySpec(Where, SegmentOptions):
    """The disconnectivity graph of all chosen solutions: a segment between every two of them."""

    points: int = Field(default=11, ge=3)
    refine: int = Field(default=1, ge=0)
    buffers: Chooses[Literal["averaged", "recomputed", "batch"]] = "recomputed"


JOINS = table("joins", (), "'of', 'a', 'b', 'buffers', height_a, height_b, maximum")
"""Every two solutions, joined at the maximum of their segment (an upper bound). of = loss | error."""

TREE = table("tree", (), "'of', 'part', 'name', x0, y0, x1, y1")
"""The drawing of the disconnectivity graph of the joins: a leaf is a solution at its height (x0, y0); a line rises to
the height at which sublevel sets merge, or crosses over at that height.
"""


def cells(scene: Scene, block: TopologySpec) -> None:
    """A segment between every two chosen solutions, of one seed or of two."""
    for a, b in combinations(scene.admitted(block), 2):
        policy = block.buffers if scene.space.statistics else "averaged"
        inputs = {**block.document(), **ends((a.end, None), (b.end, None)), "policy": policy}
        labels = {"a": called(a), "b": called(b), "branch": b.branch, "level": b.level, "seed": b.seed}
        scene.graph.add(Node(f"join/{labels['a']}/{labels['b']}", "join", inputs, labels))


def called(s: Solution) -> str:
    """The name of a solution, with its seed."""
    return f"{s.branch} L{s.level} s{s.seed}"


def compute(
    c: Context, options: TopologySpec, *, a: str, a_mask: str | None, b: str, b_mask: str | None, policy: str
) -> Output:
    """The ends and the maximum of a segment, in train loss and train error; the grid is refined at the maximum."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    profile = profile_between(c, start, end, options, policy, chord=False)
    barriers = {of: asdict(profile.barrier(of)) for of in ("loss", "error")}
    heights = {of: {name: b[name] for name in ("start", "end", "maximum")} for of, b in barriers.items()}
    return Output({"buffers": profile.policy, **heights})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``joins``, from which the trees are made."""
    for of in ("loss", "error"):
        heights = entry["values"][of]
        row = {"of": of, "a": labels["a"], "b": labels["b"], "buffers": entry["values"]["buffers"]}
        yield "joins", {**row, "height_a": heights["start"], "height_b": heights["end"], "maximum": heights["maximum"]}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """An evaluation at each point; two if statistics are recomputed."""
    again = 2 if inputs["policy"] == "recomputed" else 1
    return again * used(inputs, sizes) * (inputs["points"] + 4 * inputs["refine"]) / 3


def trees(joins: Sequence[Row]) -> Iterator[Row]:
    """The rows of ``tree``: every line of the drawing and every leaf, for the loss and for the error.

    A pair whose path has a loss that is not finite has no join; a leaf without a height is left out.
    """
    for of in dict.fromkeys(row["of"] for row in joins):
        mine = [row for row in joins if row["of"] == of]
        leaves = {row[end]: row[f"height_{end}"] for row in mine for end in ("a", "b")}
        known = {name: height for name, height in leaves.items() if height is not None}
        pairs = {
            (row["a"], row["b"]): row["maximum"]
            for row in mine
            if row["maximum"] is not None and row["a"] in known and row["b"] in known
        }
        if known:
            tree = disconnectivity(known, pairs)
            places, lines = tree.layout()
            for name, x in places.items():
                yield {"of": of, "part": "leaf", "name": name, "x0": x, "y0": tree.minimax(name, name)}
            for line in lines:
                yield {"of": of, "part": "line", "name": "", **asdict(line)}


cell("join", 3, compute, options=TopologySpec, rows=rows, cost=cost)
measurement("topology", TopologySpec, cells)
