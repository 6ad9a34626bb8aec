"""From scores to masks with an exact number of weights left.

Ties are decided by position: the sort is stable on (score, index), so the same scores give the same mask everywhere.
A mask is always nested in the one it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError, unknown
from sublevel.space import Layer, Space, check_mask

SCOPES = ("global", "layer")


def removed(fraction: float, remaining: int) -> int:
    """How many of ``remaining`` weights one level removes: floor(fraction * remaining + 1/2).

    In exact arithmetic with the fraction as it is written, so that 0.29 of 50 weights is 14.5, and 15 go.

    >>> removed(0.2, 270_896), removed(0.5, 1)
    (54179, 1)
    """
    return floor(Fraction(str(fraction)) * remaining + Fraction(1, 2))


def counts(space: Space, fraction: float, level: int, scope: str = "global") -> list[int]:
    """Weights left after ``level`` levels: [total] for the global scope, one number per prunable layer otherwise."""
    if scope not in SCOPES:
        raise unknown("pruning scope", scope, SCOPES)
    sizes = [layer.size for layer in space.prunable_layers]
    left = sizes if scope == "layer" else [sum(sizes)]
    for _ in range(level):
        left = [n - removed(fraction, n) for n in left]
    return left


def select(
    space: Space, scores: Float[Tensor, "D"], parent: Bool[Tensor, "D"], keep: Sequence[int]
) -> Bool[Tensor, "D"]:
    """Keep the best-scored weights of ``parent``: ``keep`` = [total], or one count per prunable layer.

    Raises ConfigError where a count exceeds the weights that are left, or a score is nan.
    """
    layers = list(space.prunable_layers)
    mask = parent.clone()
    if len(keep) == 1 and len(layers) != 1:
        _keep_best(mask, scores, space.prunable.to(mask.device), keep[0], "network")
    else:
        for layer, count in zip(layers, keep, strict=True):
            _keep_best(mask, scores, _indicator(layer, mask), count, layer.name)
    check_mask(space, mask, parent, sum(keep))
    return mask


def layer_counts(space: Space, mask: Bool[Tensor, "D"]) -> list[int]:
    """Weights left in each prunable layer."""
    return [int(mask[layer.coordinates].sum()) for layer in space.prunable_layers]


def _indicator(layer: Layer, mask: Tensor) -> Tensor:
    inside = torch.zeros_like(mask)
    inside[layer.coordinates] = True
    return inside


def _keep_best(mask: Tensor, scores: Tensor, among: Tensor, count: int, where: str) -> None:
    alive = (mask & among).nonzero().squeeze(1)
    if bool(scores[alive].isnan().any()):
        raise ConfigError(f"{int(scores[alive].isnan().sum())} of the {len(alive)} scores in {where} are nan")
    if not 0 <= count <= len(alive):
        raise ConfigError(f"cannot keep {count} of the {len(alive)} weights left in {where}")
    lowest_first = torch.sort(scores[alive], stable=True).indices
    mask[alive[lowest_first[: len(alive) - count]]] = False
