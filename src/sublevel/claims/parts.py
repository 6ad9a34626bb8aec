"""The parts of a claim: a number for each seed, what the claim says of its mean, and the test of that.

The seed is the unit. Levels are repeated measures: the values at the chosen densities are averaged within a seed, and
the test is over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite, nan

import numpy as np
from numpy.typing import NDArray

from sublevel.claims.margins import ALPHA, DENSITIES, FACTOR, FEWEST_SEEDS, INTERVAL, match_densities
from sublevel.claims.query import Measured
from sublevel.stats import mean_interval, no_spread, outside, within

FEW = f"fewer than {FEWEST_SEEDS} seeds"
EQUAL = "no spread over seeds, so no estimate of the error"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that a claim says: ``low`` < mean over seeds of ``measured`` < ``high``.

    ``holds`` and ``fails`` say in words what it means for the interval to lie inside, or wholly outside. Without
    ``levels`` the values are averaged over `DENSITIES`. A part that is not ``decisive`` is reported beside the claim.
    """

    name: str
    unit: str
    measured: Measured
    low: float = -inf
    high: float = inf
    holds: str
    fails: str
    levels: tuple[int, ...] | None = None
    decisive: bool = True
    neither: str = ""
    """What it means for the interval to lie neither inside nor outside, where that is worth a word."""

    @property
    def margin(self) -> float:
        """The bound that the claim must clear."""
        return self.high if isfinite(self.high) else self.low

    @cached_property
    def present(self) -> dict[int, float]:
        """The levels that have rows, with their densities."""
        return {
            level: self.measured.density.get(level, nan) for level in sorted({at for at, _ in self.measured.values})
        }

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """The levels that are averaged."""
        if self.levels is not None:
            return tuple(level for level in self.levels if level in self.present)
        return tuple(match_densities(self.present).values())

    @property
    def unreached(self) -> tuple[float, ...]:
        """The densities that no level is near."""
        return () if self.levels is not None else tuple(d for d in DENSITIES if d not in match_densities(self.present))


@dataclass(frozen=True)
class Tested:
    """A part with its test; ``reason`` says why there is none, and p values are then NaN.

    ``p`` is that of what the part says, ``p_contrary`` that of a mean outside its bounds.
    """

    part: Part
    levels: tuple[int, ...]
    values: NDArray[np.float64]
    left_out: int
    mean: float
    low: float
    high: float
    p: float
    p_contrary: float
    reason: str

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def measured(self) -> bool:
        """Whether there is anything at the levels asked for."""
        return bool(self.levels)

    def reading(self, alpha: float) -> str:
        """What it says at a level of significance."""
        if self.reason:
            return self.reason if not self.measured else f"not decided: {self.reason}"
        if self.p <= alpha:
            return self.part.holds
        if self.p <= ALPHA:
            return f"{self.part.holds} by itself, not at the {alpha:.2g} that Holm's correction leaves"
        return self.part.fails if self.p_contrary <= alpha else self.part.neither or f"not decided by {self.n} seeds"


def assess(part: Part, levels: Sequence[int] | None = None) -> Tested:
    """Test a part over seeds, at its own levels or at those given.

    A seed without a finite value at each of the levels is left out, and counted.
    """
    chosen = part.chosen if levels is None else tuple(levels)
    values, left_out = by_seed(part, chosen)
    interval = mean_interval(values, INTERVAL)
    reason = _why_not(part, chosen, values, left_out)
    p, contrary = (nan, nan) if reason else (within(values, part.low, part.high), outside(values, part.low, part.high))
    return Tested(part, chosen, values, left_out, interval.mean, interval.low, interval.high, p, contrary, reason)


def by_seed(part: Part, levels: Sequence[int]) -> tuple[NDArray[np.float64], int]:
    """Return the means over the levels of the seeds that have them all, and how many have not."""
    cells = part.measured.values
    seeds = sorted({seed for level, seed in cells if level in levels})
    lines = np.array([[cells.get((level, seed), nan) for level in levels] for seed in seeds])
    if not len(lines):
        return np.zeros(0), 0
    whole = np.isfinite(lines).all(axis=1)
    return lines[whole].mean(axis=1), int((~whole).sum())


def _why_not(part: Part, levels: Sequence[int], values: NDArray[np.float64], left_out: int) -> str:
    """Why there is no test, in words; empty where there is one."""
    if not part.measured.values:
        return f"not measured: no rows of {part.measured.asked}"
    if not levels:
        return (
            f"not measured: no level within a factor of {FACTOR:g} of {densities_text(DENSITIES)} of the weights left"
        )
    if len(values) < FEWEST_SEEDS:
        return FEW + (f" with a finite value at every level, {left_out} left out" if left_out else f", {len(values)}")
    return EQUAL if no_spread(values) else ""


def densities_text(found: Sequence[float]) -> str:
    """Densities as percentages.

    >>> densities_text((0.3, 0.107374))
    '30%, 10.7%'
    """
    return ", ".join(f"{100 * d:.3g}%" for d in found)
