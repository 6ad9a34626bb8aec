"""Spectra along training: the steepest directions at the checkpoints of a run."""

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

PRODUCTS = 8


class TrainingSpec(Examples):
    """Spectra along training, at the recipe's checkpoints and the rewind step."""

    k: int = Field(default=3, ge=1)


TRAINING = table(
    "training",
    SOLUTION,
    "step, part, 'buffers', index, eigenvalue, smallest, converged, loss, error, gradient_norm",
)
"""Spectra along training, in the run's own subspace."""


def cells(scene: Scene, block: TrainingSpec) -> None:
    """At each stored step of the run, and at its end."""
    for s in scene.admitted(block):
        kept = {f"step-{n}": n for n in s.train.inputs.get("checkpoints", ())}
        ends = {"end": scene.builders[s.seed].steps} if "recipe" in s.train.inputs else {"end": 0}
        for output, step in {**kept, **ends}.items():
            inputs = {"point": Ref(s.train.id, output), "mask": s.mask}
            scene.add("along-training", s, f"step-{step}", options=block, inputs=inputs, step=step)


def compute(c: Context, options: TrainingSpec, *, point: str, mask: str | None, part: int = 0) -> Output:
    """Loss, gradient norm and the largest eigenvalues in the run's own subspace."""
    at, space = c.point(point, mask), c.mask(mask)
    field = c.field(options, part)
    k = min(options.k, curvature.subspace_dimension(at, space))
    found = curvature.top_eigenvalues(field, at, k=k, mask=space)
    seen, gradient = field.evaluation_and_grad(at)
    norm = float((gradient if space is None else gradient[space]).double().norm())
    about = {"buffers": field.policy, "loss": seen.loss, "error": seen.error, "gradient_norm": norm}
    spectrum = {"values": found.values.tolist(), "smallest": float(found.smallest[0]), "converged": found.converged}
    return Output(about | spectrum)


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``training``: one row for each eigenvalue."""
    values = entry["values"]
    same = {n: values[n] for n in ("buffers", "loss", "error", "gradient_norm", "smallest", "converged")}
    for index, value in enumerate(values["values"], start=1):
        yield "training", {**labels, **same, "index": index, "eigenvalue": value}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Products of three passes."""
    return 3 * PRODUCTS * (inputs["k"] + 1) * used(inputs, sizes)


cell("along-training", 4, compute, options=TrainingSpec, rows=rows, cost=cost, products=True)
measurement("training", TrainingSpec, cells)
