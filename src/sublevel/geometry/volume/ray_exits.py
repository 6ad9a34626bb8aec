"""The first exit of a ray from a sublevel set, in a bracket of a given width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, isfinite, isinf, isnan, log

LEAD = 4.0
"""Steps of ``growth`` start at a quarter of the exit of the previous ray."""

NEAR = 16.0
"""Doublings start this factor closer in, since walls differ from ray to ray."""

NEAREST = 2.0**20
"""The search of the first ray starts at the cap divided by this."""


@dataclass(frozen=True)
class Exit:
    """The exit of a ray: log r in units of its direction, or that of the cap if the ray does not leave."""

    log_radius: float
    capped: bool
    evaluations: int


def first_exit(rise: Callable[[float], float], *, cap: float, guess: float, growth: float, tolerance: float) -> Exit:
    """The first t at which ``rise(t)`` exceeds 1, with log t in a bracket no wider than ``tolerance``.

    The search doubles from a near point (nearer while that is outside) to a quarter of ``guess``, then grows by factors
    of ``growth`` until it is outside or at ``cap``. It finds walls that are wider than a step. With an infinite guess
    all steps grow by ``growth``. Secants in log t and log rise, which are exact for powers of t, then close the
    bracket, and bisection if they do not help. Values that overflow are outside.

    Raises FloatingPointError if a nan decides the exit.
    """
    count = 1
    fine = cap / NEAREST if isinf(guess) else min(guess, cap) / LEAD
    low = fine if isinf(guess) else fine / NEAR
    while not (at_low := rise(low)) <= 1:
        low, count = low / LEAD, count + 1
    while True:
        high = min(low * growth, cap) if low >= fine else min(low * 2, fine)
        at_high, count = rise(high), count + 1
        if not at_high <= 1:
            break
        if high == cap:
            return Exit(log(cap), True, count)
        low, at_low = high, at_high
    x, used = _close(lambda x: rise(exp(x)), log(low), log(high), at_low, at_high, tolerance)
    return Exit(x, False, count + used)


def _close(
    rise: Callable[[float], float], low: float, high: float, at_low: float, at_high: float, tolerance: float
) -> tuple[float, int]:
    """The middle of a bracket of width ``tolerance``, and the number of evaluations."""
    count, slow = 0, 0
    while high - low > tolerance:
        width = high - low
        x = _secant(low, high, at_low, at_high) if slow < 2 else (low + high) / 2
        x = min(max(x, low + tolerance / 2), high - tolerance / 2)
        value, count = rise(x), count + 1
        if value <= 1:
            low, at_low = x, value
        else:
            high, at_high = x, value
        slow = slow + 1 if high - low > width / 2 else 0
    if isnan(at_high):
        raise FloatingPointError(f"the loss is not a number from {exp(high):.3g} on along a ray, and low before")
    return (low + high) / 2, count


def _secant(low: float, high: float, at_low: float, at_high: float) -> float:
    """The zero of the line through (low, log at_low) and (high, log at_high); the middle if it has none between."""
    if at_low <= 0 or not isfinite(at_high):
        return (low + high) / 2
    below, above = log(at_low), log(at_high)
    return low + (high - low) * below / (below - above) if above > below else (low + high) / 2
