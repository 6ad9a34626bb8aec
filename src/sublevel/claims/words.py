"""Tests in words, with numbers rounded from their error."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sublevel.claims.margins import ALPHA, INTERVAL
from sublevel.claims.parts import SCALES, Tested
from sublevel.display import decimals


def effect(t: Tested, *, seeds: bool = True) -> str:
    """What a part says with its effect, interval and, unless they are named before it, seeds."""
    of = f", {seeds_text(t)}" if seeds else ""
    if not t.n:
        return f"{title(t)}: {t.reason}"
    if t.reason:
        return f"{_signed(t)} ({t.reason})"
    words = t.part.holds if t.p <= ALPHA else t.part.fails if t.p_contrary <= ALPHA else ""
    if "{}" in words:
        return f"{filled(words, t)} ({interval(t, flip=t.mean < 0)}{of})"
    if not words:
        return f"{_signed(t)} ({interval(t)}{of})"
    return f"{words} ({t.part.name} {amount(t.mean, t)}, {interval(t)}{of})"


def _signed(t: Tested) -> str:
    """What a part measures, where no test decides: ``one-shot pruning costs +0.2 points of test error``."""
    words = next((w for w in (t.part.neither, t.part.holds) if "{}" in w), f"{t.part.name} is {{}}")
    return words.format(amount(t.mean, t))


def clause(t: Tested, alpha: float) -> str:
    """A part's reading at a level of significance, with its effect and its p value."""
    read = reading(t, alpha)
    if t.reason:
        return f"{title(t)}: {read}"
    numbers = f"{t.part.name} {amount(t.mean, t)}, {interval(t)}"
    if not math.isfinite(t.p):
        return numbers
    p = t.p_contrary if t.p > alpha >= t.p_contrary else t.p
    return f"{read} ({numbers}, p {probability(p)})"


def reading(t: Tested, alpha: float) -> str:
    """How the interval of a part reads at a level of significance."""
    if t.reason:
        return t.reason if t.reason.startswith("not measured") else f"not decided: {t.reason}"
    if t.p <= alpha:
        return filled(t.part.holds, t)
    if t.p <= ALPHA:
        return f"{filled(t.part.holds, t)}, but not at the corrected level of {alpha:.2g}"
    if t.p_contrary <= alpha:
        return filled(t.part.fails, t)
    return f"inconclusive with {t.n} seeds" if "{}" in t.part.neither or not t.part.neither else t.part.neither


def filled(words: str, t: Tested) -> str:
    """A clause with the size of the effect in it."""
    return words.format(amount(abs(t.mean), t).lstrip("+")) if "{}" in words else words


def title(t: Tested) -> str:
    """What was compared, with its unit unless the name has it."""
    return with_unit(t.part.name, t.part.unit)


def with_unit(name: str, unit: str) -> str:
    """A name with a unit, unless the name has the unit's words.

    >>> with_unit("rise of the train loss", "train loss"), with_unit("shared order, rise", "share")
    ('rise of the train loss', 'shared order, rise, share')
    """
    return name if set(unit.split()) <= set(name.replace(",", " ").split()) else f"{name}, {unit}"


def probability(p: float) -> str:
    """A p value of two digits, or below the smallest that is worth printing.

    >>> probability(0.0312), probability(1e-9)
    ('= 0.031', '< 0.0001')
    """
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"


def listed(items: Sequence[str]) -> str:
    """Items as a list in words; a unit that all share comes once.

    >>> listed(["25% of the weights", "10% of the weights"]), listed(["level 1"])
    ('25% and 10% of the weights', 'level 1')
    """
    shared = " of the weights"
    if len(items) > 1 and all(item.endswith(shared) for item in items):
        return listed([item.removesuffix(shared) for item in items]) + shared
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def seeds_text(t: Tested) -> str:
    """The number of seeds, and what else the interval covers."""
    seeds = "1 seed" if t.n == 1 else f"{t.n} seeds"
    return f"{seeds}{t.found.kind.removeprefix('seeds')}"


def amount(value: float, t: Tested) -> str:
    """A number with its sign and unit, rounded by its interval; 0 has a plus, whatever rounding error made of it."""
    scale, unit = SCALES.get(t.part.unit, (1.0, ""))
    return f"{scale * value:+z.{_places(t)}f}{' ' * (unit == 'points')}{unit}"


def interval(t: Tested, *, flip: bool = False) -> str:
    """``90% CI 1.39 to 2.04``; ``flip`` for a clause that tells the size of a negative effect."""
    if not (math.isfinite(t.low) and math.isfinite(t.high)):
        return "no interval"
    scale, places = SCALES.get(t.part.unit, (1.0, ""))[0] * (-1 if flip else 1), _places(t)
    low, high = sorted((scale * t.low, scale * t.high))
    return f"{100 * INTERVAL:.0f}% CI {low:z.{places}f} to {high:z.{places}f}"


def _places(t: Tested) -> int:
    return decimals(SCALES.get(t.part.unit, (1.0, ""))[0] * (t.high - t.low) / 2)
