"""Volumes of a basin by several estimators, over several heights.

What a network allows decides how they are asked. A third of its Hessian's eigenvalues are negative: the log-determinant
is that of the Gauss-Newton matrix, the Laplace evidence's, from the matrix itself where that takes no more products.
Rays in thousands of dimensions have no mean that could be estimated, whatever the preconditioner: importance sampling
goes in the span of the k steepest eigenvectors, where it is the loss's own counterpart of the top-k ellipsoid. N is the
number of training examples, also where the loss is measured on a part of them: the posterior is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any

from sublevel.geometry.curvature import subspace_dimension
from sublevel.geometry.local_law import STEPS
from sublevel.geometry.volume import Volume, sweep
from sublevel.study.blocks import VolumesSpec
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import KEEP, Scene, examples, measurement, used
from sublevel.study.measurements.spectra import living

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


@measurement("volumes")
def volumes(scene: Scene, block: VolumesSpec) -> None:
    """One cell for each estimator and space: what does not depend on eps is done once."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for method in block.methods:
                for part, which in examples(block):
                    inputs = {"point": s.end, "mask": mask, "method": method, "eps": list(block.eps)}
                    inputs |= {"options": OPTIONS[method](block), **which}
                    inputs |= {"alive": s.mask} if block.exclude_dead else {}
                    names = [method, space, *([f"part-{part}"] if part else [])]
                    scene.add("volume", s, *names, inputs=inputs, space=space, part=part)


@kernel("volume", 4)
def volume_cell(
    c: Context,
    *,
    point: str,
    mask: str | None,
    method: str,
    eps: Sequence[float],
    options: Mapping[str, Any],
    size: int | None,
    policy: str,
    alive: str | None = None,
    part: int = 0,
) -> Output:
    """A sweep of one estimator over eps; without the filters that are dead in ``alive``."""
    field = c.problem.field("train", size=size, policy=policy, part=part, keep_bytes=KEEP)
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
    found = sweep(field, at, method=method, eps=eps, mask=space, **{**options, **more})
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


@rows("volume")
def volume_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
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


@cost("volume")
def volume_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
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
