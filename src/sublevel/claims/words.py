"""Sentences to quote, with numbers rounded from their error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sublevel.claims.margins import ALPHA, INTERVAL
from sublevel.claims.parts import Tested, densities_text
from sublevel.stats import Alternative, effect_size, sign_flip_test

if TYPE_CHECKING:
    from sublevel.claims.combine import Outcome

POINTS = ("test error", "error barrier")
"""Units that are fractions, and are told in points."""


def quotable(statement: str, verdict: str, outcome: Outcome, shown: Tested) -> str:
    """One sentence: the claim, its verdict, and the effect, interval, seeds and densities of the part shown."""
    head = f"{statement.rstrip('.')}: {verdict}"
    if outcome.beyond and verdict == "supported":
        head += f", {outcome.beyond}"
    if verdict == "not measured":
        return f"{head}."
    if not shown.n:
        return f"{head}: {shown.reason}."
    return f"{head}; {found(shown, verdict)}, {_interval(shown)} ({details(shown)})."


def found(t: Tested, verdict: str) -> str:
    """What the part shown says in a few words; in an undecided claim what it says alone is said to be that."""
    reading = t.reading(ALPHA)
    return f"{reading} by itself" if verdict == "undecided" and reading in (t.part.holds, t.part.fails) else reading


def details(t: Tested) -> str:
    """What was compared, over which seeds and densities, the exact test and the size of the effect.

    The exact test is that of the nearer bound, one-sided like the t test.
    """
    densities = [t.part.present[level] for level in t.levels if math.isfinite(t.part.present[level])]
    parts = [f"{title(t)}, {100 * INTERVAL:.0f}% interval", "1 seed" if t.n == 1 else f"{t.n} seeds"]
    if densities:
        parts.append(f"at {densities_text(densities)} of the weights")
    exact, size = _exact(t), effect_size(t.values).g
    if math.isfinite(exact) and not t.reason:
        parts.append(f"exact one-sided sign-flip p {probability(exact)}")
    if math.isfinite(size) and not t.reason and min(abs(t.part.low), abs(t.part.high)) == 0:
        parts.append(f"Hedges' g = {size:.2g}")
    return "; ".join(parts)


def contradicted_by(t: Tested) -> str:
    """Which part says the contrary, and what."""
    return f"{t.part.name}: {t.part.fails}"


def title(t: Tested) -> str:
    """What was compared, and in what; nothing twice."""
    return t.part.name if t.part.unit in t.part.name else f"{t.part.name}, {t.part.unit}"


def said(t: Tested, alpha: float) -> str:
    """What a part says, with its effect and the p value that it rests on."""
    reading = t.reading(alpha)
    if t.reason:
        return reading
    scale, unit = _scale(t)
    p = t.p_contrary if t.p > alpha >= t.p_contrary else t.p
    return f"{reading} ({scale * t.mean:+.3g}{unit}, p {probability(p)})"


def probability(p: float) -> str:
    """A p value of two digits, or below the smallest that is worth printing.

    >>> probability(0.0312), probability(1e-9)
    ('= 0.031', '< 0.0001')
    """
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"


def _exact(t: Tested) -> float:
    """The sign-flip test that the mean lies where it was seen: between its bounds, or beyond one of them."""
    inside = t.part.low < t.mean < t.part.high
    sides: tuple[tuple[float, Alternative], ...] = (
        (t.part.low, "greater" if inside else "less"),
        (t.part.high, "less" if inside else "greater"),
    )
    found = [sign_flip_test(t.values - bound, side) for bound, side in sides if math.isfinite(bound)]
    return max(found) if inside else min(found)


def _interval(t: Tested) -> str:
    """``+1.2 points [+0.8, +1.6]``, at the level `INTERVAL`."""
    scale, unit = _scale(t)
    if not (math.isfinite(t.low) and math.isfinite(t.high)):
        return f"{scale * t.mean:+.4g}{unit}"
    error = scale * (t.high - t.low) / 2
    places = min(max(1 - math.floor(math.log10(error)), 0), 8) if error > 0 else 4
    value, low, high = (f"{scale * v:+.{places}f}" for v in (t.mean, t.low, t.high))
    return f"{value}{unit} [{low}, {high}]"


def _scale(t: Tested) -> tuple[float, str]:
    return (100.0, " points") if t.part.unit in POINTS else (1.0, "")
