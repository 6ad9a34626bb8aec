"""A number that was drawn: its value, its standard error, and what is needed to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan, sqrt

SKEWED = 6
"""Where fewer eigenvalues than this carry the error, a t interval from a few probes covers less than 95%."""


@dataclass(frozen=True)
class Estimate:
    """The mean of ``draws`` independent estimates, with its standard error.

    ``se`` is s / sqrt(draws) with the sample deviation s: nan for a single draw, 0 where nothing was drawn (``draws``
    = 0, the value is exact). A t interval with draws - 1 degrees of freedom goes with it. ``products`` counts Hessian
    products; ``reason`` says why the value is not to be trusted, and is empty otherwise.
    """

    value: float
    se: float
    draws: int
    products: int = 0
    reason: str = ""
    diagnostics: Mapping[str, object] = field(default_factory=dict)


def mean_and_se(values: Sequence[float]) -> tuple[float, float]:
    """The mean of independent draws and its standard error.

    >>> mean_and_se([1.0, 3.0])
    (2.0, 1.0)
    """
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, nan
    return mean, sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
