"""Intervals, bounds and tests over a few seeds; corrections for several of them.

Everything rests on Student's t, which is exact for normal differences at any n, and the exact sign-flip test. There
is no bootstrap: its percentile "95%" interval covers 49% at n = 2, 75% at 3 and 84% at 5.

Two sources of error are crossed where per-example results are there: seeds and test examples (`crossed`). A threshold
that is itself estimated enters with its own error (`Excess`).

No interval is made up where there is none. A single value has a mean, and NaN for its limits; so have n equal values,
unless the resolution of the measurement is known and serves as a floor of their spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite, nan, sqrt
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, ndtri, stdtr, stdtrit

from sublevel.errors import ConfigError

Alternative = Literal["two-sided", "greater", "less"]

EXACT_LIMIT = 20
"""The largest number of pairs whose 2^n sign patterns are all counted."""

NODES = 400
"""Quantiles over which `Excess` takes its mean; ten times as many change a p value by less than 1e-3."""


@dataclass(frozen=True)
class Interval:
    """A mean with a t confidence interval; the limits are NaN below two values and where all are equal."""

    mean: float
    low: float
    high: float
    n: int
    level: float


class Estimated(Protocol):
    """An estimate of one number: tests and intervals are asked of it, whatever law it has."""

    @property
    def mean(self) -> float:
        """The estimate."""
        ...

    @property
    def kind(self) -> str:
        """Over what the interval is: such as ``seeds``."""
        ...

    def below(self, bound: float) -> float:
        """The one-sided p value of the claim that the number lies below ``bound``; NaN without an error."""
        ...

    def above(self, bound: float) -> float:
        """The one-sided p value of the claim that it lies above ``bound``."""
        ...

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided limits at a level of confidence; NaN without an error."""
        ...


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its standard error, to be read by Student's t with ``df`` degrees of freedom.

    >>> found = estimate([1.0, 2.0, 3.0])
    >>> round(found.above(0.0), 4), [round(x, 3) for x in found.interval(0.95)]
    (0.0371, [-0.484, 4.484])
    """

    mean: float
    se: float
    df: float
    kind: str = "seeds"

    def below(self, bound: float) -> float:
        """P(T < (mean - bound) / se)."""
        return float(stdtr(self.df, (self.mean - bound) / self.se)) if self._sure else nan

    def above(self, bound: float) -> float:
        """P(T > (mean - bound) / se)."""
        return float(stdtr(self.df, (bound - self.mean) / self.se)) if self._sure else nan

    def interval(self, level: float) -> tuple[float, float]:
        """Mean ± t se."""
        check_level(level)
        reach = float(stdtrit(self.df, (1 + level) / 2)) * self.se if self._sure else nan
        return self.mean - reach, self.mean + reach

    @property
    def _sure(self) -> bool:
        return self.df > 0 and self.se > 0


def estimate(x: ArrayLike, *, floor: float = 0.0) -> MeanEstimate:
    """Return the mean of ``x`` with s / sqrt(n) of n - 1 degrees of freedom.

    ``floor`` is the smallest difference that the measurement resolves: s is at least that. So n equal values have an
    error if the resolution is known, and none (NaN) if it is not. Raises ConfigError for values that are not finite.

    >>> estimate([0.0, 0.0, 0.0]).below(0.1), estimate([0.0, 0.0, 0.0], floor=0.01).below(0.1) < 0.05
    (nan, True)
    """
    values = finite(x)
    n = len(values)
    spread = 0.0 if n < 2 or no_spread(values) else float(values.std(ddof=1))
    spread = max(spread, floor)
    return MeanEstimate(float(values.mean()) if n else nan, spread / sqrt(n) if n > 1 and spread else nan, float(n - 1))


def crossed(d: ArrayLike, mean: float | None = None) -> MeanEstimate:
    """Return the mean of paired differences ``d`` [seeds, examples], for new seeds *and* new examples.

    Two-way random effects without replication, d_ij = mu + a_i + b_j + e_ij: Var(mean) = var_a / n + var_b / m +
    var_e / (n m), estimated without bias by (MS_a + MS_b - MS_e) / (n m), with MS_a = m sum_i (d_i. - d..)^2 / (n - 1),
    MS_b = n sum_j (d_.j - d..)^2 / (m - 1) and the residual mean square MS_e. A negative part of the examples,
    MS_b < MS_e, counts as 0. Degrees of freedom by Satterthwaite (1946). This is the quasi-F of Clark (1973, "The
    language-as-fixed-effect fallacy"), with seeds for subjects and examples for words. An interval over seeds alone
    holds for the test set at hand; this one for another test set of the same size too.

    ``mean`` takes the place of the mean of d. NaN below two seeds or examples.

    >>> d = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    >>> found = crossed(d)
    >>> found.mean, round(found.se, 4), found.kind  # examples differ more than seeds do
    (0.3333333333333333, 0.2357, 'seeds and test examples')
    """
    values = np.asarray(d, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ConfigError(f"crossed needs finite differences [seeds, examples], got shape {values.shape}")
    n, m = values.shape
    grand = float(values.mean()) if values.size else nan
    centre = grand if mean is None else mean
    kind = "seeds and test examples"
    if n < 2 or m < 2:
        return MeanEstimate(centre, nan, nan, kind)
    rows, columns = values.mean(1) - grand, values.mean(0) - grand
    of_seeds = m * float(rows @ rows) / (n - 1)
    of_examples = n * float(columns @ columns) / (m - 1)
    total = float(((values - grand) ** 2).sum())
    rest = max(total - (n - 1) * of_seeds - (m - 1) * of_examples, 0.0) / ((n - 1) * (m - 1))
    parts = [(of_seeds, n - 1)]
    if of_examples > rest:
        parts += [(of_examples, m - 1), (-rest, (n - 1) * (m - 1))]
    variance = sum(square for square, _ in parts)
    if variance <= 0:
        return MeanEstimate(centre, nan, nan, kind)
    df = variance**2 / sum(square**2 / free for square, free in parts)
    return MeanEstimate(centre, sqrt(variance / (n * m)), df, kind)


@dataclass(frozen=True)
class Excess:
    """How far the mean of ``values`` lies above the ``level`` quantile of ``reference``, with the error of both.

    The quantile mu + z sigma is estimated from few reference values, so its error is of the size of sigma. With
    D = mean(values) - mean(reference), its standard error by pairs, and C chi-squared of m - 1 degrees, the generalised
    pivot D - se T - z s sqrt((m - 1) / C) has the law of the excess given the data (Weerahandi 1993); p values and
    limits are read off it. ``values`` and the first of ``reference`` are pairs; more references sharpen s alone.
    ``mean`` is the excess over `prediction_bound`, below which a new reference value lies with that probability.

    >>> found = Excess((1.0, 1.1, 1.3), (1.0, 1.2, 1.1, 1.3))
    >>> found.below(0.0) < 0.05, found.above(0.0) > 0.9
    (False, True)
    """

    values: tuple[float, ...]
    reference: tuple[float, ...]
    level: float = 0.95
    kind: str = "seeds, with the error of the threshold"

    @property
    def mean(self) -> float:
        """The mean of the values, over the prediction bound of the reference."""
        return float(np.mean(self.values)) - prediction_bound(self.reference, self.level)

    @cached_property
    def _law(self) -> tuple[float, float, int, NDArray[np.float64]] | None:
        n, m = len(self.values), len(self.reference)
        error = estimate(finite(self.values) - finite(self.reference[:n])).se
        spread = float(finite(self.reference).std(ddof=1)) if m > 1 else 0.0
        if not isfinite(error) or not spread:
            return None
        u = (np.arange(NODES) + 0.5) / NODES
        return (
            float(np.mean(self.values) - np.mean(self.reference)),
            error,
            n - 1,
            ndtri(self.level) * spread * np.sqrt((m - 1) / chdtri(m - 1, u)),
        )

    def below(self, bound: float) -> float:
        """The share of the pivot above ``bound``."""
        return 1 - self.above(bound)

    def above(self, bound: float) -> float:
        """The share of the pivot below ``bound``."""
        if self._law is None:
            return nan
        difference, error, df, reach = self._law
        return float(np.mean(stdtr(df, (bound - difference + reach) / error)))

    def interval(self, level: float) -> tuple[float, float]:
        """Quantiles of the pivot."""
        check_level(level)
        if self._law is None:
            return nan, nan
        difference, error, df, reach = self._law
        tail = (1 - level) / 2
        far = error * float(stdtrit(df, 1 - tail / 2))
        ends = difference - float(reach.max()) - far, difference - float(reach.min()) + far
        low, high = (
            float(brentq(lambda x, q=q: self.above(x) - q, *ends, xtol=1e-5 * error))  # pyright: ignore
            for q in (tail, 1 - tail)
        )
        return low, high


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its t interval, and two-sided p values of no difference.

    ``p`` is the paired t test's; ``p_exact`` the exact sign-flip test's, at least 2^(1-n), and NaN above
    `EXACT_LIMIT` pairs. Limits and ``p`` are NaN where all differences are equal.
    """

    effect: float
    low: float
    high: float
    n: int
    p: float
    p_exact: float


def mean_interval(x: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of ``x`` and mean ± t s / sqrt(n), with t of n - 1 degrees of freedom.

    Raises ConfigError for values that are missing or infinite: drop them where it is known why.

    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> round(found.low, 3), found.mean, round(found.high, 3)
    (-0.484, 2.0, 4.484)
    """
    values = finite(x)
    found = estimate(values)
    return Interval(found.mean, *found.interval(level), len(values), level)


def paired(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Paired:
    """Compare ``a`` with ``b``, pair by pair: the effect is the mean of a - b.

    Raises ConfigError unless both have the same length and only finite values.

    >>> paired([2.0, 3.0, 5.0], [1.0, 1.0, 2.0]).effect
    2.0
    """
    first, second = finite(a), finite(b)
    if len(first) != len(second):
        raise ConfigError(f"paired samples must have the same length; got {len(first)} and {len(second)}")
    differences = first - second
    interval = mean_interval(differences, level)
    return Paired(
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        p=t_test(differences),
        p_exact=sign_flip_test(differences),
    )


def t_test(x: ArrayLike, alternative: Alternative = "two-sided", *, against: float = 0.0) -> float:
    """Return the p value of a mean of ``against``, with t = (mean - against) / (s / sqrt(n)) of n - 1 degrees.

    ``greater`` and ``less`` name the alternative: a mean above, or below, ``against``. NaN below two values and
    where all values are equal.

    >>> round(t_test([1.0, 2.0, 3.0], "greater"), 4)
    0.0371
    """
    found = estimate(x)
    above, below = found.above(against), found.below(against)
    return {"greater": above, "less": below, "two-sided": 2 * min(above, below)}[alternative]


def within(x: ArrayLike, low: float = -inf, high: float = inf) -> float:
    """Return the p value of the claim that the mean lies strictly between ``low`` and ``high``.

    The larger of two one-sided t tests (TOST, Schuirmann 1987), so p <= alpha where the 1 - 2 alpha interval lies
    inside. With one bound infinite it is a test of superiority over ``low``, or of non-inferiority below ``high``.

    >>> within([0.1, -0.2, 0.1], -1, 1) < 0.05 < within([0.1, -0.2, 0.1], -0.1, 0.1)
    True
    """
    return inside_and_outside(estimate(x), low, high)[0]


def outside(x: ArrayLike, low: float = -inf, high: float = inf) -> float:
    """Return the p value of the contrary of `within`: a mean below ``low``, or above ``high``.

    The smaller of two one-sided tests. Both sides cannot be near at once unless the bounds are closer together
    than a few standard errors, where this is up to twice as liberal as it says.
    """
    return inside_and_outside(estimate(x), low, high)[1]


def inside_and_outside(found: Estimated, low: float, high: float) -> tuple[float, float]:
    """Return the p values of `within` and of `outside` for any estimate; NaN where neither bound is finite."""
    if not low < high:
        raise ConfigError(f"the lower bound {low} must lie below the upper bound {high}")
    sides = [(found.above, found.below, low), (found.below, found.above, high)]
    ps = [(inside(bound), outside(bound)) for inside, outside, bound in sides if isfinite(bound)] or [(nan, nan)]
    return max(p for p, _ in ps), min(q for _, q in ps)


def equivalence(x: ArrayLike, margin: float) -> float:
    """Return the p value of the claim that the mean is within ± ``margin`` of 0; see `within`."""
    return within(x, -margin, margin)


def prediction_bound(x: ArrayLike, level: float = 0.95) -> float:
    """Return the upper bound of one new value: mean + t_{n-1, level} s sqrt(1 + 1/n) (Hahn and Meeker 1991, 4.8).

    A new draw from the same normal distribution lies below it with probability ``level``. NaN below two values.

    >>> round(prediction_bound([1.0, 2.0, 3.0]), 3)
    5.372
    """
    values = finite(x)
    check_level(level)
    n = len(values)
    if n < 2:
        return np.nan
    return float(values.mean() + stdtrit(n - 1, level) * values.std(ddof=1) * np.sqrt(1 + 1 / n))


def fixed_sequence(p: ArrayLike, alpha: float = 0.05) -> int:
    """Return how many hypotheses, tested in the order given, are rejected before the first that is not.

    Each is tested at ``alpha``, which holds over all of them (Maurer et al. 1995). NaN ends the sequence.

    >>> fixed_sequence([0.01, 0.04, 0.2, 0.001])
    2
    """
    passed = np.asarray(p, dtype=np.float64).ravel() <= alpha
    return int(len(passed) if passed.all() else passed.argmin())


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's (1979) adjusted p values; NaN stays NaN, and counts for nothing.

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    adjusted = np.full(len(values), np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return adjusted


def sign_flip_test(x: ArrayLike, alternative: Alternative = "two-sided") -> float:
    """Return the share of the 2^n sign patterns whose sum is at least as far out as the one seen.

    Exact under a distribution of differences that is symmetric about 0 (Fisher 1935). NaN below two values
    and above `EXACT_LIMIT`. Sums that differ only by rounding count as equal.

    >>> sign_flip_test([1.0, 2.0, 3.0]), sign_flip_test([1.0, 2.0, 3.0], "greater")
    (0.25, 0.125)
    """
    differences = finite(x)
    n = len(differences)
    if n < 2 or n > EXACT_LIMIT:
        return np.nan
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    seen, rounding = differences.sum(), 1e-12 * np.abs(differences).sum()
    if alternative == "two-sided":
        return float(np.mean(np.abs(sums) >= abs(seen) - rounding))
    sign = 1.0 if alternative == "greater" else -1.0
    return float(np.mean(sign * sums >= sign * seen - rounding))


def no_spread(values: NDArray[np.float64]) -> bool:
    """Whether all values are equal, but for rounding."""
    return len(values) > 0 and bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def finite(x: ArrayLike) -> NDArray[np.float64]:
    """Return ``x`` as a flat float64 array; raise ConfigError for NaN or infinity."""
    values: NDArray[Any] = np.asarray(x, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        raise ConfigError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are NaN or infinite")
    return values


def check_level(level: float) -> None:
    """Refuse a confidence level outside (0, 1), such as 95."""
    if not 0 < level < 1:
        raise ConfigError(f"confidence level is {level}; it must lie between 0 and 1, such as 0.95")
