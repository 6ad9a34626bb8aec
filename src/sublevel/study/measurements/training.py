"""Spectra along training: the steepest directions at the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel.engine.graph import Ref
from sublevel.geometry import curvature
from sublevel.study.blocks import TrainingSpec
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import KEEP, Scene, examples, measurement, used

PRODUCTS = 8


@measurement("training")
def training(scene: Scene, block: TrainingSpec) -> None:
    """At every step that the run kept, and at its end."""
    for s in scene.admitted(block):
        kept = {f"step-{n}": n for n in s.train.inputs.get("checkpoints", ())}
        ends = {"end": scene.builders[s.seed].steps} if "recipe" in s.train.inputs else {"end": 0}
        for output, step in {**kept, **ends}.items():
            for part, which in examples(block):
                inputs = {"point": Ref(s.train.id, output), "mask": s.mask, "k": block.k, **which}
                names = [f"step-{step}", *([f"part-{part}"] if part else [])]
                scene.add("along-training", s, *names, inputs=inputs, step=step, part=part)


@kernel("along-training", 4)
def training_cell(
    c: Context, *, point: str, mask: str | None, k: int, size: int | None, policy: str, part: int = 0
) -> Output:
    """Loss, gradient norm and the largest eigenvalues in the run's own subspace."""
    at, space = c.point(point, mask), c.mask(mask)
    field = c.problem.field("train", size=size, policy=policy, part=part, keep_bytes=KEEP)
    k = min(k, curvature.subspace_dimension(at, space))
    found = curvature.top_eigenvalues(field, at, k=k, mask=space)
    seen, gradient = field.evaluation_and_grad(at)
    return Output(
        {
            "buffers": field.policy,
            "loss": seen.loss,
            "error": seen.error,
            "gradient_norm": float((gradient if space is None else gradient[space]).double().norm()),
            "values": found.values.tolist(),
            "smallest": float(found.smallest[0]),
            "converged": found.converged,
        }
    )


@rows("along-training")
def training_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``training``: one row for each eigenvalue."""
    values = entry["values"]
    same = {n: values[n] for n in ("buffers", "loss", "error", "gradient_norm", "smallest", "converged")}
    for index, value in enumerate(values["values"], start=1):
        yield "training", {**labels, **same, "index": index, "eigenvalue": value}


@cost("along-training")
def training_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Products of three passes."""
    return 3 * PRODUCTS * (inputs["k"] + 1) * used(inputs, sizes)
