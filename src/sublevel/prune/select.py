"""Selection: masks with an exact number of weights from scores.

Position breaks ties: the sort is stable on (score, index), so equal scores give equal masks everywhere. A mask is
always nested in its parent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError
from sublevel.prune.allocation import SCOPES, counts, counts_at, protected, removed
from sublevel.space import Layer, Space, check_mask

__all__ = ["SCOPES", "counts", "counts_at", "layer_counts", "open_lth", "protected", "removed", "select"]


def select(
    space: Space,
    scores: Float[Tensor, "D"],
    parent: Bool[Tensor, "D"],
    keep: Sequence[int],
    *,
    protect: Sequence[str] = (),
    floor: int = 0,
) -> Bool[Tensor, "D"]:
    """Keep the best-scored weights of ``parent``: ``keep`` = [total], or one count per prunable layer.

    With a total, the layers of ``protect`` (see `protected`) keep all their weights in ``parent``, every other layer
    keeps its best ``floor`` weights, and the rest is selected across layers. Counts per layer already include this.

    Raises ConfigError for a count above the remaining weights or below the protected ones, or a score of nan.
    """
    layers = list(space.prunable_layers)
    mask = parent.clone()
    if len(keep) == 1 and len(layers) != 1:
        sure = _sure(space, scores, mask, protect, floor)
        among, certain = space.prunable.to(mask.device) & ~sure, int((sure & mask).sum())
        if 0 <= keep[0] < certain:
            raise ConfigError(f"cannot keep {keep[0]} weights: {certain} are protected or under the floor of {floor}")
        _keep_best(mask, scores, among, keep[0] - certain, "network")
    else:
        for layer, count in zip(layers, keep, strict=True):
            _keep_best(mask, scores, _indicator(layer, mask), count, layer.name)
    check_mask(space, mask, parent, sum(keep))
    return mask


def open_lth(space: Space, scores: Float[Tensor, "D"], parent: Bool[Tensor, "D"], fraction: float) -> Bool[Tensor, "D"]:
    """The mask by the rule of open_lth: keep scores above ``sorted[ceil(fraction * remaining)]``.

    Without ties it equals `select` with the counts of ``rounding="open_lth"``. Every weight that ties with the
    threshold is removed too, so the count is not exact (facebookresearch/open_lth, pruning/sparse_global.py).
    """
    among = parent & space.prunable.to(parent.device)
    alive = scores[among].sort().values
    nth = len(alive) - removed(fraction, len(alive), "open_lth")
    if not nth:
        return parent & ~among
    return torch.where(among, scores > alive[len(alive) - nth - 1], parent)


def layer_counts(space: Space, mask: Bool[Tensor, "D"]) -> list[int]:
    """Weights left in each prunable layer."""
    return [int(mask[layer.coordinates].sum()) for layer in space.prunable_layers]


def _sure(
    space: Space, scores: Tensor, mask: Bool[Tensor, "D"], protect: Sequence[str], floor: int
) -> Bool[Tensor, "D"]:
    """The weights that stay for any scores of the others."""
    sure, spared = torch.zeros_like(mask), protected(space, protect)
    for layer in space.prunable_layers if spared or floor else ():
        alive = _indicator(layer, mask) & mask
        if layer.name not in spared:
            _keep_best(alive, scores, alive.clone(), min(floor, int(alive.sum())), layer.name)
        sure |= alive
    return sure


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
    if count < len(alive):
        mask[alive[lowest(scores[alive], len(alive) - count)]] = False


def lowest(scores: Float[Tensor, "n"], number: int) -> Bool[Tensor, "n"]:
    """The first ``number`` (at least 1) of a stable sort, without sorting: those below the last, and its first ties."""
    on_cpu = scores.device.type == "cpu"
    last = float(np.partition(scores.numpy(), number - 1)[number - 1]) if on_cpu else scores.kthvalue(number).values
    gone = scores <= last
    if on_cpu and int(gone.sum()) == number:  # a GPU would have to be waited for
        return gone
    below, ties = scores < last, scores == last
    return below | (ties & (ties.cumsum(0) <= number - below.sum()))
