"""The parts of a claim: a number for each level and seed, the bounds that the claim sets for its mean, and the test.

The seed is the unit. A part is tested at one level at a time, since effects at two densities may have opposite signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite, nan

import numpy as np
from numpy.typing import NDArray

from sublevel.claims.margins import FEWEST_SEEDS, INTERVAL
from sublevel.claims.query import Measured
from sublevel.stats import Estimated, estimate, inside_and_outside

FEW = f"fewer than {FEWEST_SEEDS} seeds"
EQUAL = "no spread over seeds, so no estimate of the error"
SCALES = {
    **dict.fromkeys(
        ("test error", "train error", "validation error", "error barrier", "share of the whole"), (100.0, "points")
    ),
    "share": (100.0, "%"),
}
"""Unit -> factor and name in texts. Other units are shown as they are."""
RANGES = {"rank correlation": (-1.0, 1.0)}
"""Unit -> the smallest and the largest value that it can take; an interval ends there."""


@dataclass(frozen=True, kw_only=True)
class ClaimPart:
    """One thing that a claim says: ``low`` < mean over seeds of ``measured`` < ``high``, at a density.

    ``holds`` and ``fails`` are clauses for an interval inside the bounds, and for one wholly outside; ``{}`` in them is
    replaced by the size of the effect with its unit. A part that is not ``decisive`` is shown for comparison, and one
    without bounds is shown and not tested.
    """

    name: str
    unit: str
    measured: Measured
    low: float = -inf
    high: float = inf
    holds: str = ""
    fails: str = ""
    levels: tuple[int, ...] | None = None
    """The levels at which it is read, in place of those near the fixed densities."""
    decisive: bool = True
    dense: bool = False
    """Whether it is also read at the dense network, as at a density of 100%."""
    required: bool = False
    """Whether nothing is decided without it, not even the opposite."""
    either: str = ""
    """Of the parts with the same word here one is enough."""
    floor: float = 0.0
    """For a statistic that cannot be negative: the smallest spread over seeds that it resolves. 0: no such floor."""
    neither: str = ""
    """The clause for an interval that lies neither inside nor outside; optional. With ``{}`` it tells the effect."""

    @property
    def margin(self) -> float:
        """The bound that the claim must clear; NaN for a part without bounds."""
        return self.high if isfinite(self.high) else self.low if isfinite(self.low) else nan

    @cached_property
    def present(self) -> dict[int, float]:
        """The levels that have rows, with their densities."""
        return {
            level: self.measured.density.get(level, nan) for level in sorted({at for at, _ in self.measured.values})
        }


@dataclass(frozen=True)
class Tested:
    """A part with its test at one level; without a test, ``reason`` says why and the p values are NaN.

    ``p`` tests that the mean lies inside the bounds, ``p_contrary`` that it lies outside.
    """

    part: ClaimPart
    level: int
    values: NDArray[np.float64]
    dropped: int
    found: Estimated
    p: float
    p_contrary: float
    reason: str

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The effect."""
        return self.found.mean

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The interval of the verdict, at the level `INTERVAL`, within the range of its unit."""
        low, high = self.found.interval(INTERVAL)
        least, most = RANGES.get(self.part.unit, (-inf, inf))
        return max(low, least), min(high, most)

    @property
    def low(self) -> float:
        """The lower limit."""
        return self.limits[0]

    @property
    def high(self) -> float:
        """The upper limit."""
        return self.limits[1]

    @property
    def density(self) -> float:
        """Share of the weights left."""
        return self.part.measured.density.get(self.level, nan)

    @property
    def flips(self) -> float:
        """The margin at which the reading would change: the limit of the interval on the side that decides.

        Of a part that is not decided the limit that is nearer to its margin. NaN for a part that has no margin other
        than 0.
        """
        margin = self.part.margin
        if not (margin and isfinite(margin) and isfinite(self.low)):
            return nan
        return min((self.low, self.high), key=lambda limit: abs(limit - margin))


def assess(part: ClaimPart, level: int) -> Tested:
    """Test a part over seeds at one level. A seed without a finite value is dropped, and counted."""
    cells = {seed: v for (at, seed), v in sorted(part.measured.values.items()) if at == level}
    kept = [seed for seed, v in cells.items() if isfinite(v)]
    values, dropped = np.array([cells[seed] for seed in kept]), len(cells) - len(kept)
    found = part.measured.law(level, kept) if part.measured.law and kept else None
    found = estimate(values, floor=part.floor) if found is None else found
    p, contrary = inside_and_outside(found, part.low, part.high)
    reason = ""
    if not part.measured.values:
        reason = f"not measured: no rows of {part.measured.asked}"
    elif level not in part.present:
        reason = f"not measured at level {level}"
    elif len(kept) < FEWEST_SEEDS:
        reason = FEW + (f", {dropped} dropped: a value is missing" if dropped else f", {len(kept)}")
    elif isfinite(part.margin) and not isfinite(p):
        reason = EQUAL
    p, contrary = (nan, nan) if reason else (p, contrary)
    return Tested(part, level, values, dropped, found, p, contrary, reason)


def densities_text(found: Sequence[float]) -> str:
    """Densities as percentages.

    >>> densities_text((0.3, 0.107374))
    '30%, 10.7%'
    """
    return ", ".join(f"{100 * d:.3g}%" for d in found)
