"""What every claim is judged by, fixed before any result is seen: margins, densities, levels of confidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite, log, sqrt
from statistics import variance

ALPHA = 0.05
"""The level of each test. "Supported" and "contradicted" are one-sided tests, in opposite directions."""

INTERVAL = 1 - 2 * ALPHA
"""The level of a verdict's interval: it lies wholly inside what the claim says where the test at `ALPHA` says so."""

LEVEL = 0.95
"""The level of the intervals of single comparisons."""

FEWEST_SEEDS = 3
"""Below this many seeds nothing is decided."""

DENSITIES = (0.3, 0.1, 0.03)
"""Shares of weights left at which claims are judged."""

FACTOR = 2.0
"""How far a measured density may be from the one meant, as a ratio."""

ERROR_MARGIN = 0.005
"""How much worse a test error still counts as matching: 0.5 points."""

ERROR_BARRIER = 0.02
"""How high an error barrier still counts as zero: 2 points."""

LOSS_BARRIER = 0.01
"""How high a loss barrier counts as zero at least; see `loss_margin`."""

LOSS_SPREADS = 2.0
"""Standard deviations of end-point losses below which a loss barrier counts as zero."""

PREDICTION = 0.95
"""With which probability a new dense network's loss lies below the threshold of its sublevel set."""

SMALL_FRACTION = 0.1
"""At most this share of the weights pruned at once is a small fraction."""

LARGE_FRACTION = 0.8
"""At least this share is a large one."""

POLICIES = ("none", "recomputed", "averaged", "stored", "batch")
"""Which treatment of BatchNorm's statistics is read where a table has several: the first of these."""


def match_densities(measured: Mapping[int, float]) -> dict[float, int]:
    """Return for each of `DENSITIES` its level: the nearest on a logarithmic scale, within `FACTOR`, none used twice.

    ``measured`` is level -> density. A density with no level that near is left out.

    >>> match_densities({level: 0.8**level for level in range(11)})
    {0.3: 5, 0.1: 10}
    """
    pairs = [
        (abs(log(density / target)), target, level)
        for target in DENSITIES
        for level, density in measured.items()
        if isfinite(density) and density > 0
    ]
    found: dict[float, int] = {}
    for distance, target, level in sorted(pairs):
        if distance <= log(FACTOR) + 1e-9 and target not in found and level not in found.values():
            found[target] = level
    return {target: found[target] for target in DENSITIES if target in found}


def loss_margin(groups: Iterable[Iterable[float]]) -> float:
    """Return max(0.01, 2 sd) for groups of end-point losses, each over the seeds of one level.

    The variances of groups of two finite losses or more are averaged.

    >>> loss_margin([[1.0, 2.0, 3.0], [1.0]]), loss_margin([[0.1, 0.1]])
    (2.0, 0.01)
    """
    finite = [[loss for loss in group if isfinite(loss)] for group in groups]
    spreads = [variance(group) for group in finite if len(group) > 1]
    return max(LOSS_BARRIER, LOSS_SPREADS * sqrt(sum(spreads) / len(spreads)) if spreads else 0.0)
