"""Both legs of a level: what pruning does to a solution, and what training from the rewound start does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sublevel.geometry.distance import displacement
from sublevel.study.blocks import LegsSpec
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import End, Scene, ends, measurement, used


@measurement("legs")
def legs(scene: Scene, block: LegsSpec) -> None:
    """``prune`` where a mask was made from a point, and ``retrain``."""
    for s in scene.admitted(block, dense=False):
        found: dict[str, tuple[End, End]] = {"retrain": ((s.start, s.mask), (s.end, None))}
        if s.pruned is not None:
            found["prune"] = ((s.pruned, None), (s.pruned, s.mask))
        for leg, (a, b) in found.items():
            for policy in scene.policies(block.buffers):
                inputs = {**ends(a, b), "size": block.size, "policy": policy}
                scene.add("leg", s, leg, policy, inputs=inputs, leg=leg)


@kernel("leg", 2)
def leg_cell(
    c: Context, *, a: str, a_mask: str | None, b: str, b_mask: str | None, size: int | None, policy: str
) -> Output:
    """Loss and error at both ends of a leg, on the training and the test set, and how far apart they are."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    found = []
    for split in ("train", "test"):
        field = c.problem.field(split, size=size, policy=policy)
        one, two = field.evaluations([start, end])
        found.append(
            {
                "split": split,
                "buffers": field.policy,
                "loss_start": one.loss,
                "loss_end": two.loss,
                "error_start": one.error,
                "error_end": two.error,
                **asdict(displacement(start.theta, end.theta)),
            }
        )
    return Output({"rows": found})


@rows("leg")
def leg_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``legs``."""
    for row in entry["values"]["rows"]:
        yield "legs", {**labels, **row}


@cost("leg")
def leg_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Two evaluations of both splits."""
    return (used(inputs, sizes) + used(inputs, sizes, "test")) * 2 / 3
