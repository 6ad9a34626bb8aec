"""From the parts of a claim to the claim: how their tests go together, density by density, and what that says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan

from sublevel.claims.levels import Design, LevelTests, or_else, tested_at, tested_levels
from sublevel.claims.parts import ClaimPart, Tested, assess
from sublevel.claims.words import clause, listed, title
from sublevel.stats import fixed_sequence, holm

UNMATCHED = "C1 finds no match at the densities where this was measured, so nothing is decided"


@dataclass(frozen=True, kw_only=True)
class Combined:
    """What the levels say together: p values of the claim and of its opposite (NaN: not tested), and words.

    ``holding`` and ``opposed`` are the levels at which the claim, or its opposite, is shown at the significance asked
    for. ``shown`` is the test whose effect represents the claim, ``against`` the strongest evidence against it.
    """

    p: float
    p_contrary: float
    shown: Tested
    against: Tested
    explain: Callable[[], str]
    """Why, in words: made when asked for."""
    measured: bool = True
    levels: Sequence[LevelTests] = ()
    holding: Sequence[LevelTests] = ()
    opposed: Sequence[LevelTests] = ()
    deciding: Sequence[LevelTests] = ()
    """The levels that decide; the others are shown beyond them."""
    beyond: str = ""
    """What the sentence about the claim adds, such as the density that it names."""
    against_words: str = ""
    """What speaks against the claim, where it is not one part alone."""

    @cached_property
    def why(self) -> str:
        """What every part says at every level, and what was left out."""
        return self.explain()


Combine = Callable[[Sequence[ClaimPart], float, Design], Combined]
"""From the parts, the level of significance that the words are to keep, and what the study fixes, to the outcome."""


def intersection(parts: Sequence[ClaimPart], alpha: float, design: Design) -> Combined:
    """All decisive parts hold at a density; Holm's correction over the densities, each of which has its own verdict."""
    found = tested_levels(parts, design)
    ps, shown = [], []
    for name in ("p", "p_contrary"):
        corrected = holm([getattr(x, name) for x in found])
        ps.append(min(filter(isfinite, corrected.tolist()), default=nan))
        shown.append([x for x, p in zip(found, corrected, strict=True) if p <= alpha])
    several = sum(isfinite(x.p) for x in found) > 1
    return _combined(parts, alpha, found, found, ps, shown, lead="best" if several else "last")


def tickets(parts: Sequence[ClaimPart], alpha: float, design: Design) -> Combined:
    """A claim about tickets: a fixed sequence over the densities at which C1's test says that the ticket matches.

    Densest first, each at ``alpha``, down to the first that does not hold; so does the opposite. The densities beyond
    are shown and decide nothing.
    """
    found = tested_levels(parts, design)
    matching = [x for x in found if x.level in design.matching]
    sides = [[getattr(x, name) for x in matching] for name in ("p", "p_contrary")]
    shown = [matching[: fixed_sequence(ps, alpha)] if ps else [] for ps in sides]
    return _combined(parts, alpha, found, matching, [ps[0] if ps else nan for ps in sides], shown, lead="last")


def sequence(parts: Sequence[ClaimPart], alpha: float, design: Design) -> Combined:
    """The levels of the one decisive part are tested in turn, each at alpha, down to the first that does not hold.

    The fixed-sequence procedure keeps alpha over all of them (Maurer et al. 1995). Both p values are those of the first
    level.
    """
    main = next(part for part in parts if part.decisive)
    found = [tested_at(parts, level, main.present.get(level, nan)) for level in sorted(main.present) if level]
    if not found:
        return intersection(parts, alpha, design)
    reached = fixed_sequence([x.p for x in found], alpha)
    shown = found[max(reached - 1, 0)]

    def explain() -> str:
        if 0 < reached < len(found):
            after = found[reached]
            words = f"matches down to {shown.where}; at {after.where}: {clause(after.weakest, alpha)}"
        else:
            words = f"at every level, down to {shown.where}" if reached else _at(shown, alpha)
        return "; ".join([words, *notes(found)])

    return Combined(
        p=found[0].p,
        p_contrary=found[0].p_contrary,
        shown=shown.weakest,
        against=found[0].against,
        explain=explain,
        levels=found,
        deciding=found,
        holding=found[:reached],
        opposed=found[:1] if found[0].p_contrary <= alpha else (),
        beyond=f"down to {shown.where}" if reached else "",
    )


