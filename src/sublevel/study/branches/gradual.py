"""The branch that prunes during training, and its cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch

from sublevel.codec import mask_tensors, point_tensors
from sublevel.engine.graph import Node, Ref
from sublevel.errors import ConfigError
from sublevel.prune import prune, score_function
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.builder import Builder, Solution, branch
from sublevel.study.cells import Context, Output, Row, Rows, TrainingInputs, cell
from sublevel.study.kernels import SAMPLE, score_context, watching
from sublevel.train.gradual import cubic, gradual
from sublevel.train.recipe import Duration, Recipe

TIMES = 100
"""Default number of prunings of a run."""


@branch(
    "gradual",
    summary="gradual pruning during one training run",
    cite="zhu2017prune",
    criterion="",
    begin="",
    end="",
    every="",
)
def gradual_branch(b: Builder, level: int) -> Solution:
    """One training from the initialisation in which the mask shrinks to the count of `imp` (Zhu and Gupta 1710.01878).

    The number of remaining weights follows their cubic schedule from step ``begin`` (default: k) to step ``end``
    (default: three quarters of the way from there to the end of training), with a pruning every ``every`` steps
    (default: a hundredth of the way). Momentum continues. The solution's start is the point at step ``end``.
    """
    begin = _step(b, "begin", b.rewind)
    end = _step(b, "end", begin + (b.steps - begin) * 3 // 4)
    every = _step(b, "every", max((end - begin) // TIMES, 1))
    if not begin < end < b.steps or not every:
        raise ConfigError(
            f"branch {b.label!r}: prunes from step {begin} to step {end} of {b.steps}, every {every}; it must end "
            "after it begins and before training does, with a step or more between prunings"
        )
    at = [*range(begin + every, end, every), end]
    full, last = b.keep(0), b.keep(level)
    inputs = {
        "recipe": b.recipe,
        "seed": b.seed,
        "order": b.named_order(level),
        **b.chooser,
        "at": at,
        "keep": [[cubic(n, m, t - begin, end - begin) for n, m in zip(full, last, strict=True)] for t in at],
        **b.spared,
    }
    labels = {"branch": b.label, "level": level, "seed": b.seed}
    node = b.graph.add(Node(f"gradual/{b.label}/L{level}/s{b.seed}", "gradual", inputs, labels))
    found = {name: Ref(node.id, name) for name in ("point", "mask", "moments")}
    return b.train(level, start={"point": found["point"]}, mask=found["mask"], moments=found["moments"], first=end)


def _step(b: Builder, option: str, default: int) -> int:
    """The steps of an option that is a length of training."""
    if not (said := b.options[option]):
        return default
    try:
        return Duration.parse(said).steps(b.per_epoch)
    except ValueError as error:
        raise ConfigError(f"branch {b.label!r}: {option}: {error}") from None


def gradual_cell(
    c: Context,
    *,
    criterion: str,
    at: Sequence[int],
    keep: Sequence[Sequence[int]],
    protect: Sequence[str] = (),
    floor: int = 0,
    code: str = "",
    **training: Unpack[TrainingInputs],
) -> Output:
    """Train to the last of the steps ``at``, with exactly ``keep`` weights after each; ``code`` as in `mask_cell`."""
    p, seed, chosen = c.problem, training["seed"], score_function(criterion)
    start, field, counts = p.init(seed), p.field("train", size=SAMPLE), dict(zip(at, keep, strict=True))

    def tighten(step: int, point: Point, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        draws, seen = generator(seed, "prune:gradual", step), score_context(p, chosen, mask, start)
        done = prune(chosen, point, field, draws, seen, counts[step], protect=protect, floor=floor)
        return done.mask, done.theta

    done = gradual(c.training(watching(c), **training), start, tighten=tighten, at=at)
    objects = {"mask": mask_tensors(done.mask), "point": point_tensors(done.end), "moments": done.moments}
    return Output({"history": done.history}, objects)


def gradual_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``history``, up to the last pruning: the first part of the solution's own curve."""
    for row in entry["values"]["history"]:
        yield "history", {**labels, **row}


def gradual_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The epochs to the last pruning, with an evaluation of the held-out examples, and the passes of the criterion."""
    steps = Recipe.from_document(dict(inputs["recipe"])).steps_per_epoch(sizes["train"])
    looks = len(inputs["at"]) * score_function(inputs["criterion"]).passes * min(SAMPLE, sizes["train"])
    return inputs["at"][-1] / steps * (sizes["train"] + sizes["validation"] / 3) + looks


cell("gradual", 1, gradual_cell, rows=gradual_rows, cost=gradual_cost, trains=True)
