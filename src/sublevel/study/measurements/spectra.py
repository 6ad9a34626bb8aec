"""The extreme eigenvalues at a solution, in three spaces, and the volume of their ellipsoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from sublevel._types import Bool, Tensor
from sublevel.engine.graph import Ref
from sublevel.geometry import curvature
from sublevel.geometry.curvature.restarted import dot
from sublevel.geometry.volume import ellipsoid
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.options import Chooses, Examples, Operator, Subspace
from sublevel.tables import SPECTRUM, table

PRODUCTS = 60
"""Estimated Hessian products of a spectrum of ten eigenvalues."""


class SpectraSpec(Examples):
    """The ``k`` largest eigenvalues on ``size`` training examples, and the volume of their ellipsoid.

    ``operators``: the Hessian, the Gauss-Newton matrix (``ggn``), the Hessian between filter-normalised directions
    (``adaptive``). ``layers`` adds the largest eigenvalues within each prunable layer, ``blocks`` those within blocks
    of layers: each is a name of parameters with wildcards, such as ``transformer.h.0.*``, and is measured with the
    Hessian or ``ggn``. ``rows`` is the largest number of vectors in memory (``--memory`` sets it), where a run that
    needs more restarts, and ``batch`` the number of examples in a batch.
    """

    k: int = Field(default=10, ge=1)
    spaces: Chooses[tuple[Subspace, ...]] = ("own", "all", "next")
    operators: Chooses[tuple[Operator, ...]] = ("hessian",)
    layers: Chooses[bool] = False
    blocks: Chooses[tuple[str, ...]] = ()
    rows: Chooses[int | None] = Field(default=None, ge=1)
    batch: Chooses[int | None] = Field(default=None, ge=1)
    tolerance: float | None = Field(default=None, gt=0)
    steps: int = Field(default=200, ge=2)
    restarts: int = Field(default=3, ge=0)
    negative: int = Field(default=3, ge=0)
    exclude_dead: Chooses[bool] = False
    eps: Chooses[float] = Field(default=0.1, gt=0)


SPECTRA = table("spectra", SPECTRUM, "'end', index, eigenvalue, residual, converged")
"""Extreme eigenvalues. operator = hessian | ggn | adaptive (the Hessian between filter-normalised directions); space =
own | all | next | layer NAME; part: which disjoint subset of the examples; end = largest | smallest; index from 1.
converged: the residual is small, and no copy of a larger eigenvalue may be missing.
"""

CURVATURE = table(
    "curvature",
    SPECTRUM,
    """
    dimension, examples
    excluded: coordinates of dead filters left out
    largest, smallest
    negative_count: Ritz values below 0 beyond rounding: a lower bound on the index of the Hessian
    negative_mass: share of a random vector's squared norm on them
    gradient_norm, products, converged, 'stop'
    """,
)
"""One row per spectrum: dimension, effort, and results of Lanczos."""


def cells(scene: Scene, block: SpectraSpec) -> None:
    """Each operator in each space, and optionally in each layer of R^D."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for operator in block.operators:
                _add(scene, block, s, space, mask, operator)
        for layer in scene.space.prunable_layers if block.layers else ():
            _add(scene, block, s, f"layer {layer.name}", None, "hessian", layer=layer.name)
        for pattern in block.blocks:
            scene.space.block(pattern)  # refuses a name without a match
            for operator in block.operators:
                if operator != "adaptive":
                    _add(scene, block, s, f"block {pattern}", None, operator, block_of=pattern)


def _add(
    scene: Scene, block: SpectraSpec, s: Solution, space: str, mask: Ref | None, operator: str, **more: Any
) -> None:
    inputs = {"point": s.end, "mask": mask, "alive": s.mask if block.exclude_dead else None, **more}
    inputs |= {"operator": operator} if operator != "hessian" else {}
    inputs |= {"batch": block.batch} if block.batch is not None else {}
    inputs |= {"rows": block.rows} if block.rows is not None and block.rows < block.steps else {}
    names = [space, *([operator] if operator != "hessian" else [])]
    scene.add("spectrum", s, *names, options=block, inputs=inputs, space=space, operator=operator)


