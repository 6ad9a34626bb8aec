"""Branches whose masks are learned by gradient descent, and their cells.

A mask has the count of `imp` at its level. It is learned again at each level, so successive masks are not nested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch

from sublevel.codec import mask_tensors, point_tensors
from sublevel.engine.graph import Node, Ref
from sublevel.errors import ConfigError, unknown
from sublevel.prune.allocation import SCOPES, apportion, erk, least, protected
from sublevel.prune.repeated import repeated
from sublevel.prune.select import select
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.builder import Builder, Solution, branch
from sublevel.study.cells import BESIDE, Context, Output, Row, Rows, TrainingInputs, cell
from sublevel.study.kernels import train_cost, watching
from sublevel.train import learned

WEIGHTS = ("initial", "signed-constant")


@branch(
    "edge-popup",
    summary="a mask learned over frozen initial weights",
    cite="ramanujan2020hidden",
    scope="layer",
    weights="initial",
    lr=0.0,
)
def edge_popup(b: Builder, level: int) -> Solution:
    """A mask learned for fixed initial weights (Ramanujan et al. 1911.13299); no weight is trained.

    The whole recipe trains the scores (``lr`` is their rate; 0 means the recipe's). Biases and affine parameters stay
    fixed too. Scores compete within ``scope``: within a layer, each at the level's density, as in the paper, or
    ``global`` or ``erk``. ``weights = "signed-constant"`` keeps only the signs of the weights. The solution ends with
    an epoch at rate 0, which adapts BatchNorm's statistics to the last mask.
    """
    mask, point, _ = _popped(b, level)
    first = max(b.steps - b.per_epoch, 0)
    return b.train(level, start={"point": point}, mask=mask, pruned=point, first=first, lr=0.0)


@branch(
    "edge-popup-train",
    summary="the weights under such a mask, trained from their start",
    scope="layer",
    weights="initial",
    lr=0.0,
)
def edge_popup_train(b: Builder, level: int) -> Solution:
    """The mask of `edge-popup`; the weights are then trained from the same values, from step 0."""
    mask, point, start = _popped(b, level)
    return b.train(level, start={"point": start}, mask=mask, pruned=point, first=0)


@branch(
    "continuous-sparsification",
    summary="a mask learned together with the weights",
    cite="savarese2020winning",
    penalty=1e-8,
    beta=200.0,
    initial=0.0,
)
def continuous_sparsification(b: Builder, level: int) -> Solution:
    """Soft masks trained with the weights (Savarese et al. 1912.04427), cut to the count of `imp`, and rewound to k.

    The mask of level n comes from n rounds of their ticket search, which continue the dense network from step k.
    ``initial`` is the first s, ``beta`` the temperature at the end of a round, ``penalty`` lambda. The number of masks
    that are on at the end is an outcome, ``soft_remaining`` in the tables; the weights with the largest s are kept.
    """
    for name, smallest in (("penalty", 0.0), ("beta", 1.0), ("initial", -math.inf)):
        if not (math.isfinite(b.options[name]) and b.options[name] >= smallest):
            allowed = "finite" if name == "initial" else f"at least {smallest:g}, and finite"
            raise ConfigError(f"branch {b.label!r}: {name} must be {allowed}, got {b.options[name]}")
    found = None
    for n in range(1, level + 1):
        found = _round(b, n, found)
    assert found is not None
    return b.train(level, start={"point": b.rewound}, mask=Ref(found.id, "mask"), pruned=Ref(found.id, "point"))


def _popped(b: Builder, level: int) -> tuple[Ref, Ref, Ref]:
    """The mask of a level, the frozen weights with the buffers at the end, and the same with fresh buffers."""
    scope, weights, lr = (b.options[name] for name in ("scope", "weights", "lr"))
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES, f"branch {b.label!r}")
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS, f"branch {b.label!r}")
    if not 0 <= lr < math.inf:
        raise ConfigError(f"branch {b.label!r}: lr must be 0 (the recipe's) or more, and finite, got {lr}")
    inputs = {**_inputs(b, level), "keep": _shares(b, level, scope), "weights": weights}
    if lr:
        inputs["recipe"] = inputs["recipe"] | {"lr": lr}
    node = _add(b, "edge-popup", level, inputs)
    return Ref(node.id, "mask"), Ref(node.id, "point"), Ref(node.id, "start")


def _round(b: Builder, level: int, before: Node | None) -> Node:
    """A round of continuous sparsification, from the end of the one before."""
    inputs = {
        **_inputs(b, level),
        "keep": b.keep(level),
        "point": b.rewound if before is None else Ref(before.id, "weights"),
        "scores": None if before is None else Ref(before.id, "scores"),
        "first": b.rewind,
        **{name: b.options[name] for name in ("penalty", "beta", "initial")},
    }
    return _add(b, "continuous-sparsification", level, inputs)


def _inputs(b: Builder, level: int) -> dict[str, Any]:
    """The inputs of both kinds of cells."""
    return {
        "recipe": b.recipe,
        "seed": b.seed,
        "order": b.named_order(level),
        "protect": protected(b.space, b.spec.protect) if b.spec.protect else [],
        "floor": b.spec.floor,
    }


def _add(b: Builder, kind: str, level: int, inputs: Mapping[str, Any]) -> Node:
    labels = {"branch": b.label, "level": level, "seed": b.seed}
    return b.graph.add(Node(f"{kind}/{b.label}/L{level}/s{b.seed}", kind, inputs, labels))


def _shares(b: Builder, level: int, scope: str) -> list[int]:
    """The count of a level in total, or divided among the layers by ``scope``."""
    keep = b.keep(level)
    if scope == b.spec.scope:
        return keep
    if scope == "global":
        return [sum(keep)]
    low = least(b.space, b.spec.protect, b.spec.floor)
    sizes = [layer.size for layer in b.space.prunable_layers]
    return erk(b.space, sum(keep), low) if scope == "erk" else apportion(sum(keep), sizes, low, sizes)


def popup_cell(
    c: Context,
    *,
    keep: Sequence[int],
    weights: str,
    protect: Sequence[str],
    floor: int,
    **training: Unpack[TrainingInputs],
) -> Output:
    """Train scores over the frozen initial weights; the first scores come from the seed's stream ``scores``."""
    p, start = c.problem, c.problem.init(training["seed"])
    if weights == "signed-constant":
        start = Point(learned.signed_constant(p.space, start.theta), start.buffers)
    choose = repeated(p.space, keep, protect=protect, floor=floor)
    setup = c.training(watching(c, "the mask's training"), **training)
    scores = learned.initial_scores(p.space, p.torch_dtype, generator(setup.seed, "scores")).to(p.device)
    done = learned.edge_popup(setup, start, scores, choose=choose)
    mask, point = choose(done.scores.abs()), Point(start.theta, done.end.buffers)
    points = {"point": point_tensors(point), "start": point_tensors(start)}
    return Output({"history": done.history}, {"mask": mask_tensors(mask), **points})


def round_cell(
    c: Context,
    *,
    point: str,
    scores: str | None,
    first: int,
    keep: Sequence[int],
    penalty: float,
    beta: float,
    initial: float,
    protect: Sequence[str],
    floor: int,
    **training: Unpack[TrainingInputs],
) -> Output:
    """One round, and the mask of its largest scores; protected layers have no soft mask."""
    p, start = c.problem, c.point(point)
    soft = p.space.prunable.clone()
    for name in protect:
        soft &= ~p.space.indicator(name)
    soft = soft.to(p.device)
    if scores is None:
        began = torch.full_like(start.theta, initial)
    else:
        began = learned.next_round(c.point(scores).theta, beta, initial)
    setup = c.training(watching(c, "the mask's training"), **training)
    done = learned.continuous_sparsification(setup, start, began, soft=soft, penalty=penalty, beta=beta, first=first)
    mask = select(p.space, done.scores, p.space.full_mask().to(p.device), keep, protect=protect, floor=floor)
    points = {
        "point": done.end,
        "weights": Point(done.weights, done.end.buffers),
        "scores": Point(done.scores),
    }
    on = p.space.remaining((done.scores > 0) | ~soft)
    objects = {"mask": mask_tensors(mask), **{name: point_tensors(each) for name, each in points.items()}}
    return Output({"history": done.history, "soft_remaining": on}, objects)


def learned_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``history`` under the branch's name with ``(mask)``, and ``soft_remaining`` for the row of ``levels``."""
    if "soft_remaining" in entry["values"]:
        yield BESIDE, {**labels, "soft_remaining": entry["values"]["soft_remaining"]}
    for row in entry["values"]["history"]:
        yield "history", {**labels, "branch": f"{labels['branch']} (mask)", **row}


cell("edge-popup", 1, popup_cell, rows=learned_rows, cost=train_cost, trains=True)
cell("continuous-sparsification", 1, round_cell, rows=learned_rows, cost=train_cost, trains=True)
