"""The ends of the spectrum at a solution, in three spaces, and the volume of their ellipsoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel._types import Bool, Tensor
from sublevel.engine.graph import Ref
from sublevel.geometry import curvature
from sublevel.geometry.volume import ellipsoid
from sublevel.space import Point
from sublevel.study.blocks import SpectraSpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import KEEP, Scene, examples, measurement, used

PRODUCTS = 60
"""Hessian products that a spectrum of ten takes, as a guess."""


@measurement("spectra")
def spectra(scene: Scene, block: SpectraSpec) -> None:
    """Every operator in every space, and in every layer of R^D if asked for."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for operator in block.operators:
                _add(scene, block, s, space, mask, operator)
        for layer in scene.space.prunable_layers if block.layers else ():
            _add(scene, block, s, f"layer {layer.name}", None, "hessian", layer=layer.name)


def _add(
    scene: Scene, block: SpectraSpec, s: Solution, space: str, mask: Ref | None, operator: str, **more: Any
) -> None:
    for part, which in examples(block):
        inputs = {
            "point": s.end,
            "mask": mask,
            "alive": s.mask if block.exclude_dead else None,
            "k": block.k,
            **which,
            "tolerance": block.tolerance,
            "steps": block.steps,
            "restarts": block.restarts,
            "negative": block.negative,
            **more,
        }
        inputs |= {"operator": operator} if operator != "hessian" else {}
        names = [space, *([operator] if operator != "hessian" else []), *([f"part-{part}"] if part else [])]
        scene.add("spectrum", s, *names, inputs=inputs, space=space, operator=operator, part=part)


@kernel("spectrum", 4)
def spectrum_cell(
    c: Context,
    *,
    point: str,
    mask: str | None,
    alive: str | None,
    k: int,
    size: int | None,
    policy: str,
    tolerance: float | None,
    steps: int,
    restarts: int,
    negative: int,
    operator: str = "hessian",
    layer: str | None = None,
    part: int = 0,
) -> Output:
    """The extreme eigenvalues of the training loss at a point, in the subspace of a mask."""
    at = c.point(point)
    space, dead = living(c, c.mask(mask), c.mask(alive))
    space = space if layer is None else _inside(c, space, layer)
    field = c.problem.field("train", size=size, policy=policy, part=part, keep_bytes=KEEP)
    found = curvature.top_eigenvalues(
        field,
        at,
        k=min(k, len(at.theta) if space is None else int(space.sum())),
        mask=space,
        tolerance=tolerance,
        steps=steps,
        restarts=restarts,
        negative=negative,
        **_operator(c, at, operator),
    )
    gradient = field.grad(at)
    slopes = found.vectors.double() @ gradient.double()
    row = {
        "buffers": field.policy,
        "dimension": found.dimension,
        "examples": len(field.x),
        "excluded": 0 if dead is None else int(dead.sum()),
        "largest": float(found.values[0]),
        "smallest": float(found.smallest[0]),
        "negative_count": found.negative_count,
        "negative_mass": found.negative_mass,
        "gradient_norm": float((gradient if space is None else gradient[space]).double().norm()),
        "products": found.products,
        "converged": found.converged,
        "stop": found.stop,
    }
    sides = {
        "largest": (found.values, found.residuals, found.pair_converged),
        "smallest": (found.smallest, found.smallest_residuals, (found.smallest_residuals <= found.bound).tolist()),
    }
    pairs = [
        {
            "end": end,
            "index": i + 1,
            "eigenvalue": value,
            "residual": residual,
            "converged": ok,
        }
        for end, (values, residuals, converged) in sides.items()
        for i, (value, residual, ok) in enumerate(zip(values.tolist(), residuals.tolist(), converged, strict=True))
    ]
    return Output({"row": row, "pairs": pairs, "slopes": slopes.tolist()})


def _operator(c: Context, at: Point, name: str) -> dict[str, Any]:
    if name == "adaptive":
        return {"scale": curvature.filter_norms(c.problem.space, at.theta)}
    return {} if name == "hessian" else {"operator": name}


def living(
    c: Context, space: Bool[Tensor, "D"] | None, own: Bool[Tensor, "D"] | None
) -> tuple[Bool[Tensor, "D"] | None, Bool[Tensor, "D"] | None]:
    """The mask to measure in (None: R^D), and the coordinates of filters dead under ``own`` that it leaves out."""
    dead = None if own is None else c.problem.space.dead(own)
    if dead is not None and bool(dead.any()):
        space = ~dead if space is None else space & ~dead
    return space, dead


def _inside(c: Context, space: Bool[Tensor, "D"] | None, layer: str) -> Bool[Tensor, "D"]:
    inside = c.problem.space.indicator(layer).to(c.problem.device)
    return inside if space is None else space & inside


@rows("spectrum")
def spectrum_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``curvature``, ``spectra`` and, for the Hessian of a whole space, the top-k ``volumes``."""
    values = entry["values"]
    row, buffers = values["row"], values["row"]["buffers"]
    yield "curvature", {**labels, **row}
    for pair in values["pairs"]:
        yield "spectra", {**labels, "buffers": buffers, **pair}
    if labels["operator"] != "hessian" or labels["space"].startswith("layer "):
        return
    largest = [pair["eigenvalue"] for pair in values["pairs"] if pair["end"] == "largest"]
    error = max(pair["residual"] for pair in values["pairs"] if pair["end"] == "largest")
    eps = (study["geometry"]["spectra"] or {}).get("eps", 0.1)
    seen = {"negative": row["negative_count"], "lowest": row["smallest"]}
    v = ellipsoid(largest, values["slopes"], eps=eps, converged=row["converged"], error=error, **seen)
    yield (
        "volumes",
        {
            **labels,
            "buffers": buffers,
            "method": "top-k",
            "k": v.n,
            "dimension": row["dimension"],
            "eps": v.eps,
            "log_volume": v.log_volume,
            "effective_radius": v.effective_radius,
            "se": v.se,
            "nonstationarity": v.diagnostics.get("nonstationarity"),
            "stationary": v.diagnostics.get("stationary"),
            "reason": v.reason,
        },
    )


@cost("spectrum")
def spectrum_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A product is about three passes."""
    return 3 * PRODUCTS * inputs["k"] / 10 * used(inputs, sizes)
