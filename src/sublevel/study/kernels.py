"""The cells that make solutions: trainings and masks. Those that measure them are in ``measurements``.

Each loads its inputs, makes one numerical call, and returns. If its numbers change, it gets a new version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Unpack

import torch

from sublevel._types import Bool, Tensor
from sublevel.codec import mask_tensors, point_tensors
from sublevel.errors import Diverged
from sublevel.problem import Problem
from sublevel.prune import Criterion, ScoreContext, layer_counts, prune, score_function
from sublevel.risk.synflow import flow
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.cells import BESIDE, Context, Json, Output, Row, Rows, TrainingInputs, cell
from sublevel.tables import SOLUTION, table
from sublevel.train.recipe import Recipe
from sublevel.train.setup import EpochProgress, Watch

SAMPLE = 1000
"""Size of the fixed sample of training examples for pruning scores."""

HISTORY = table("history", SOLUTION, "step, epoch, lr, train_loss, validation_loss, validation_error")
"""Learning curves: running train loss (augmented, with the moving weights) and held-out loss per epoch."""


def train_cell(
    c: Context,
    *,
    start: Json,
    mask: str | None,
    first: int,
    lr: float | None,
    checkpoints: Sequence[int],
    last: int | None = None,
    moments: str | None = None,
    **training: Unpack[TrainingInputs],
) -> Output:
    """Train to the end of the schedule, or to step ``last``, with momentum from zero or from ``moments``.

    The held-out loss is measured after every epoch.
    """
    setup = c.training(watching(c), **training)
    rates = setup.rates if lr is None else [lr] * len(setup.rates)
    done = c.problem.trained_by(
        setup,
        c.problem.init(setup.seed, start["init"]) if "init" in start else c.point(start["point"]),
        mask=c.mask(mask),
        first=first,
        rates=rates[:last],
        checkpoints=checkpoints,
        **({} if moments is None else {"moments": c.store.get_tensors(moments)}),
    )
    points = {"end": done.end, **{f"step-{n}": point for n, point in done.checkpoints.items()}}
    return Output({"history": done.history}, {name: point_tensors(point) for name, point in points.items()})


def watching(c: Context, what: str = "training") -> Watch:
    """A watch that evaluates the held-out examples after every epoch and reports progress.

    Raises Diverged, naming ``what``, if the held-out loss is not finite at the end.
    """
    held_out = c.problem.field("validation") if len(c.problem.splits.validation) else None

    def watch(now: EpochProgress, point: Point) -> dict[str, float]:
        seen = held_out.evaluate(point) if held_out else None
        row = {"validation_loss": seen.loss, "validation_error": seen.error} if seen else {}
        if seen and now.step == now.steps and not math.isfinite(seen.loss):
            raise Diverged(f"{what} diverged: the held-out loss is {seen.loss} at the end (lr {now.lr:g})")
        c.progress({**asdict(now), **row})
        return row

    return watch


def mask_cell(
    c: Context,
    *,
    criterion: str,
    point: str | None,
    parent: str | None,
    keep: Sequence[int] = (),
    like: str | None = None,
    seed: int = 0,
    stream: str = "prune",
    start: Json = None,
    protect: Sequence[str] = (),
    floor: int = 0,
    code: str = "",
) -> Output:
    """Score the weights and keep exactly ``keep`` of them, or as many per layer as the mask ``like`` does.

    ``start`` is the start of the point's training, for criteria that read it. If the criterion updates the remaining
    weights, the updated point is stored. ``code`` is the source digest of the criterion; part of the key only.
    """
    p, chosen = c.problem, score_function(criterion)
    at = c.point(point) if point else Point(torch.zeros(p.space.dim, device=p.device))
    before = c.mask(parent)
    began = start and (c.point(start["point"]) if "point" in start else p.init(start["seed"], start["init"]))
    seen = score_context(p, chosen, p.space.full_mask().to(at.theta.device) if before is None else before, began)
    model, field = c.mask(like), p.field("train", size=SAMPLE)
    counts = keep if model is None else layer_counts(p.space, model)
    done = prune(chosen, at, field, generator(seed, stream), seen, counts, protect=protect, floor=floor)
    objects = {"point": point_tensors(replace(at, theta=done.theta))} if chosen.updates else {}
    return Output({"remaining": p.space.remaining(done.mask)}, {"mask": mask_tensors(done.mask), **objects})


def score_context(p: Problem, chosen: Criterion, mask: Bool[Tensor, "D"], start: Point | None) -> ScoreContext:
    """The context of a criterion."""
    passed = flow(p.space, p.module, p.prepare(p.splits.train.x[:1])) if "flow" in chosen.needs else None
    return ScoreContext(p.space, mask, start, passed)


def train_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``history``, and the number of steps for the row of ``levels``."""
    yield BESIDE, {**labels, "steps": entry["values"]["history"][-1]["step"] - entry["inputs"]["first"]}
    for row in entry["values"]["history"]:
        yield "history", {**labels, **row}


def train_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The epochs from start to end, with an evaluation of the held-out examples after each."""
    recipe = Recipe.from_document(dict(inputs["recipe"]))
    last = inputs.get("last") or recipe.steps(sizes["train"])
    epochs = (last - inputs.get("first", 0)) / recipe.steps_per_epoch(sizes["train"])
    return epochs * (sizes["train"] + sizes["validation"] / 3)


def mask_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The passes of the criterion over its sample."""
    return score_function(inputs["criterion"]).passes * min(SAMPLE, sizes["train"])


cell("train", 1, train_cell, rows=train_rows, cost=train_cost, trains=True)
cell("mask", 1, mask_cell, cost=mask_cost)
