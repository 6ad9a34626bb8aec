"""The effect of pruning alone on the loss: the criterion's mask against random ones with its counts in every layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Literal

import torch
from pydantic import Field

from sublevel._types import Bool, Tensor
from sublevel.engine.graph import Ref
from sublevel.prune.select import layer_counts, select
from sublevel.rng import generator
from sublevel.space import Space
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.options import Chooses, Where
from sublevel.tables import SOLUTION, table


def made_from(scene: Scene, s: Solution) -> tuple[bool, Ref | None]:
    """Whether the parent of a solution's mask is known, and the parent (None: the dense network)."""
    node = None if s.mask is None else scene.graph.nodes[s.mask.node]
    return (False, None) if node is None or node.kind == "given" else (True, node.inputs.get("parent"))


class PruningsSpec(Where):
    """The loss under a level's mask, and under ``draws`` random masks with its counts in every layer."""

    size: int | None = Field(default=None, ge=1)
    buffers: Chooses[tuple[Literal["stored", "recomputed"], ...]] = ("stored", "recomputed")
    draws: int = Field(default=20, ge=1)


PRUNINGS = table("prunings", SOLUTION, "'buffers', 'chosen_by', draw, loss_start, loss_end, error_start, error_end")
"""The loss before and after pruning. chosen_by = criterion (draw 0), or random with the criterion's counts in every
layer (draws from 1).
"""


def cells(scene: Scene, block: PruningsSpec) -> None:
    """One cell for each solution whose mask was made from a point, at that point."""
    for s in scene.admitted(block, dense=False):
        known, parent = made_from(scene, s)
        for policy in scene.policies(block.buffers) if known and s.pruned is not None else ():
            inputs = {"point": s.pruned, "parent": parent, "mask": s.mask, "policy": policy, "seed": s.seed}
            inputs |= {"stream": f"prune:random-legs:{s.level}"}
            scene.add("prunings", s, policy, options=block, inputs=inputs)


def compute(
    c: Context,
    options: PruningsSpec,
    *,
    point: str,
    parent: str | None,
    mask: str,
    seed: int,
    stream: str,
    policy: str,
) -> Output:
    """Train loss and error before, after the criterion's mask (draw 0), and after every random one (from 1)."""
    at, chosen, before = c.point(point, parent), c.mask(mask), c.mask(parent)
    assert chosen is not None
    field = c.problem.field("train", size=options.size, policy=policy)
    masks = chain([chosen], random_masks(c.problem.space, chosen, before, options.draws, seed, stream))
    start, *ends = field.evaluations(chain([at], map(at.project, masks)))
    found = []
    for draw, end in enumerate(ends):
        row = {"chosen_by": "random" if draw else "criterion", "draw": draw, "loss_start": start.loss}
        found.append(row | {"loss_end": end.loss, "error_start": start.error, "error_end": end.error})
    return Output({"buffers": field.policy, "rows": found})


def random_masks(
    space: Space, like: Bool[Tensor, "D"], parent: Bool[Tensor, "D"] | None, draws: int, seed: int, stream: str
) -> Iterator[Bool[Tensor, "D"]]:
    """Masks nested in ``parent`` (None: dense) with as many weights in every layer as ``like``, drawn uniformly.

    Draw i, from 1, comes from (``seed``, ``stream``, i).
    """
    parent = space.full_mask().to(like.device) if parent is None else parent
    counts = layer_counts(space, like)
    for draw in range(1, draws + 1):
        scores = torch.rand(space.dim, generator=generator(seed, stream, draw)).to(like.device)
        yield select(space, scores, parent, counts)


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``prunings``."""
    for row in entry["values"]["rows"]:
        yield "prunings", {**labels, "buffers": entry["values"]["buffers"], **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """An evaluation before pruning and one for each mask; twice as many if statistics are recomputed."""
    again = 2 if inputs["policy"] == "recomputed" else 1
    return again * (2 + inputs["draws"]) * used(inputs, sizes) / 3


cell("prunings", 2, compute, options=PruningsSpec, rows=rows, cost=cost)
measurement("prunings", PruningsSpec, cells)
