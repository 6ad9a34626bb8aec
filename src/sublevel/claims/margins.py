"""Margins, densities and confidence levels of the claims, fixed before any result is seen.

Every number that a verdict depends on is here; none is computed from results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log

ALPHA = 0.05
"""The level of each test. "Supported" and "contradicted" are one-sided tests, in opposite directions."""

INTERVAL = 1 - 2 * ALPHA
"""The level of every interval, in verdicts, comparisons, figures and tables: it lies wholly inside what a claim says
where the one-sided test at `ALPHA` says so."""

FEWEST_SEEDS = 3
"""Below this many seeds nothing is decided."""

DENSITIES = (0.3, 0.1, 0.03)
"""Shares of weights left at which claims are judged, where a study does not name its own (``claim_densities``)."""

FACTOR = 2.0
"""How far a measured density may be from the one meant, as a ratio."""

ERROR_MARGIN = 0.005
"""Largest excess test error that counts as matching, and highest error barrier that counts as zero."""

RISE_MARGIN = 0.1
"""A rise over a path's higher end by this share of the loss there is a barrier; a rise surely below it is none."""

ERROR_RESOLUTION = 0.0005
"""Smallest spread over seeds of an error that cannot be negative: one of 2,000 examples, a tenth of the margin."""

RISE_RESOLUTION = 0.01
"""Smallest spread over seeds of a relative rise: what a sampled path resolves, a tenth of the margin."""

RANK_RESOLUTION = 0.1
"""Smallest spread over seeds of a rank correlation: one exchange of neighbours among five solutions."""

LIMIT_FACTOR = 2.0
"""How far the predicted fewest weights may be from the measured ones, as a ratio, and still count as a prediction."""

PREDICTION = 0.95
"""Probability that a new dense network's loss lies below the threshold of the sublevel set."""

SMALL_FRACTION = 0.1
"""At most this share of the weights pruned at once is a small fraction."""

LARGE_FRACTION = 0.8
"""At least this share is a large fraction; those between are middle fractions."""

MIDDLE_FRACTION = 0.2
"""The middle fraction nearest to this one, the paper's, is compared with the small one."""

VOLUME = "logdet"
"""The estimator that decides on volumes at matched loss, at the middle damping; the others are for comparison."""

STEP_VOLUMES = ("rays", "logdet")
"""The estimators for the volume of a pruning step; the first that was measured decides."""

POLICIES = ("none", "recomputed", "averaged", "stored", "batch")
"""BatchNorm policies in order of preference, where a table has several."""


def match_densities(measured: Mapping[int, float], targets: Sequence[float] = DENSITIES) -> dict[float, int]:
    """Return for each target density its level: the nearest on a logarithmic scale, within `FACTOR`, none used twice.

    ``measured`` is level -> density. A density with no level that near is left out.

    >>> match_densities({level: 0.8**level for level in range(11)})
    {0.3: 5, 0.1: 10}
    >>> match_densities({level: 0.64**level for level in range(8)})
    {0.3: 3, 0.1: 5, 0.03: 7}
    """
    pairs = [
        (abs(log(density / target)), target, level)
        for target in targets
        for level, density in measured.items()
        if isfinite(density) and density > 0
    ]
    found: dict[float, int] = {}
    for distance, target, level in sorted(pairs):
        if distance <= log(FACTOR) + 1e-9 and target not in found and level not in found.values():
            found[target] = level
    return {target: found[target] for target in targets if target in found}
