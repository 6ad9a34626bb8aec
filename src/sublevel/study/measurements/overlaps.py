"""The overlap of the steepest directions of a solution with those of the dense one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sublevel.engine.graph import Ref
from sublevel.geometry import curvature
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.options import Examples
from sublevel.tables import SOLUTION, table

PRODUCTS = 6
"""Estimated Hessian products for each eigenvector."""


class OverlapsSpec(Examples):
    """The share of the span of the ``k`` steepest directions that a solution has in common with the dense one."""

    k: int = Field(default=10, ge=1)


OVERLAPS = table("overlaps", SOLUTION, "part, k, overlap, chance, smallest_angle, largest_angle")
"""Share of the span of the k steepest directions that a solution has in common with the dense one, and the share by
chance; the smallest and the largest principal angle in radians.
"""


def cells(scene: Scene, block: OverlapsSpec) -> None:
    """The eigenvectors in R^D at both solutions, each stored once."""
    for s in scene.admitted(block, dense=False):
        for part in range(block.parts):
            both = [
                scene.cell(part, "eigenvectors", each, options=block, inputs={"point": each.end})
                for each in (s, scene.builders[s.seed].dense())
            ]
            vectors = [Ref(node.id, "vectors") for node in both]
            scene.cell(part, "eigen-overlap", s, inputs=dict(zip("ab", vectors, strict=True)))


def eigenvectors(c: Context, options: OverlapsSpec, *, point: str, part: int = 0) -> Output:
    """The k steepest directions of R^D at a point."""
    at = c.point(point)
    field = c.field(options, part)
    found = curvature.top_eigenvalues(field, at, k=min(options.k, len(at.theta)))
    values = {"buffers": field.policy, "converged": found.converged, "values": found.values.tolist()}
    return Output(values, {"vectors": {"vectors": found.vectors, "values": found.values}})


def overlap(c: Context, *, a: str, b: str) -> Output:
    """The overlap of two spans, and the overlap by chance."""
    one, two = (c.store.get_tensors(name)["vectors"] for name in (a, b))
    found = curvature.eigenspace_overlap(one, two)
    angles = found.angles.tolist()
    return Output({"k": len(one), "overlap": found.overlap, "chance": found.chance, "angles": angles})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``overlaps``."""
    values = entry["values"]
    angles = {"smallest_angle": values["angles"][0], "largest_angle": values["angles"][-1]}
    yield "overlaps", {**labels, **{n: values[n] for n in ("k", "overlap", "chance")}, **angles}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Products of three passes."""
    return 3 * PRODUCTS * inputs["k"] * used(inputs, sizes)


cell("eigenvectors", 3, eigenvectors, options=OverlapsSpec, cost=cost, products=True)
cell("eigen-overlap", 1, overlap, rows=rows)
measurement("overlaps", OverlapsSpec, cells)
