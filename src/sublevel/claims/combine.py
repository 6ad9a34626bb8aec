"""From the parts of a claim to the claim: how their tests go together, and what that says in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from sublevel.claims.parts import Part, Tested, assess, densities_text
from sublevel.claims.words import said, title
from sublevel.stats import fixed_sequence


@dataclass(frozen=True)
class Outcome:
    """What the parts say together: p values of the claim and of its contrary (NaN: not tested), and words for them.

    ``shown`` is the part whose effect stands for the claim; ``against`` the part that speaks most clearly against it.
    ``reason`` lists what is missing.
    """

    p: float
    p_contrary: float
    shown: Tested
    against: Tested
    why: str
    measured: bool
    beyond: str = ""
    """What the sentence about the claim adds: the density that it names."""


Combine = Callable[[Sequence[Part], float], Outcome]
"""From the parts, and the level of significance that the words are to keep, to the outcome."""


def intersection(parts: Sequence[Part], alpha: float) -> Outcome:
    """All decisive parts must hold: an intersection-union test (Berger 1982), p the largest of theirs.

    The contrary is that one of them fails, by Bonferroni over them. A part that is not tested leaves the claim
    untested, but not its contrary.
    """
    tests = [assess(part) for part in parts]
    deciding = [t for t in tests if t.part.decisive]
    ps = [t.p for t in deciding]
    contrary = [t for t in deciding if isfinite(t.p_contrary)]
    against = min(contrary, key=lambda t: t.p_contrary, default=deciding[0])
    shown = max(deciding, key=lambda t: (t.p if isfinite(t.p) else -1.0, t.n))
    return Outcome(
        p=max(ps) if all(map(isfinite, ps)) else nan,
        p_contrary=min(1.0, len(contrary) * against.p_contrary) if contrary else nan,
        shown=shown,
        against=against,
        why=sentences(tests, alpha),
        measured=any(t.measured for t in deciding),
    )


def sequence(parts: Sequence[Part], alpha: float) -> Outcome:
    """The levels of the one decisive part are tested in turn, each at alpha, down to the first that does not hold.

    The fixed-sequence procedure keeps alpha over all of them. p is that of the first level, and so is the contrary's.
    """
    main = next(part for part in parts if part.decisive)
    levels = sorted(main.present) or [0]
    tests = [assess(main, [level] if main.present else []) for level in levels]
    reached = fixed_sequence([t.p for t in tests], alpha)
    shown = tests[reached - 1] if reached else tests[0]
    words = f"{_at(shown)}: {said(shown, alpha)}"
    if 0 < reached < len(tests):
        after = tests[reached]
        words = f"holds at every level down to {_at(shown)}; next, {_at(after)}: {said(after, alpha)}"
    elif reached:
        words = f"holds at every level measured, down to {_at(shown)}"
    beside = sentences([assess(part) for part in parts if not part.decisive], alpha)
    return Outcome(
        p=tests[0].p,
        p_contrary=tests[0].p_contrary,
        shown=shown,
        against=tests[0],
        why="; ".join(w for w in (words, beside, notes(tests[:1])) if w),
        measured=bool(main.present),
        beyond=f"down to {densities_text(_densities(shown))} of the weights" if reached else "",
    )


def agreement(parts: Sequence[Part], alpha: float) -> Outcome:
    """At every level the first two parts hold both, or both fail: "if and only if".

    At one level p is the smaller of two ways to agree, each an intersection-union test; over the levels the largest
    counts. The size is alpha, but for a level at which both lie exactly on their bounds and are correlated above 0.8.
    The contrary is a level at which one holds and the other fails, by Bonferroni over the levels. Where every level
    agrees in the same way, only one direction was put to the test, and that decides nothing.
    """
    one, two = parts[0], parts[1]
    levels = sorted(set(one.chosen) & set(two.chosen))
    if not levels:
        return intersection(parts, alpha)
    pairs = [(assess(one, [level]), assess(two, [level])) for level in levels]
    both = [max(a.p, b.p) for a, b in pairs]
    neither = [max(a.p_contrary, b.p_contrary) for a, b in pairs]
    apart = [min(max(a.p, b.p_contrary), max(a.p_contrary, b.p)) for a, b in pairs]
    agree = [min(ways) for ways in zip(both, neither, strict=True)]
    complete = all(isfinite(x) for p in pairs for x in (p[0].p, p[1].p))
    tried = {x <= y for x, y in zip(both, neither, strict=True)} == {True, False}
    finite = [p for p in apart if isfinite(p)]
    worst = max(range(len(levels)), key=lambda i: agree[i] if isfinite(agree[i]) else -1.0)
    wrong = min(range(len(levels)), key=lambda i: apart[i] if isfinite(apart[i]) else 2.0)
    lines = [f"at {_at(a)}, {a.part.name}: {said(a, alpha)}, {b.part.name}: {said(b, alpha)}" for a, b in pairs]
    if complete and not tried:
        lines.append("the levels all go the same way, so only one direction of the claim was put to the test")
    return Outcome(
        p=max(agree) if complete and tried else nan,
        p_contrary=min(1.0, len(finite) * min(finite)) if finite else nan,
        shown=pairs[worst][0],
        against=pairs[wrong][0],
        why="; ".join([*lines, *filter(None, [notes([pairs[0][0], pairs[0][1]])])]),
        measured=True,
    )


def sentences(tests: Sequence[Tested], alpha: float) -> str:
    """Every part with what it says, those beside the claim last, and the notes on what was read."""
    ordered = sorted(tests, key=lambda t: not t.part.decisive)
    lines = [("" if t.part.decisive else "beside it, ") + f"{title(t)}: {said(t, alpha)}" for t in ordered]
    return "; ".join([*lines, *filter(None, [notes(tests)])])


def notes(tests: Sequence[Tested]) -> str:
    """What was chosen, left out or not reached, each said once."""
    found: dict[str, None] = {}
    for t in tests:
        for note in t.part.measured.notes if t.part.measured.values else ():
            found.setdefault(note)
        if t.left_out and not t.reason:
            seeds = "1 seed" if t.left_out == 1 else f"{t.left_out} seeds"
            found.setdefault(f"{title(t)}: {seeds} left out for want of a finite value at every level")
        if t.measured and t.part.unreached:
            found.setdefault(f"{densities_text(t.part.unreached)} of the weights: no level near it")
    return "; ".join(found)


def _densities(t: Tested) -> list[float]:
    return [t.part.present[level] for level in t.levels if isfinite(t.part.present[level])]


def _at(t: Tested) -> str:
    """The levels with their densities."""
    shown = densities_text(_densities(t))
    levels = ", ".join(str(level) for level in t.levels)
    return (f"level {levels}" + (f" ({shown})" if shown else "")) if t.levels else t.part.name
