"""Compares the curvature of two sets of coordinates by ranks: independent of scale, outliers and numbers of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np

from sublevel._types import Bool, Float, Tensor
from sublevel.space import Space


@dataclass(frozen=True)
class Steeper:
    """The probability that a coordinate of one set is steeper than one of another.

    ``value`` is the mean over ``layers`` layers with equal weight, ``se`` the error from the draws of the diagonal.
    """

    value: float
    se: float
    layers: int


def steeper(
    space: Space,
    diagonals: Sequence[Float[Tensor, "D"]],
    one: Bool[Tensor, "D"],
    other: Bool[Tensor, "D"],
) -> Steeper:
    """The probability that a coordinate of ``one`` has a larger diagonal entry than one of ``other``, layer by layer.

    In a layer it is the area under the ROC curve, U / (n m) with Mann and Whitney's U; ties count half, and 1/2 means
    that neither is steeper. Layers that lack one of the sets are omitted; without any layer the value is nan.
    ``diagonals`` is one exact diagonal, or several independent estimates; their mean is ranked, and the jackknife over
    them gives the error. Noise in the entries pulls the value towards 1/2.

    Raises ValueError without a diagonal.
    """
    if not diagonals:
        raise ValueError("a rank needs a diagonal")
    pairs = [
        (layer.coordinates, one[layer.coordinates].cpu().numpy(), other[layer.coordinates].cpu().numpy())
        for layer in space.prunable_layers
    ]
    pairs = [(where, a, b) for where, a, b in pairs if a.any() and b.any()]
    if not pairs:
        return Steeper(nan, nan, 0)

    def mean(values: Tensor) -> float:
        seen = [values[where].double().cpu().numpy() for where, _, _ in pairs]
        return float(np.mean([above(v[a], v[b]) for v, (_, a, b) in zip(seen, pairs, strict=True)]))

    n, total = len(diagonals), sum(diagonals[1:], diagonals[0])
    if n == 1:
        return Steeper(mean(total), 0.0, len(pairs))
    without = np.array([mean(total - each) for each in diagonals])
    return Steeper(mean(total), sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum())), len(pairs))


def above(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "m"]) -> float:
    """The share of pairs (x of a, y of b) with x > y, ties counted half.

    >>> above(np.array([3.0, 1.0]), np.array([1.0, 0.0]))
    0.875
    """
    whole = np.concatenate([a, b])
    return float((_ranks(whole)[: len(a)].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def rank_correlation(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Spearman's rank correlation; nan if one argument is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
    1.0
    """
    x, y = (_ranks(v) - (len(v) + 1) / 2 for v in (a, b))
    norms = float((x @ x) * (y @ y))
    return round(float(x @ y) / sqrt(norms), 12) if norms else nan


def _ranks(v: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(v, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
