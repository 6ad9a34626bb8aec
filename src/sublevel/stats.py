"""Intervals and tests over a few seeds.

No interval is made up where there is none: a single value has a mean, and NaN for its limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from sublevel.errors import ConfigError

EXACT_LIMIT = 20
"""The largest number of pairs whose 2^n sign patterns are all counted."""


@dataclass(frozen=True)
class Interval:
    """A mean with a t confidence interval; the limits are NaN below two values."""

    mean: float
    low: float
    high: float
    n: int
    level: float


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its t interval, and two-sided p values of no difference.

    ``p`` is the paired t test's; ``p_exact`` the exact sign-flip test's, at least 2^(1-n), and NaN above
    `EXACT_LIMIT` pairs.
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
    check_level(level)
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else np.nan, np.nan, np.nan, n, level)
    mean, error = float(values.mean()), standard_error(values)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Interval(mean, mean - reach, mean + reach, n, level)


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


def t_test(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p value of a mean of 0; NaN below two values or for 0 everywhere."""
    n = len(differences)
    if n < 2 or not differences.any():
        return np.nan
    error = standard_error(differences)
    return float(2 * stdtr(n - 1, -abs(differences.mean()) / error)) if error > 0 else 0.0


def sign_flip_test(differences: NDArray[np.float64]) -> float:
    """Return the share of the 2^n sign patterns whose sum is at least as far from 0 as the one seen.

    Exact under a distribution of differences that is symmetric about 0 (Fisher 1935). NaN below two values
    and above `EXACT_LIMIT`. Sums that differ only by rounding count as equal.
    """
    n = len(differences)
    if n < 2 or n > EXACT_LIMIT:
        return np.nan
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    rounding = 1e-12 * np.abs(differences).sum()
    return float(np.mean(np.abs(sums) >= abs(differences.sum()) - rounding))


def standard_error(values: NDArray[np.float64]) -> float:
    """Return s / sqrt(n), with s of n - 1 degrees of freedom; 0 where all values are equal."""
    if np.ptp(values) == 0:
        return 0.0
    return float(values.std(ddof=1) / np.sqrt(len(values)))


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
