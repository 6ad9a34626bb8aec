"""Branches that test the parts of a ticket: its signs, values, data order and mask, and the training before pruning.

Each differs from `imp` in one part, and so tests whether that part matters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sublevel.codec import mask_tensors, point_tensors
from sublevel.engine.graph import Node, Ref
from sublevel.geometry.paths import infer_spec, weight_matching
from sublevel.geometry.paths.matching import permute_vector
from sublevel.rng import generator
from sublevel.space import Point, Space
from sublevel.study.builder import Builder, Solution, branch
from sublevel.study.cells import Context, Output, cell


@branch("reinit-signs", summary="new weights with the signs of the rewound ones")
def reinit_signs(b: Builder, level: int) -> Solution:
    """The mask of `imp` on new initial magnitudes with the signs of step k (Zhou et al. 1905.01067).

    Biases, affine parameters and buffers are those of step k: only magnitudes differ from the start of `imp`.
    """
    return _restarted(b, level, "signs")


@branch("ticket-signs", summary="new weights with the signs and normalisation of the trained ticket")
def ticket_signs(b: Builder, level: int) -> Solution:
    """Imp's mask; new magnitudes from the initial distribution with the signs that imp's ticket ends with.

    Biases, affine parameters and buffers are those of the trained ticket too (Oh et al. 2504.05357, where the ticket
    comes from learning-rate rewinding). Against `reinit-signs` the ticket's training is what the start knows more of.
    """
    ticket = b.solve("imp", level)
    start = _start(b, level, "signs", stream=f"{b.name}:{level}", point=ticket.end, mask=ticket.mask)
    return b.train(level, start={"point": start}, mask=ticket.mask)


@branch("shuffle-weights", summary="rewound weights shuffled within each layer")
def shuffle_weights(b: Builder, level: int) -> Solution:
    """The mask of `imp`; the remaining weights of step k are shuffled within each layer (Frankle et al. 2009.08576).

    Every layer has the weight distribution of `imp`, in another arrangement.
    """
    return _restarted(b, level, "shuffle")


@branch("other-order", summary="the ticket trained in another seed's data order")
def other_order(b: Builder, level: int) -> Solution:
    """The ticket of `imp`, trained in the data order of the next seed, with its augmentation and dropout."""
    return b.train(level, start={"point": b.rewound}, mask=b.solve("imp", level).mask, seed=next_seed(b))


@branch("other-mask", summary="another seed's mask on this seed's weights")
def other_mask(b: Builder, level: int) -> Solution:
    """The mask of `imp` for the next seed, on this seed's weights at step k.

    It tests how far a mask depends on its own initialisation. Two seeds share a mask, so they are not independent.
    """
    other = replace(b, seed=next_seed(b), memo={})
    return b.train(level, start={"point": b.rewound}, mask=other.solve("imp", level).mask)


@branch("permuted-mask", summary="another seed's mask, its units matched to this seed's")
def permuted_mask(b: Builder, level: int) -> Solution:
    """The mask of the study's next seed with its hidden units permuted, on this seed's weights at step k.

    The permutation matches the other seed's dense solution to this one's (weight matching), so that the mask is used in
    the basin of this initialisation (Adnan et al. 2505.05143). Against `other-mask` only the permutation differs,
    against `reinit` a new initialisation gets the mask after a change of units instead of without.
    """
    other = replace(b, seed=next_seed(b), memo={})
    inputs = {"mask": other.solve("imp", level).mask, "point": other.dense().end, "like": b.dense().end}
    labels = {"branch": b.label, "level": level, "seed": b.seed}
    node = b.graph.add(Node(f"permuted-mask/{b.label}/L{level}/s{b.seed}", "permuted-mask", inputs, labels))
    return b.train(level, start={"point": b.rewound}, mask=Ref(node.id, "mask"))


@branch("at-init", summary="pruning before training", criterion="")
def at_init(b: Builder, level: int) -> Solution:
    """Pruning at the initialisation by ``criterion``, before training from step 0.

    With `snip`, `grasp` or `synflow` it is the method of that name (compared by Frankle et al. 2009.08576).
    """
    start = _start(b, level, "init", stream="init", point=None, mask=None)
    mask = b.prune(start, None, level, b.label)
    return b.train(level, start={"point": b.updated(mask, start)}, mask=mask, pruned=start, first=0)


def next_seed(b: Builder) -> int:
    """The study's next seed, cyclically; for a single seed, the next number."""
    seeds = list(b.spec.seeds)
    return seeds[(seeds.index(b.seed) + 1) % len(seeds)] if len(seeds) > 1 else b.seed + 1


def _restarted(b: Builder, level: int, how: str) -> Solution:
    mask = b.solve("imp", level).mask
    start = _start(b, level, how, stream=f"{b.name}:{level}", point=b.rewound, mask=mask)
    return b.train(level, start={"point": start}, mask=mask)


def _start(b: Builder, level: int, how: str, **inputs: Any) -> Ref:
    labels = {"branch": b.label, "level": level, "seed": b.seed}
    node = Node(f"start/{b.label}/L{level}/s{b.seed}", "start", {"how": how, "seed": b.seed, **inputs}, labels)
    return Ref(b.graph.add(node).id, "point")


def start_cell(c: Context, *, how: str, seed: int, stream: str, point: str | None, mask: str | None) -> Output:
    """A start: the initialisation, or ``point`` with other magnitudes or in another arrangement."""
    if point is None:
        return Output({}, {"point": point_tensors(c.problem.init(seed, stream))})
    at, kept = c.point(point), c.mask(mask)
    if how == "signs":
        theta = with_signs(c.problem.space, at, c.problem.init(seed, stream))
    else:
        theta = shuffled(c.problem.space, at.theta, kept, generator(seed, stream))
    return Output({}, {"point": point_tensors(replace(at, theta=theta))})


def permuted_mask_cell(c: Context, *, mask: str, point: str, like: str) -> Output:
    """A mask with the permutation of units that brings its own dense solution nearest to another one."""
    space, chosen = c.problem.space, c.mask(mask)
    assert chosen is not None
    spec = infer_spec(space)
    found = weight_matching(space, c.point(like), c.point(point), spec)
    moved = permute_vector(space, spec, found.permutations, chosen)
    distances = {"distance": found.distance, "distance_before": found.distance_before, "converged": found.converged}
    return Output({"remaining": space.remaining(moved), **distances}, {"mask": mask_tensors(moved)})


def with_signs(space: Space, point: Point, drawn: Point) -> torch.Tensor:
    """Magnitudes [D] of ``drawn`` with the signs of ``point``; other than prunable weights are those of ``point``."""
    prunable = space.prunable.to(point.theta.device)
    return torch.where(prunable, drawn.theta.abs() * point.theta.sign(), point.theta)


def shuffled(space: Space, theta: torch.Tensor, mask: torch.Tensor | None, draws: torch.Generator) -> torch.Tensor:
    """``theta`` [D] with the weights that ``mask`` [D] keeps permuted within each prunable layer."""
    out = theta.clone()
    kept = torch.ones_like(theta, dtype=torch.bool) if mask is None else mask
    for layer in space.prunable_layers:
        places = layer.start + kept[layer.coordinates].nonzero().squeeze(1)
        order = torch.randperm(len(places), generator=draws).to(theta.device)
        out[places] = theta[places[order]]
    return out


cell("start", 1, start_cell)
cell("permuted-mask", 1, permuted_mask_cell)
