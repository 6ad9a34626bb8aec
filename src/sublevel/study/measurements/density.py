"""The whole spectrum by stochastic Lanczos quadrature: density, trace, log-determinant, negative mass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from sublevel.geometry import curvature
from sublevel.geometry.curvature import log_determinant_of
from sublevel.geometry.estimate import Estimate
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.measurements.spectra import living
from sublevel.study.options import Chooses, Examples, Subspace
from sublevel.tables import SPECTRUM, table


class DensitySpec(Examples):
    """The whole spectrum by stochastic Lanczos quadrature: its density, trace and log-determinant.

    ``damping`` is the delta of log(max(lambda, 0) + delta): a prior precision over N, which decides the answer.
    """

    probes: int = Field(default=8, ge=1)
    steps: int = Field(default=60, ge=2)
    spaces: Chooses[tuple[Subspace, ...]] = ("own", "all")
    operator: Literal["hessian", "ggn"] = "hessian"
    damping: tuple[float, ...] = (1e-1, 1e-3)
    exclude_dead: Chooses[bool] = False


DENSITIES = table("densities", SPECTRUM, "probe, node, weight")
"""The whole spectrum by stochastic Lanczos quadrature: nodes and weights of every probe (weights sum to 1)."""

ESTIMATES = table("estimates", SPECTRUM, "'quantity', setting, value, se, draws, r_hat, ess, 'reason'")
"""Quantities of a spectrum. quantity = trace | negative mass (share of the eigenvalues below 0) | log-determinant
(of max(A, 0) + setting for the operator A, in nats) | learning coefficient (at N beta = setting with N the number
of training examples, from chains with their split R-hat and effective sample size).
"""


def cells(scene: Scene, block: DensitySpec) -> None:
    """One quadrature in every space, which gives all quantities."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            inputs = {"point": s.end, "mask": mask} | ({"alive": s.mask} if block.exclude_dead else {})
            scene.add("density", s, space, options=block, inputs=inputs, space=space, operator=block.operator)


def compute(
    c: Context, options: DensitySpec, *, point: str, mask: str | None, alive: str | None = None, part: int = 0
) -> Output:
    """Nodes and weights of every probe, and their integrals; without the filters that are dead in ``alive``."""
    at, (space, _) = c.point(point), living(c, c.mask(mask), c.mask(alive))
    field, how = c.field(options, part), options.model_dump(include={"probes", "steps", "operator"})
    found = curvature.spectral_density(field, at, mask=space, **how)
    quantities = [
        ("trace", None, found.integrate(lambda x: x)),
        ("negative mass", None, found.negative_mass),
        *(("log-determinant", delta, log_determinant_of(found, delta)) for delta in options.damping),
    ]
    spectrum = {"nodes": [n.tolist() for n in found.nodes], "weights": [w.tolist() for w in found.weights]}
    estimates = [estimate_row(q, setting, e) for q, setting, e in quantities]
    return Output({"buffers": field.policy, **spectrum, "estimates": estimates})


def estimate_row(quantity: str, setting: float | None, e: Estimate) -> Row:
    """A row of ``estimates``."""
    about = {"quantity": quantity, "setting": setting}
    return about | {name: getattr(e, name) for name in ("value", "se", "draws", "reason")}


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``densities`` and ``estimates``."""
    values = entry["values"]
    spectrum = {**labels, "buffers": values["buffers"]}
    for probe, (nodes, weights) in enumerate(zip(values["nodes"], values["weights"], strict=True)):
        for node, weight in zip(nodes, weights, strict=True):
            yield "densities", {**spectrum, "probe": probe, "node": node, "weight": weight}
    for row in values["estimates"]:
        yield "estimates", {**spectrum, **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A product for each step of each probe."""
    return 3 * inputs["probes"] * inputs["steps"] * used(inputs, sizes)


cell("density", 3, compute, options=DensitySpec, rows=rows, cost=cost, products=True)
measurement("density", DensitySpec, cells)