def agreement(parts: Sequence[ClaimPart], alpha: float, design: Design) -> Combined:
    """At every fixed density the two parts hold both, or both fail: "if and only if", decided over all of them.

    At one density p is the smaller of two ways to agree, each an intersection-union test; over the densities the
    largest counts. The size is alpha, but for a density at which both lie exactly on their bounds and are correlated
    above 0.8. The opposite is a density at which one holds and the other fails, by Bonferroni over the densities. Where
    every density agrees in the same way, only one direction was put to the test, and that decides nothing.
    """
    found = tested_levels(parts, design)
    if not found:
        return intersection(parts, alpha, design)
    pairs = [(x.deciding[0], x.deciding[1]) for x in found]
    both = [max(a.p, b.p) for a, b in pairs]
    neither = [max(a.p_contrary, b.p_contrary) for a, b in pairs]
    apart = [min(max(a.p, b.p_contrary), max(a.p_contrary, b.p)) for a, b in pairs]
    agree = list(map(min, both, neither))
    complete = all(isfinite(t.p) for pair in pairs for t in pair)
    ways = [yes <= no for yes, no in zip(both, neither, strict=True)]
    tried = set(ways) == {True, False}
    finite = [p for p in apart if isfinite(p)]
    worst = max(range(len(found)), key=lambda i: or_else(agree[i], -1.0))
    wrong = min(range(len(found)), key=lambda i: or_else(apart[i], 2.0))

    def explain() -> str:
        lines = [f"at {x.where}: " + ", and ".join(clause(t, alpha) for t in x.deciding[:2]) for x in found]
        if complete and not tried:
            lines.append("all densities agree in the same way, so only one direction was tested")
        return "; ".join([*lines, *notes(found)])

    one, two = pairs[wrong]
    clash = (one.part.holds, two.part.fails) if one.p <= one.p_contrary else (one.part.fails, two.part.holds)
    sides = [
        f"at {x.where} " + " and ".join(t.part.holds if holds else t.part.fails for t in x.deciding[:2])
        for x, holds in zip(found, ways, strict=True)
    ]
    return Combined(
        p=max(agree) if complete and tried else nan,
        p_contrary=min(1.0, len(finite) * min(finite)) if finite else nan,
        shown=pairs[worst][0],
        against=one,
        explain=explain,
        levels=found,
        deciding=found,
        holding=found,
        opposed=found[wrong : wrong + 1],
        beyond="; ".join(sides),
        against_words=f"at {found[wrong].where} {clash[0]}, yet {clash[1]}",
    )


def _combined(
    parts: Sequence[ClaimPart],
    alpha: float,
    found: Sequence[LevelTests],
    deciding: Sequence[LevelTests],
    ps: Sequence[float],
    shown: Sequence[Sequence[LevelTests]],
    *,
    lead: str,
) -> Combined:
    """The levels together. ``ps`` and ``shown`` are of the claim and of its opposite.

    ``lead`` is the level whose effect represents the claim: the ``best``, or the ``last`` of a sequence that holds.
    """
    absent = [t for t in (assess(each, -1) for each in parts) if not t.part.measured.values]
    missing = [f"{title(t)}: {t.reason}" for t in absent if t.part.decisive]
    if not found:
        return _unmeasured(parts, missing)
    best = min(deciding or found, key=lambda x: or_else(x.p, 2.0))
    clearest = min(deciding or found, key=lambda x: or_else(x.p_contrary, 2.0))

    def explain() -> str:
        deciders = {x.level for x in deciding}
        lines = [] if deciding else [UNMATCHED]
        lines += [("" if x.level in deciders else "not part of the verdict: ") + _at(x, alpha) for x in found]
        lines += missing
        lines += [f"for comparison, {title(t)}: not measured" for t in absent if not t.part.decisive]
        return "; ".join([*lines, *notes(found)])

    holding, opposed = shown
    return Combined(
        p=ps[0],
        p_contrary=ps[1],
        shown=(holding[-1] if holding and lead == "last" else best).weakest,
        against=(opposed[0] if opposed else clearest).against,
        explain=explain,
        measured=any(t.n for x in found for t in x.deciding),
        levels=found,
        deciding=deciding,
        holding=holding,
        opposed=opposed,
        beyond=listed([x.where for x in holding]),
    )


def _unmeasured(parts: Sequence[ClaimPart], missing: Sequence[str]) -> Combined:
    """The outcome where no level has all parts: some have no rows at all, or no level is near a fixed density."""
    absent = (p for p in parts if p.decisive and not p.measured.values)
    shown = assess(next(absent, parts[0]), -1)
    nowhere = f"not measured: no level that all its parts have is near a fixed density ({title(shown)})"
    why = "; ".join(missing or [nowhere])
    return Combined(p=nan, p_contrary=nan, shown=shown, against=shown, explain=lambda: why, measured=False)


def _at(x: LevelTests, alpha: float) -> str:
    """A level with all its parts, comparisons last. Parts without any rows are named once, elsewhere."""
    words = [
        clause(t, alpha) if t.part.decisive else f"for comparison, {clause(t, alpha)}"
        for t in x.tests
        if t.n or (t.part.decisive and t.part.measured.values)
    ]
    return (f"at {x.where}: " if x.where else "") + ", and ".join(words)


def notes(found: Sequence[LevelTests]) -> list[str]:
    """What was chosen or left out, each once."""
    lines: list[str] = []
    for t in (t for x in found for t in x.tests):
        lines += t.part.measured.notes if t.part.measured.values else ()
        if t.dropped and not t.reason:
            seeds = "1 seed" if t.dropped == 1 else f"{t.dropped} seeds"
            lines.append(f"{title(t)}: {seeds} dropped: a value is missing")
    return list(dict.fromkeys(lines))
