"""Fast selection for trainings that select at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.prune.select import layer_counts, lowest, protected, select
from sublevel.space import Space


def repeated(
    space: Space, keep: Sequence[int], *, protect: Sequence[str] = (), floor: int = 0
) -> Callable[[Tensor], Tensor]:
    """`select` among all weights, as a function from scores [D] to the mask [D]: the same masks, faster.

    ``keep``, ``protect`` and ``floor`` are as in `select`, with the same ConfigError. Scores are not checked for nan.

    >>> from torch import nn
    >>> repeated(Space.of(nn.Linear(3, 1)), [2])(torch.tensor([0.3, 0.1, 0.2, 0.0]))
    tensor([ True, False,  True,  True])
    """
    layers, full = list(space.prunable_layers), space.full_mask()
    first = select(space, torch.zeros(space.dim), full, keep, protect=protect, floor=floor)
    if floor and len(keep) < len(layers):  # the weights that the floor keeps depend on the scores
        return lambda scores: select(space, scores, full.to(scores.device), keep, protect=protect, floor=floor)
    if len(keep) == len(layers):
        groups = [[layer] for layer in layers]
    else:
        spared = protected(space, protect)
        groups = [[layer for layer in layers if layer.name not in spared]]
    left = dict(zip((layer.name for layer in layers), layer_counts(space, first), strict=True))
    removed = [sum(layer.size - left[layer.name] for layer in group) for group in groups]

    whole = {full.device: full}  # on every device that scores have come from

    def choose(scores: Float[Tensor, "D"]) -> Bool[Tensor, "D"]:
        if scores.device not in whole:
            whole[scores.device] = full.to(scores.device)
        mask = whole[scores.device].clone()
        for group, number in zip(groups, removed, strict=True):
            if number:
                gone = lowest(torch.cat([scores[layer.coordinates] for layer in group]), number)
                for layer, part in zip(group, gone.split([layer.size for layer in group]), strict=True):
                    mask[layer.coordinates] = ~part
        return mask

    return choose
