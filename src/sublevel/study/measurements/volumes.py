"""Volumes of a basin by several estimators, over several heights.

Each estimator registers its options for a study, and its cost. N is the number of training examples, also if the loss
is measured on a part of them, because the posterior is that of all examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from sublevel.geometry.curvature import subspace_dimension
from sublevel.geometry.volume import METHODS, Option, sweep
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.measurements.spectra import living
from sublevel.study.options import Chooses, Examples, Subspace
from sublevel.tables import SOLUTION, table

STUDIED = {name: each for name, each in METHODS.items() if each.options is not None}
"""The estimators that a study may use."""


NUMBERS = ("eps", "log_volume", "effective_radius", "se", "reason")
"""Fields of a volume that a cell and a row both hold."""


def _option(option: Option) -> tuple[Any, Any]:
    """An option of an estimator as a key of the block."""
    real = isinstance(option.default, float)
    bound: dict[str, Any] = {"gt" if real else "ge": option.least}
    return Chooses[float if real else int], Field(default=option.default, **bound)


MethodName = str if TYPE_CHECKING else Literal[tuple(STUDIED)]
OPTIONS: dict[str, Any] = {
    key: _option(option) for each in STUDIED.values() for key, option in (each.options or {}).items()
}


class VolumesSpec(create_model("EstimatorOptions", __base__=Examples, **OPTIONS)):
    """Volumes by several estimators, over several heights ``eps``."""

    methods: Chooses[tuple[MethodName, ...]] = ("logdet", "radial", "importance", "llc")  # pyright: ignore[reportInvalidTypeForm]
    eps: tuple[float, ...] = (0.03, 0.1, 0.3)
    spaces: Chooses[tuple[Subspace, ...]] = ("own", "all")
    exclude_dead: Chooses[bool] = False

    def asked(self, method: str) -> dict[str, Any]:
        """The options of an estimator, under its own names."""
        each = STUDIED[method]
        given = {option.argument or key: getattr(self, key) for key, option in (each.options or {}).items()}
        return {**given, **each.fixed}


VOLUMES = table(
    "volumes",
    SOLUTION,
    """
    'space', part, 'buffers', 'method'
    k: dimension of the volume: k steepest for top-k and importance, else that of the space
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
    """One cell for each estimator and space, since most of the computation does not depend on eps."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for method in block.methods:
                inputs = {"point": s.end, "mask": mask, "method": method, "options": block.asked(method)}
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
    whole = {**options, **STUDIED[method].derived(options, n, examples)}
    found = sweep(field, at, method=method, eps=block.eps, mask=space, **whole)
    kinds = bool | int | float | str
    diagnostics = [{k: d for k, d in v.diagnostics.items() if isinstance(d, kinds)} for v in found]
    volumes = [
        {name: getattr(v, name) for name in (*NUMBERS, "n")} | {"diagnostics": kept}
        for v, kept in zip(found, diagnostics, strict=True)
    ]
    return Output({"buffers": field.policy, "method": method, "dimension": n, "volumes": volumes})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``volumes``, or ``estimates`` for the local learning coefficient, which is not a volume."""
    values = entry["values"]
    about = {**labels, "buffers": values["buffers"]}
    for v in values["volumes"]:
        d = v["diagnostics"]
        if "learning_coefficient" in d:
            if v is values["volumes"][0]:
                yield "estimates", {**about, **_coefficient(v)}
            continue
        row = {"method": values["method"], "dimension": values["dimension"], "k": v["n"]}
        row |= {n: v[n] for n in NUMBERS}
        yield "volumes", {**about, **row, **{n: d.get(n) for n in ("nonstationarity", "stationary")}}


def _coefficient(v: Mapping[str, Any]) -> Row:
    """The local learning coefficient as a row of ``estimates``."""
    d = v["diagnostics"]
    doubts = [part for part in v["reason"].split("; ") if not part.startswith("a scaling exponent")]
    about = {"operator": "", "quantity": "learning coefficient", "setting": d["n_beta"], "draws": d["chains"]}
    mixed = {name: d[name] for name in ("se", "r_hat", "ess")}
    return {**about, "value": d["learning_coefficient"], **mixed, "reason": "; ".join(doubts)}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The cost of the estimator, on each example."""
    return STUDIED[inputs["method"]].cost(inputs["options"], len(inputs["eps"])) * used(inputs, sizes)


cell("volume", 4, compute, options=VolumesSpec, rows=rows, cost=cost)
measurement("volumes", VolumesSpec, cells)
