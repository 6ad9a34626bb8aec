"""Volumes of a basin by several estimators, over several heights.

What a network allows decides how they are asked. A third of its Hessian's eigenvalues are negative: the log-determinant
is that of the Gauss-Newton matrix, the Laplace evidence's, from the matrix itself where that takes no more products.
Rays in thousands of dimensions have no mean that could be estimated, whatever the preconditioner: importance sampling
goes in the span of the k steepest eigenvectors, where it is the loss's own counterpart of the top-k ellipsoid. N is the
number of training examples, also where the loss is measured on a part of them: the posterior is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Any, Literal

from pydantic import Field

from sublevel.geometry.curvature import subspace_dimension
from sublevel.geometry.volume import Volume, sweep
from sublevel.geometry.volume.laplace import STEPS
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.measurements.spectra import living
from sublevel.study.options import Chooses, Examples, Subspace
from sublevel.tables import SOLUTION, table

RESCALED = 20
"""The steepest directions along which chains take shorter steps than along the others."""

OPTIONS: dict[str, Callable[[VolumesSpec], dict[str, Any]]] = {
    "logdet": lambda b: {"damping": b.damping, "probes": b.probes, "steps": b.steps, "operator": "ggn"},
    "radial": lambda b: {"radius": b.radius, "samples": b.rays},
    "importance": lambda b: {"radius": b.radius, "samples": b.rays, "k": b.k, "span": True},
    "llc": lambda b: {"chains": b.chains, "draws": b.draws, "burn_in": b.burn_in, "gamma": b.gamma},
    "thermodynamic": lambda b: {"chains": b.chains, "draws": b.draws, "burn_in": b.burn_in, "gamma": b.gamma},
}
"""What each estimator is asked for, from the options of the block."""


class VolumesSpec(Examples):
    """Volumes by several estimators, over several heights ``eps``; what their draws are is said in the release."""

    methods: Chooses[tuple[Literal["logdet", "radial", "importance", "llc", "thermodynamic"], ...]] = (
        "logdet",
        "radial",
        "importance",
        "llc",
    )
    eps: tuple[float, ...] = (0.03, 0.1, 0.3)
    spaces: Chooses[tuple[Subspace, ...]] = ("own", "all")
    rays: Chooses[int] = Field(default=64, ge=2)
    radius: Chooses[float] = Field(default=100.0, gt=0)
    damping: Chooses[float] = Field(default=1e-3, gt=0)
    k: Chooses[int] = Field(default=10, ge=1)
    probes: Chooses[int] = Field(default=8, ge=1)
    steps: Chooses[int] = Field(default=60, ge=2)
    chains: Chooses[int] = Field(default=4, ge=2)
    draws: Chooses[int] = Field(default=200, ge=10)
    burn_in: Chooses[int] = Field(default=200, ge=0)
    gamma: Chooses[float] = Field(default=100.0, gt=0)
    exclude_dead: Chooses[bool] = False


VOLUMES = table(
    "volumes",
    SOLUTION,
    """
    'space', part, 'buffers', 'method'
    k: dimension of what has the volume: k steepest for top-k and importance, else that of the space
    dimension: of the space: own, all or next, without the dead filters left out
    eps, log_volume
    effective_radius: (V / omega_k)^(1/k); thermodynamic: exp(log Z / k) / sqrt(gamma), a width
    se
    nonstationarity: 1/2 g^T A^-1 g: A = H on the span (top-k), GGN + damping (logdet); empty for others
    stationary: nonstationarity <= eps
    'reason': why log_volume is empty or not to be trusted
    """,
)
"""Volume of the basin, one row per method. top-k, logdet: the ellipsoid of the quadratic at theta, at the height eps +
nonstationarity over its own minimum; no sublevel set of the loss. logdet: of max(GGN, 0) + damping. radial,
importance: by the loss along rays. thermodynamic: the log of the partition function, no volume at eps.
"""


def cells(scene: Scene, block: VolumesSpec) -> None:
    """One cell for each estimator and space: what does not depend on eps is done once."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for method in block.methods:
                inputs = {"point": s.end, "mask": mask, "method": method, "options": OPTIONS[method](block)}
                inputs |= {"alive": s.mask} if block.exclude_dead else {}
                scene.add("volume", s, method, space, options=block, inputs=inputs, space=space)