def compute(
    c: Context,
    options: SpectraSpec,
    *,
    point: str,
    mask: str | None,
    alive: str | None,
    operator: str = "hessian",
    layer: str | None = None,
    block_of: str | None = None,
    rows: int | None = None,
    batch: int | None = None,
    part: int = 0,
) -> Output:
    """The extreme eigenvalues of the training loss at a point, in the subspace of a mask, a layer or a block."""
    at = c.point(point)
    space, dead = living(c, c.mask(mask), c.mask(alive))
    if layer is not None:
        inside = c.problem.space.indicator(layer).to(c.problem.device)
        space = inside if space is None else space & inside
    how = {} if rows is None and batch is None else {"keep_bytes": 0, "batch_size": batch}
    field = c.field(options, part, **how)
    scale = curvature.filter_norms(c.problem.space, at.theta) if operator == "adaptive" else None
    if block_of is not None:
        inside = c.problem.space.block(block_of).to(c.problem.device)
        field, at = field.restricted(block_of, at)
        space, dead = (None if mask is None else mask[inside] for mask in (space, dead))
    chosen = options.model_dump(include={"tolerance", "steps", "restarts", "negative"})
    chosen |= {"k": min(options.k, len(at.theta) if space is None else int(space.sum())), "scale": scale}
    chosen |= {"operator": "hessian" if operator == "adaptive" else operator}
    found = curvature.top_eigenvalues(field, at, mask=space, rows=rows, **chosen)
    gradient = field.grad(at)
    if rows is None:
        slopes = found.vectors.double() @ gradient.double()
    else:  # without copies of the vectors in float64
        slopes = torch.tensor([dot(v, gradient) for v in found.vectors], dtype=torch.float64)
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
        {"end": end, "index": i + 1, "eigenvalue": value, "residual": residual, "converged": ok}
        for end, (values, residuals, converged) in sides.items()
        for i, (value, residual, ok) in enumerate(zip(values.tolist(), residuals.tolist(), converged, strict=True))
    ]
    return Output({"row": row, "pairs": pairs, "slopes": slopes.tolist()})


def living(
    c: Context, space: Bool[Tensor, "D"] | None, own: Bool[Tensor, "D"] | None
) -> tuple[Bool[Tensor, "D"] | None, Bool[Tensor, "D"] | None]:
    """The mask of the subspace (None: R^D), and the excluded coordinates of filters that are dead under ``own``."""
    dead = None if own is None else c.problem.space.dead(own)
    if dead is not None and bool(dead.any()):
        space = ~dead if space is None else space & ~dead
    return space, dead


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``curvature``, ``spectra`` and, for the Hessian of a whole space, the top-k ``volumes``."""
    values = entry["values"]
    row, buffers = values["row"], values["row"]["buffers"]
    yield "curvature", {**labels, **row}
    for pair in values["pairs"]:
        yield "spectra", {**labels, "buffers": buffers, **pair}
    if labels["operator"] != "hessian" or labels["space"].startswith(("layer ", "block ")):
        return
    largest = [pair["eigenvalue"] for pair in values["pairs"] if pair["end"] == "largest"]
    error = max(pair["residual"] for pair in values["pairs"] if pair["end"] == "largest")
    eps = (study["geometry"]["spectra"] or {}).get("eps", 0.1)
    seen = {"negative": row["negative_count"], "lowest": row["smallest"]}
    v = ellipsoid(largest, values["slopes"], eps=eps, converged=row["converged"], error=error, **seen)
    volume = {n: getattr(v, n) for n in ("eps", "log_volume", "effective_radius", "se", "reason")}
    volume |= {n: v.diagnostics.get(n) for n in ("nonstationarity", "stationary")}
    about = {"buffers": buffers, "method": "top-k", "k": v.n, "dimension": row["dimension"]}
    yield "volumes", {**labels, **about, **volume}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A product is about three passes."""
    return 3 * PRODUCTS * inputs["k"] / 10 * used(inputs, sizes)


cell("spectrum", 4, compute, options=SpectraSpec, rows=rows, cost=cost, products=True)
measurement("spectra", SpectraSpec, cells)
