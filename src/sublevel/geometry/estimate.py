"""Estimates: a value with its standard error, and the reasons not to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan, sqrt

from sublevel.display import Shown, with_error

SKEWED = 6
"""If fewer eigenvalues than this carry the error, a 95% t interval from a few probes covers less than 95%."""


@dataclass(frozen=True, repr=False)
class Estimate(Shown):
    """The mean of ``draws`` independent estimates, with its standard error.

    ``se`` is s / sqrt(draws) with the sample deviation s; it belongs to a t interval with draws - 1 degrees of freedom.
    It is nan for a single draw, and 0 if nothing was drawn (``draws`` = 0, the value is exact). ``products`` counts
    Hessian products. ``reason`` says why the value is not reliable; it is empty if no check failed.
    """

    value: float
    se: float
    draws: int
    products: int = 0
    reason: str = ""
    diagnostics: Mapping[str, object] = field(default_factory=dict)

    def _facts(self) -> dict[str, object]:
        return {"": with_error(self.value, self.se), "draws": self.draws, "caution:": self.reason}


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


def join_reasons(reasons: Mapping[str, object]) -> str:
    """Join the reasons whose condition holds, in order.

    >>> join_reasons({"too few": True, "too many": False})
    'too few'
    """
    return "; ".join(text for text, holds in reasons.items() if text and holds)