def compute(
    c: Context,
    block: VolumesSpec,
    *,
    point: str,
    mask: str | None,
    method: str,
    options: Mapping[str, Any],
    alive: str | None = None,
    part: int = 0,
) -> Output:
    """A sweep of one estimator over eps; without the filters that are dead in ``alive``."""
    field = c.field(block, part)
    at, (space, _) = c.point(point), living(c, c.mask(mask), c.mask(alive))
    n, examples = subspace_dimension(at, space), len(c.problem.part("train"))
    more: dict[str, Any] = {}
    if method == "logdet":
        more["exact"] = options["probes"] * options["steps"]
    if method == "importance":
        more["k"] = min(options["k"], n)
    if method == "llc":
        more = {"n_beta": examples / log(examples), "rescale": RESCALED}
    if method == "thermodynamic":
        more = {"examples": examples, "rescale": RESCALED}
    found = sweep(field, at, method=method, eps=block.eps, mask=space, **{**options, **more})
    volumes = [_plain(v) for v in found]
    return Output({"buffers": field.policy, "method": method, "dimension": n, "volumes": volumes})


def _plain(v: Volume) -> dict[str, Any]:
    """A volume as JSON, with those of its diagnostics that are numbers or words."""
    kept = {k: d for k, d in v.diagnostics.items() if isinstance(d, bool | int | float | str)}
    return {
        "eps": v.eps,
        "n": v.n,
        "log_volume": v.log_volume,
        "effective_radius": v.effective_radius,
        "se": v.se,
        "reason": v.reason,
        "diagnostics": kept,
    }


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``volumes``, or ``estimates`` for what is no volume."""
    values = entry["values"]
    about = {**labels, "buffers": values["buffers"]}
    for v in values["volumes"]:
        d = v["diagnostics"]
        if values["method"] == "llc":
            if v is values["volumes"][0]:
                yield "estimates", {**about, **_coefficient(v)}
            continue
        row = {"method": values["method"], "dimension": values["dimension"], "k": v["n"]}
        row |= {n: v[n] for n in ("eps", "log_volume", "effective_radius", "se", "reason")}
        yield "volumes", {**about, **row, **{n: d.get(n) for n in ("nonstationarity", "stationary")}}


def _coefficient(v: Mapping[str, Any]) -> Row:
    """The local learning coefficient as a row of ``estimates``."""
    d = v["diagnostics"]
    doubts = [part for part in v["reason"].split("; ") if not part.startswith("a scaling exponent")]
    return {
        "operator": "",
        "quantity": "learning coefficient",
        "setting": d["n_beta"],
        "value": d["learning_coefficient"],
        "se": d["se"],
        "draws": d["chains"],
        "r_hat": d["r_hat"],
        "ess": d["ess"],
        "reason": "; ".join(doubts),
    }


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Products, rays or steps of chains."""
    o, n = inputs["options"], used(inputs, sizes)
    if inputs["method"] == "logdet":
        return 3 * (o["probes"] + 1) * o["steps"] * n
    if "samples" in o:
        per_ray = 6 + 4 * log(max(len(inputs["eps"]), 2))
        return len(inputs["eps"]) * o["samples"] * per_ray * n / 3 + 3 * 60 * n
    ladder = 8 if inputs["method"] == "thermodynamic" else 1
    steps = ladder * o["chains"] * (o["draws"] + o["burn_in"])
    products = 100 + STEPS * (o["chains"] // 2)
    return steps * n * 4 / 3 + 3 * products * n


cell("volume", 4, compute, options=VolumesSpec, rows=rows, cost=cost)
measurement("volumes", VolumesSpec, cells)
