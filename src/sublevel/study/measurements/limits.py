"""The limit of one pruning step, predicted from the spectrum and the magnitudes of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from sublevel.geometry.curvature import fewest_weights, spectral_density
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.options import Examples
from sublevel.tables import SOLUTION, table


class LimitsSpec(Examples):
    """The fewest weights that one step of magnitude pruning may leave, for rises ``eps`` of the train loss in nats.

    The spectrum is that of the solution's own subspace, by stochastic Lanczos quadrature.
    """

    eps: tuple[float, ...] = (0.01, 0.1)
    probes: int = Field(default=8, ge=2)
    steps: int = Field(default=80, ge=2)
    operator: Literal["hessian", "ggn"] = "ggn"


LIMITS = table(
    "limits",
    SOLUTION,
    """
    part, 'buffers', 'operator', eps
    dimension: of the solution's own subspace
    prunable: weights in it that may be pruned
    fraction: predicted largest fraction of them that one step may prune
    fraction_low, fraction_high: the same at two standard errors of the effective dimension
    distance: norm of the weights that it prunes
    effective_dimension: sum of lambda / (lambda + 2 eps / distance^2) there
    'reason'
    """,
)
"""The predicted largest fraction that one step of magnitude pruning may remove, so that the subspace of what is left
still reaches a train loss eps above the solution's (Larsen et al. 2107.05802; Paul et al. 2210.03044, section 3.3).
"""


def cells(scene: Scene, block: LimitsSpec) -> None:
    """One cell for each solution."""
    for s in scene.admitted(block):
        scene.add("limits", s, options=block, inputs={"point": s.end, "mask": s.mask}, operator=block.operator)


def compute(c: Context, options: LimitsSpec, *, point: str, mask: str | None, part: int = 0) -> Output:
    """The spectrum of the own subspace, and what it predicts at every height."""
    at, own = c.point(point), c.mask(mask)
    own = c.problem.space.full_mask().to(at.theta.device) if own is None else own
    field = c.field(options, part)
    how = {"probes": options.probes, "steps": options.steps, "operator": options.operator}
    spectrum = spectral_density(field, at, mask=own, **how)
    prunable = c.problem.space.prunable.to(own.device)[own]
    found = [{"eps": eps, **asdict(fewest_weights(spectrum, at.theta[own], prunable, eps))} for eps in options.eps]
    about = {"dimension": spectrum.dimension, "prunable": int(prunable.sum())}
    return Output({"buffers": field.policy, **about, "rows": found})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``limits``."""
    values = entry["values"]
    n, prunable = values["dimension"], values["prunable"]
    for row in values["rows"]:
        gone = {name: (n - row[key]) / prunable for name, key in FRACTIONS.items()}
        about = {"dimension": n, "prunable": prunable, "effective_dimension": row["dimension"]}
        about |= {name: row[name] for name in ("eps", "distance", "reason")}
        yield "limits", {**labels, "buffers": values["buffers"], **about, **gone}


FRACTIONS = {"fraction": "weights", "fraction_low": "high", "fraction_high": "low"}
"""Fewer weights left are a larger fraction pruned."""


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A product for every step of every probe."""
    return 3 * inputs["probes"] * inputs["steps"] * used(inputs, sizes)


cell("limits", 1, compute, options=LimitsSpec, rows=rows, cost=cost, products=True)
measurement("limits", LimitsSpec, cells)
