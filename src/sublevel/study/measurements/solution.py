"""Every solution: losses, errors, norms, remaining weights, overlap with the mask of `imp`, and correct examples."""

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
from sublevel.study.cells import BESIDE, Context, Output, Row, Rows, cell
from sublevel.study.measurements.base import Scene, measurement
from sublevel.tables import SOLUTION, table

LEVELS = table(
    "levels",
    SOLUTION,
    """
    'base': registered branch of the label: dense, imp, ...; given for points trained elsewhere
    fraction: share of the remaining weights that each level prunes; empty where prune lists densities
    'criterion': criterion of the mask, the branch's or the study's; random for random masks
    'order': data order of the levels: shared | independent
    density: remaining / prunable
    remaining, prunable, train_loss, train_error, validation_loss, validation_error, test_loss, test_error, 'buffers'
    gradient_norm: of the train loss in R^D
    gradient_norm_own: in the solution's own subspace
    weight_norm
    collapsed_layers: prunable layers with no weight left
    dead_filters: rows of prunable layers with no weight left
    max_bn_gain: max over channels of 1 / sqrt(running_var + eps)
    overlap_imp: share of this mask's weights that imp's mask of the same level has too
    overlap_chance: the same share for a random mask of the same count
    steps
    train_loss_start: of the dense network, without augmentation, at the rewind step k (0: the initialisation)
    soft_remaining: weights whose soft masks are on, before the cut to ``remaining`` (continuous sparsification)
    """,
)
"""One row per trained solution. Losses are means over the whole split; errors are fractions in [0, 1]."""

CORRECT = table("correct", SOLUTION, "'split', examples, 'bits'")
"""The examples that a solution classifies correctly. split = validation | test; bits: base64 of one bit per example in
the order of the split, the first in the highest bit of the first byte (numpy.packbits). No rows for real targets, nor
for classes of tokens, since a sequence may be correct in part.
"""

LAYERS = table("layers", SOLUTION, "'layer', index, prunable, remaining, density")
"""Weights left per layer."""


def cells(scene: Scene, block: None) -> None:
    """Evaluate every solution, and the dense network at its rewind step too."""
    for s in scene.solutions:
        start = {"start": scene.builders[s.seed].rewound} if s.base == "dense" else {}
        scene.add("solution", s, inputs={"point": s.end, "mask": s.mask, **start}, **scene.facts(s))
        reference = scene.builders[s.seed].memo.get(("imp", scene.spec.order, s.level))
        if s.level and reference is not None:
            scene.add("overlap", s, inputs={"mask": s.mask, "reference": reference.mask})


def compute(c: Context, *, point: str, mask: str | None, start: str | None = None) -> Output:
    """Losses, errors, norms, remaining weights by layer, and the held-out examples that are correct.

    ``start`` is the dense network's point at the rewind step, for its train loss.
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
        "max_bn_gain": max(gains(p, at), default=None),  # near 316 behind a dead filter
        "train_loss_start": None if start is None else field.loss(c.point(start)),
    }
    layers = [
        {"layer": layer.name, "index": i, "prunable": layer.size, "remaining": int(own[layer.coordinates].sum())}
        for i, layer in enumerate(p.space.prunable_layers)
    ]
    correct = [
        {"split": s, "examples": len(right), "bits": pack(right.cpu().numpy())} for s, (_, right) in judged.items()
    ]
    return Output({"row": values, "layers": layers, "correct": [row for row in correct if row["examples"]]})


def overlap(c: Context, *, mask: str, reference: str) -> Output:
    """The share of a mask that is in another one, and the share by chance."""
    a, b = c.mask(mask), c.mask(reference)
    assert a is not None
    assert b is not None
    found = mask_overlap(a, b, c.problem.space.prunable.to(a.device))
    return Output({"overlap_imp": found.share, "overlap_chance": found.chance})


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``levels``, ``layers`` and ``correct`` (absent from older results)."""
    yield "levels", {**labels, **entry["values"]["row"]}
    for layer in entry["values"]["layers"]:
        yield "layers", {**labels, **layer, "density": layer["remaining"] / layer["prunable"]}
    for row in entry["values"].get("correct", ()):
        yield "correct", {**labels, **row}


def overlap_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """More columns of ``levels``."""
    yield BESIDE, {**labels, **entry["values"]}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A gradient over the training examples, a pass over all others, and a pass over the former for a start."""
    start = sizes["train"] if inputs.get("start") else 0
    return sizes["train"] + (sizes["validation"] + sizes["test"] + start) / 3


def gains(p: Problem, at: Point) -> Iterator[float]:
    """The largest gain 1/sqrt(var + eps) over the channels of each BatchNorm."""
    modules = dict(p.module.named_modules())
    for name in p.space.statistics:
        eps = float(modules[name].eps)  # type: ignore[arg-type]
        yield float(torch.rsqrt(at.buffers[f"{name}.running_var"] + eps).max())


cell("solution", 3, compute, rows=rows, cost=cost)
cell("overlap", 1, overlap, rows=overlap_rows)
measurement("solution", None, cells)
