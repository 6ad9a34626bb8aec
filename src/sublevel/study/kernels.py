"""The kernels: what each kind of cell computes.

A kernel is short: load, one numerical call, return. One whose numbers change gets a new version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch

from sublevel.errors import Diverged
from sublevel.geometry import paths
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.distance import displacement, mask_overlap
from sublevel.problem import Problem
from sublevel.prune.scores import score_function
from sublevel.prune.select import layer_counts, select
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.cells import Context, Json, Output, kernel, mask_tensors, point_tensors
from sublevel.train.engine import Progress, train
from sublevel.train.recipe import Recipe

SAMPLE = 1000
"""Training examples that a pruning score may look at: the same fixed sample everywhere."""


@kernel("train", 1)
def train_cell(
    c: Context,
    *,
    recipe: Json,
    seed: int,
    start: Json,
    mask: str | None,
    order: str,
    first: int,
    lr: float | None,
    checkpoints: Sequence[int],
) -> Output:
    """Train to the end of the schedule; the held-out loss is looked at after every epoch."""
    p, chosen = c.problem, Recipe.from_document(recipe)
    held_out = p.field("validation") if len(p.splits.validation) else None

    def watch(now: Progress, point: Point) -> dict[str, float]:
        seen = held_out.evaluate(point) if held_out else None
        row = {"validation_loss": seen.loss, "validation_error": seen.error} if seen else {}
        if seen and now.step == now.steps and not math.isfinite(seen.loss):
            raise Diverged(f"training diverged: the held-out loss is {seen.loss} at the end (lr {now.lr:g})")
        c.progress({**asdict(now), **row})
        return row

    done = train(
        p.space,
        p.module,
        p.init(seed, start["init"]) if "init" in start else c.point(start["point"]),
        p.splits.train,
        prepare=p.prepare,
        loss=p.mean_loss(),
        recipe=chosen,
        seed=seed,
        mask=c.mask(mask),
        order=order,
        first=first,
        rates=None if lr is None else [lr] * chosen.steps(len(p.splits.train)),
        checkpoints=checkpoints,
        watch=watch,
    )
    points = {"end": done.end, **{f"step-{n}": point for n, point in done.checkpoints.items()}}
    return Output({"history": done.history}, {name: point_tensors(point) for name, point in points.items()})


@kernel("mask", 1)
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
) -> Output:
    """Score the weights and keep exactly ``keep`` of them, or as many per layer as the mask ``like`` does."""
    space = c.problem.space
    at = c.point(point) if point else Point(torch.zeros(space.dim, device=c.problem.device))
    field = c.problem.field("train", size=SAMPLE)
    scores = score_function(criterion)(at, field, generator(seed, stream))
    before = c.mask(parent)
    before = space.full_mask().to(at.theta.device) if before is None else before
    model = c.mask(like)
    mask = select(space, scores, before, keep if model is None else layer_counts(space, model))
    return Output({"remaining": space.remaining(mask)}, {"mask": mask_tensors(mask)})


@kernel("solution", 1)
def solution_cell(c: Context, *, point: str, mask: str | None) -> Output:
    """Losses, errors, norms, and what is left where."""
    p, at, own = c.problem, c.point(point), c.mask(mask)
    own = p.space.full_mask().to(at.theta.device) if own is None else own
    splits = [s for s in ("train", "validation", "test") if len(p.part(s))]
    seen = {split: p.field(split).evaluate(at) for split in splits}
    if not math.isfinite(seen["train"].loss):
        raise Diverged(f"training diverged: the end point's loss is {seen['train'].loss}")
    field = p.field("train")
    gradient = field.grad(at)
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
        "max_bn_gain": _largest_gain(p, at),
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
    return Output({"row": values, "layers": layers})


@kernel("overlap", 1)
def overlap_cell(c: Context, *, mask: str, reference: str) -> Output:
    """How much of a mask is in another, and how much would be by chance."""
    a, b = c.mask(mask), c.mask(reference)
    assert a is not None
    assert b is not None
    found = mask_overlap(a, b, c.problem.space.prunable.to(a.device))
    return Output({"overlap_imp": found.share, "overlap_chance": found.chance})


@kernel("leg", 1)
def leg_cell(
    c: Context, *, a: str, a_mask: str | None, b: str, b_mask: str | None, size: int | None, policy: str
) -> Output:
    """Loss and error at both ends of a leg, on the training and the test set, and how far apart they are."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    rows = []
    for split in ("train", "test"):
        field = c.problem.field(split, size=size, policy=policy)
        one, two = field.evaluate(start), field.evaluate(end)
        rows.append(
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
    return Output({"rows": rows})


@kernel("segment", 1)
def segment_cell(
    c: Context,
    *,
    a: str,
    a_mask: str | None,
    b: str,
    b_mask: str | None,
    points: int,
    refine: int,
    size: int | None,
    policy: str,
) -> Output:
    """The profile of a segment and its barriers, on the training and the test set."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    distance = displacement(start.theta, end.theta).distance
    out = []
    for split in ("train", "test"):
        field = c.problem.field(split, size=size, policy="stored" if policy == "averaged" else policy)
        profile = paths.segment(field, start, end, points=points, refine=refine, buffers="averaged")
        out.append(
            {
                "split": split,
                "buffers": profile.policy,
                "distance": distance,
                "alphas": profile.alphas.tolist(),
                "profile_loss": profile.loss.tolist(),
                "profile_error": profile.error.tolist(),
                "loss": asdict(profile.barrier("loss")),
                "error": asdict(profile.barrier("error")),
            }
        )
    return Output({"segments": out})


@kernel("spectrum", 1)
def spectrum_cell(
    c: Context,
    *,
    point: str,
    mask: str | None,
    alive: str | None,
    k: int,
    size: int | None,
    policy: str,
    tolerance: float | None,
    steps: int,
    restarts: int,
    negative: int,
) -> Output:
    """The extreme eigenvalues of the training loss at a point, in the subspace of a mask."""
    at, space, own = c.point(point), c.mask(mask), c.mask(alive)
    field = c.problem.field("train", size=size, policy=policy)
    dead = None if own is None else c.problem.space.dead(own)
    if dead is not None and bool(dead.any()):
        space = ~dead if space is None else space & ~dead
    found = top_eigenvalues(
        field, at, k=k, mask=space, tolerance=tolerance, steps=steps, restarts=restarts, negative=negative
    )
    gradient = field.grad(at)
    slopes = found.vectors.double() @ gradient.double()
    row = {
        "buffers": field.policy,
        "dimension": found.dimension,
        "examples": len(field.x),
        "excluded": 0 if dead is None else int(dead.sum()),
        "largest": float(found.values[0]),
        "smallest": float(found.smallest[0]),
        "negative_count": found.negative_count,
        "negative_mass": found.negative_mass,
        "gradient_norm": float((gradient if space is None else gradient[space]).double().norm()),
        "products": found.products,
        "converged": found.converged,
        "stop": found.stop,
    }
    ends = {
        "largest": (found.values, found.residuals),
        "smallest": (found.smallest, found.smallest_residuals),
    }
    pairs = [
        {
            "end": end,
            "index": i + 1,
            "eigenvalue": value,
            "residual": residual,
            "converged": residual <= found.bound,
        }
        for end, (values, residuals) in ends.items()
        for i, (value, residual) in enumerate(zip(values.tolist(), residuals.tolist(), strict=True))
    ]
    return Output({"row": row, "pairs": pairs, "slopes": slopes.tolist()})


def _largest_gain(p: Problem, at: Point) -> float | None:
    """Max 1/sqrt(var + eps) over BatchNorm channels: near 316 behind a dead filter."""
    modules = dict(p.module.named_modules())
    gains = [
        torch.rsqrt(at.buffers[f"{name}.running_var"] + float(modules[name].eps)).max()  # type: ignore[arg-type]
        for name in p.space.statistics
    ]
    return max(map(float, gains), default=None)
