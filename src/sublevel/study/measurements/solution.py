"""Every solution: losses, errors, norms, what is left where, how much of imp's mask, and which examples are right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sublevel.bits import pack
from sublevel.errors import Diverged
from sublevel.geometry.distance import mask_overlap
from sublevel.problem import Problem
from sublevel.space import Point
from sublevel.study.cells import BESIDE, Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import Scene


def add(scene: Scene) -> None:
    """Every solution is evaluated, whatever else a study asks for; the dense network at its rewind step too."""
    for s in scene.solutions:
        start = {"start": scene.builders[s.seed].rewound} if s.base == "dense" else {}
        scene.add("solution", s, inputs={"point": s.end, "mask": s.mask, **start}, **scene.facts(s))
        reference = scene.builders[s.seed].memo.get(("imp", scene.spec.order, s.level))
        if s.level and reference is not None:
            scene.add("overlap", s, inputs={"mask": s.mask, "reference": reference.mask})


@kernel("solution", 3)
def solution_cell(c: Context, *, point: str, mask: str | None, start: str | None = None) -> Output:
    """Losses, errors, norms, what is left where, and which held-out examples are answered right.

    ``start`` is the dense network's point at the rewind step, whose train loss stands beside that of the end.
    """
    p, at, own = c.problem, c.point(point), c.mask(mask)
    own = p.space.full_mask().to(at.theta.device) if own is None else own
    field = p.field("train")
    trained, gradient = field.evaluation_and_grad(at)
    if not math.isfinite(trained.loss):
        raise Diverged(f"training diverged: the end point's loss is {trained.loss}")
    judged = {s: p.field(s).evaluation_and_correct(at) for s in ("validation", "test") if len(p.part(s))}
    seen = {"train": trained, **{split: evaluation for split, (evaluation, _) in judged.items()}}
    alive = {layer.name: rows for layer, rows in p.space.filters(own)}
    values = {
        **{f"{split}_{what}": getattr(e, what) for split, e in seen.items() for what in ("loss", "error")},
        "buffers": field.policy,
        "density": p.space.density(own),
        "remaining": p.space.remaining(own),
        "prunable": int(p.space.prunable.sum()),
        "gradient_norm": float(gradient.double().norm()),
        "gradient_norm_own": float(gradient[own].double().norm()),
        "weight_norm": float(at.theta.double().norm()),
        "collapsed_layers": sum(not rows.any() for rows in alive.values()),
        "dead_filters": sum(int((~rows).sum()) for rows in alive.values()),
        "max_bn_gain": largest_gain(p, at),
        "train_loss_start": None if start is None else field.loss(c.point(start)),
    }
    layers = [
        {
            "layer": layer.name,
            "index": i,
            "prunable": layer.size,
            "remaining": int(own[layer.coordinates].sum()),
        }
        for i, layer in enumerate(p.space.prunable_layers)
    ]
    correct = [
        {"split": s, "examples": len(right), "bits": pack(right.cpu().numpy())} for s, (_, right) in judged.items()
    ]
    return Output({"row": values, "layers": layers, "correct": [row for row in correct if row["examples"]]})


@kernel("overlap", 1)
def overlap_cell(c: Context, *, mask: str, reference: str) -> Output:
    """How much of a mask is in another, and how much would be by chance."""
    a, b = c.mask(mask), c.mask(reference)
    assert a is not None
    assert b is not None
    found = mask_overlap(a, b, c.problem.space.prunable.to(a.device))
    return Output({"overlap_imp": found.share, "overlap_chance": found.chance})


@rows("solution")
def solution_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``levels``, ``layers`` and ``correct`` (which results of before it was stored do not have)."""
    yield "levels", {**labels, **entry["values"]["row"]}
    for layer in entry["values"]["layers"]:
        yield "layers", {**labels, **layer, "density": layer["remaining"] / layer["prunable"]}
    for row in entry["values"].get("correct", ()):
        yield "correct", {**labels, **row}


@rows("overlap")
def overlap_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """Beside the row of ``levels``."""
    yield BESIDE, {**labels, **entry["values"]}


@cost("solution")
def solution_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A gradient over the training examples, a pass over all others, and one over the former for a start."""
    start = sizes["train"] if inputs.get("start") else 0
    return sizes["train"] + (sizes["validation"] + sizes["test"] + start) / 3


def largest_gain(p: Problem, at: Point) -> float | None:
    """Max 1/sqrt(var + eps) over BatchNorm channels: near 316 behind a dead filter."""
    return max(gains(p, at), default=None)


def gains(p: Problem, at: Point) -> Iterator[float]:
    """The largest gain of every BatchNorm."""
    modules = dict(p.module.named_modules())
    for name in p.space.statistics:
        eps = float(modules[name].eps)  # type: ignore[arg-type]
        yield float(torch.rsqrt(at.buffers[f"{name}.running_var"] + eps).max())
