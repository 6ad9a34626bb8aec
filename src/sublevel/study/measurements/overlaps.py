"""How much of the span of the steepest directions a solution shares with the dense one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel.engine.graph import Node, Ref
from sublevel.geometry import curvature
from sublevel.study.blocks import OverlapsSpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import KEEP, Scene, examples, measurement, name, used

PRODUCTS = 6
"""Hessian products for each eigenvector, as a guess."""


@measurement("overlaps")
def overlaps(scene: Scene, block: OverlapsSpec) -> None:
    """The eigenvectors of R^D at both solutions, kept once each."""
    for s in scene.admitted(block, dense=False):
        for part, which in examples(block):
            of = [_vectors(scene, block, t, part, which) for t in (s, scene.builders[s.seed].dense())]
            names = [f"part-{part}"] if part else []
            scene.add("eigen-overlap", s, *names, inputs={"a": of[0], "b": of[1]}, part=part)


def _vectors(scene: Scene, block: OverlapsSpec, s: Solution, part: int, which: Mapping[str, Any]) -> Ref:
    inputs = {"point": s.end, "k": block.k, **which}
    names = [f"part-{part}"] if part else []
    node = Node(name("eigenvectors", s, *names), "eigenvectors", inputs, {**s.labels, "part": part})
    return Ref(scene.graph.add(node).id, "vectors")


@kernel("eigenvectors", 3)
def eigenvectors_cell(c: Context, *, point: str, k: int, size: int | None, policy: str, part: int = 0) -> Output:
    """The k steepest directions of R^D at a point."""
    at = c.point(point)
    field = c.problem.field("train", size=size, policy=policy, part=part, keep_bytes=KEEP)
    found = curvature.top_eigenvalues(field, at, k=min(k, len(at.theta)))
    values = {"buffers": field.policy, "converged": found.converged, "values": found.values.tolist()}
    return Output(values, {"vectors": {"vectors": found.vectors, "values": found.values}})


@kernel("eigen-overlap", 1)
def overlap_cell(c: Context, *, a: str, b: str) -> Output:
    """The overlap of two spans, and what chance would give."""
    one, two = (c.store.get_tensors(name)["vectors"] for name in (a, b))
    found = curvature.eigenspace_overlap(one, two)
    angles = found.angles.tolist()
    return Output({"k": len(one), "overlap": found.overlap, "chance": found.chance, "angles": angles})


@rows("eigenvectors")
def eigenvector_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """None: vectors are seen in what is measured with them."""
    return iter(())


@rows("eigen-overlap")
def overlap_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``overlaps``."""
    values = entry["values"]
    angles = {"smallest_angle": values["angles"][0], "largest_angle": values["angles"][-1]}
    yield "overlaps", {**labels, **{n: values[n] for n in ("k", "overlap", "chance")}, **angles}


@cost("eigenvectors")
def eigenvectors_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Products of three passes."""
    return 3 * PRODUCTS * inputs["k"] * used(inputs, sizes)
