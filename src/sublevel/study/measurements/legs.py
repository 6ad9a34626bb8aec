"""The two legs of a level: pruning a solution, and retraining from the rewound start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from sublevel.geometry.distance import displacement
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import End, Scene, ends, measurement
from sublevel.study.options import Chooses, Where
from sublevel.tables import SOLUTION, table


class LegsSpec(Where):
    """The two legs of a level, on ``size`` training examples and as many of the test set (default: all)."""

    size: int | None = Field(default=None, ge=1)
    buffers: Chooses[tuple[Literal["stored", "recomputed"], ...]] = ("stored", "recomputed")


LEGS = table(
    "legs",
    SOLUTION,
    """
    'leg', 'split', 'buffers', loss_start, loss_end, error_start, error_end, distance, cosine
    sign_agreement: over the coordinates that are non-zero at both ends
    norm_start, norm_end
    """,
)
"""The two legs of a level. leg = prune: theta -> m_L * theta at the point from which m_L was made (the level before;
the dense end for one-shot; absent if nothing was pruned); leg = retrain: start -> end.
"""


def cells(scene: Scene, block: LegsSpec) -> None:
    """``retrain``, and ``prune`` if the mask was made from a point."""
    for s in scene.admitted(block, dense=False):
        found: dict[str, tuple[End, End]] = {"retrain": ((s.start, s.mask), (s.end, None))}
        if s.pruned is not None:
            found["prune"] = ((s.pruned, None), (s.pruned, s.mask))
        for leg, (a, b) in found.items():
            for policy in scene.policies(block.buffers):
                scene.add("leg", s, leg, policy, options=block, inputs={**ends(a, b), "policy": policy}, leg=leg)


def compute(
    c: Context, options: LegsSpec, *, a: str, a_mask: str | None, b: str, b_mask: str | None, policy: str
) -> Output:
    """Loss and error at both ends of a leg, on the training and the test set, and their displacement."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    found = []
    for split in ("train", "test"):
        field = c.problem.field(split, size=options.size, policy=policy)
        one, two = field.evaluations([start, end])
        row = {"split": split, "buffers": field.policy, "loss_start": one.loss, "loss_end": two.loss}
        row |= {"error_start": one.error, "error_end": two.error}
        found.append(row | asdict(displacement(start.theta, end.theta)))
    return Output({"rows": found})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``legs``."""
    for row in entry["values"]["rows"]:
        yield "legs", {**labels, **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Two evaluations of both splits."""
    return (used(inputs, sizes) + used(inputs, sizes, "test")) * 2 / 3


cell("leg", 2, compute, options=LegsSpec, rows=rows, cost=cost)
measurement("legs", LegsSpec, cells)
