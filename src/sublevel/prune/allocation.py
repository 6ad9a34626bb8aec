"""The number of weights left at a level, in the network or in each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from fractions import Fraction

from sublevel.errors import ConfigError, nearest, unknown
from sublevel.space import Space

SCOPES = ("global", "layer", "erk")
ROUNDINGS = ("exact", "open_lth")


def removed(fraction: float, remaining: int, rounding: str = "exact") -> int:
    """The number of ``remaining`` weights that one level removes: floor(fraction * remaining + 1/2).

    The arithmetic is exact with the fraction as written, so 0.29 of 50 weights is 14.5, and 15 are removed.
    ``rounding="open_lth"`` gives the number that the package open_lth removes from weights without ties. It keeps
    weights above ``sorted[ceil(fraction * remaining)]``, so it removes ceil(fraction * remaining) + 1, in floating
    point.

    >>> removed(0.2, 270_896), removed(0.5, 1), removed(0.2, 270_896, "open_lth")
    (54179, 1, 54181)
    """
    if rounding not in ROUNDINGS:
        raise unknown("rounding", rounding, ROUNDINGS)
    if rounding == "open_lth":
        return min(remaining, math.ceil(fraction * remaining) + 1)
    return math.floor(Fraction(str(fraction)) * remaining + Fraction(1, 2))


def counts(
    space: Space,
    fraction: float,
    level: int,
    scope: str = "global",
    *,
    rounding: str = "exact",
    protect: Sequence[str] = (),
    floor: int = 0,
) -> list[int]:
    """Weights left after ``level`` levels: [total] for the scope ``global``, else one number per prunable layer.

    ``layer`` removes the fraction from every layer; ``erk`` distributes the global count (see `erk`). Layers that match
    a pattern of ``protect`` keep all their weights, and every layer keeps at least ``floor`` weights. With ``global``
    and ``erk`` the total does not change, and the other layers lose more.

    Raises ConfigError for an unknown scope or rounding, a pattern that matches no layer, or a total below the protected
    weights.
    """
    if scope not in SCOPES:
        raise unknown("pruning scope", scope, SCOPES)
    sizes = [layer.size for layer in space.prunable_layers]
    left = sizes if scope == "layer" else [sum(sizes)]
    for _ in range(level):
        left = [n - removed(fraction, n, rounding) for n in left]
    return _shared_out(space, left, scope, protect, floor, f"level {level}")


def counts_at(
    space: Space, density: float, scope: str = "global", *, protect: Sequence[str] = (), floor: int = 0
) -> list[int]:
    """Weights left at a density, floor(density * n + 1/2) of n; everything else as in `counts`.

    >>> from sublevel.space import Layer
    >>> counts_at(Space((Layer("a", (10,), 0, True), Layer("b", (30,), 10, True)), (), ()), 0.29)
    [12]
    """
    if scope not in SCOPES:
        raise unknown("pruning scope", scope, SCOPES)
    sizes = [layer.size for layer in space.prunable_layers]
    left = [
        math.floor(Fraction(str(density)) * n + Fraction(1, 2)) for n in (sizes if scope == "layer" else [sum(sizes)])
    ]
    return _shared_out(space, left, scope, protect, floor, f"density {density:g}")


def _shared_out(space: Space, left: list[int], scope: str, protect: Sequence[str], floor: int, where: str) -> list[int]:
    """The counts of a scope from its total, or from the counts of its layers, with protected weights and the floor."""
    low = least(space, protect, floor)
    if scope == "layer":
        return [max(n, m) for n, m in zip(left, low, strict=True)]
    if sum(low) > left[0]:
        raise ConfigError(
            f"{where} leaves {left[0]} weights, fewer than the {sum(low)} that protect = {list(protect)} and "
            f"floor = {floor} keep"
        )
    return left if scope == "global" else erk(space, left[0], low)


def least(space: Space, protect: Sequence[str] = (), floor: int = 0) -> list[int]:
    """The fewest weights of each prunable layer: all if it is protected, else ``floor``."""
    spared = protected(space, protect)
    return [x.size if x.name in spared else min(floor, x.size) for x in space.prunable_layers]


def protected(space: Space, patterns: Sequence[str]) -> list[str]:
    """The prunable layers that match a pattern, with shell wildcards, by the name of the weight or of its module.

    Raises ConfigError for a pattern without a match, or if nothing is left to prune.
    """
    layers, found = list(space.prunable_layers), set()
    for pattern in patterns:
        hit = {x.name for x in layers if any(fnmatchcase(n, pattern) for n in (x.name, x.name.rpartition(".")[0]))}
        if not hit:
            raise ConfigError(
                f"protect: {pattern!r} matches no prunable layer{nearest(pattern, [layer.name for layer in layers])}"
            )
        found |= hit
    if len(found) == len(layers):
        raise ConfigError(f"protect = {list(patterns)} covers every prunable layer: nothing is left to prune")
    return [layer.name for layer in layers if layer.name in found]


def erk(space: Space, total: int, low: Sequence[int] | None = None) -> list[int]:
    """Erdos-Renyi-Kernel counts: densities proportional to ``sum(shape) / prod(shape)`` (Evci et al. 1911.11134).

    A layer whose density would exceed 1 keeps all its weights, and the others share the rest. ``low`` are the fewest
    weights of the layers. The counts add up to ``total`` exactly, and none falls as the total rises.

    >>> from sublevel.space import Layer
    >>> net = Space((Layer("a", (10, 10), 0, True), Layer("b", (100, 100), 100, True)), (), ())
    >>> erk(net, 220), erk(net, 2200)
    ([20, 200], [100, 2100])
    """
    layers = list(space.prunable_layers)
    sizes = [layer.size for layer in layers]
    return apportion(total, [sum(layer.shape) for layer in layers], low or [0] * len(layers), sizes)


def apportion(total: int, shares: Sequence[float], low: Sequence[int], high: Sequence[int]) -> list[int]:
    """Whole numbers nearest to ``c * shares`` within [low, high], with c such that they add up to ``total``.

    If several would step up at the same c, the first ones do. With one c for all (Webster's method) no number falls as
    the total rises, so counts of successive levels are nested.

    >>> apportion(7, [1.0, 1.0, 1.0], [0, 0, 0], [9, 9, 1])
    [3, 3, 1]
    """
    if not sum(low) <= total <= sum(high):
        raise ConfigError(f"{total} weights cannot be shared out among layers that hold {sum(low)} to {sum(high)}")

    def at(c: float) -> list[int]:
        return [min(max(math.floor(c * s + 0.5), a), b) for s, a, b in zip(shares, low, high, strict=True)]

    below, above = 0.0, 2 * max(b / s for s, b in zip(shares, high, strict=True)) + 1
    while below < (middle := (below + above) / 2) < above:
        below, above = (middle, above) if sum(at(middle)) <= total else (below, middle)
    found = at(below)
    for i, more in enumerate(at(above)):
        found[i] += min(more - found[i], total - sum(found))
    return found
