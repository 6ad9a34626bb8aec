"""From the parts of a claim to the claim: how their tests go together, density by density, and what that says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan

from sublevel.claims.margins import DENSITIES, match_densities
from sublevel.claims.parts import Part, Tested, assess, densities_text
from sublevel.claims.words import clause, listed, title
from sublevel.stats import fixed_sequence

UNMATCHED = "C1's test finds no fixed density at which the ticket matches, so the claim is shown and not decided"


@dataclass(frozen=True)
class Context:
    """What the study fixes: the densities, and the levels at which C1's test says that the ticket matches."""

    densities: tuple[float, ...] = DENSITIES
    matching: tuple[int, ...] = ()


@dataclass(frozen=True)
class Point:
    """A claim at one level: the tests of its parts, and the p values of all that they say and of the opposite."""

    level: int
    density: float
    tests: tuple[Tested, ...]
    p: float
    p_contrary: float

    @property
    def deciding(self) -> list[Tested]:
        """The tests that count."""
        return [t for t in self.tests if t.part.decisive]

    @property
    def weakest(self) -> Tested:
        """The part on which the claim rests: of each set of which one is enough the best, then the least sure."""
        sets: dict[str, list[Tested]] = {}
        for i, t in enumerate(self.deciding):
            sets.setdefault(t.part.either or str(i), []).append(t)
        best = [min(each, key=lambda t: t.p if isfinite(t.p) else 2.0) for each in sets.values()]
        return max(best, key=lambda t: (t.p if isfinite(t.p) else -1.0, t.n))

    @property
    def against(self) -> Tested:
        """The part that speaks most clearly against the claim."""
        return min(self.deciding, key=lambda t: t.p_contrary if isfinite(t.p_contrary) else 2.0)

    @property
    def where(self) -> str:
        """Its density, or its level where several networks of several densities meet."""
        return f"{densities_text([self.density])} of the weights" if isfinite(self.density) else f"level {self.level}"


@dataclass(frozen=True)
class Outcome:
    """What the points say together: p values of the claim and of its opposite (NaN: not tested), and words.

    ``holding`` and ``opposed`` are the points at which the claim, or its opposite, is shown at the level asked for.
    ``shown`` is the test whose effect stands for the claim, ``against`` the one that speaks most clearly against it.
    """

    p: float
    p_contrary: float
    shown: Tested
    against: Tested
    explain: Callable[[], str]
    """Why, in words: made when asked for."""
    measured: bool
    points: tuple[Point, ...] = ()
    holding: tuple[Point, ...] = ()
    opposed: tuple[Point, ...] = ()
    deciding: tuple[Point, ...] = field(default=())
    """The points that decide; the others are shown beyond them."""
    tests: int = 1
    """How many tests the p value is corrected for."""
    beyond: str = ""
    """What the sentence about the claim adds, such as the density that it names."""
    against_words: str = ""
    """What speaks against the claim, where it is not one part alone."""

    @cached_property
    def why(self) -> str:
        """What every part says at every point, and what was left out."""
        return self.explain()


Combine = Callable[[Sequence[Part], float, Context], Outcome]
"""From the parts, the level of significance that the words are to keep, and what the study fixes, to the outcome."""


def points(parts: Sequence[Part], context: Context) -> list[Point]:
    """The claim at each fixed density that all its deciding parts have a level for, densest first.

    The level is one for all parts: the nearest of those that they have in common. The dense network counts as a density
    for the parts that are read there. Parts with levels of their own are read at those.
    """
    deciding = [p for p in parts if p.decisive]
    own = sorted({level for p in deciding for level in p.levels or ()})
    if own:
        return [_point(parts, level, nan) for level in own if any(level in p.present for p in deciding)]
    measured = [p for p in deciding if any(p.present)]
    if not measured and not any(0 in p.present for p in deciding if p.dense):
        return []
    common = set.intersection(*(set(p.present) for p in measured)) if measured else set()
    density = {level: p.present[level] for p in measured for level in common if isfinite(p.present[level]) and level}
    levels = match_densities(density, context.densities).values()
    found = [_point(parts, level, density[level]) for level in sorted(levels)]
    there = [p for p in parts if p.dense and 0 in p.present]
    return ([_point(there, 0, 1.0)] if any(p.decisive for p in there) else []) + found


def _point(parts: Sequence[Part], level: int, density: float) -> Point:
    tests = sorted((assess(p, level) for p in parts), key=lambda t: not t.part.decisive)
    p, contrary = _together([t for t in tests if t.part.decisive])
    return Point(level, density, tuple(tests), p, contrary)


def _together(tests: Sequence[Tested]) -> tuple[float, float]:
    """All parts must hold: an intersection-union test (Berger 1982), p the largest of theirs.

    Of a set of which one is enough, Bonferroni's smallest counts, and its opposite is that none holds. The opposite of
    the claim is that some part fails, by Bonferroni over those tested; none is tested while a required one is not.
    """
    sets: dict[str, list[Tested]] = {}
    for i, t in enumerate(tests):
        sets.setdefault(t.part.either or str(i), []).append(t)
    ps, contraries = [], []
    for each in sets.values():
        finite = [t.p for t in each if isfinite(t.p)]
        ps.append(min(1.0, len(each) * min(finite)) if finite else nan)
        contraries.append(max(t.p_contrary for t in each) if len(finite) == len(each) else nan)
    tested = [c for c in contraries if isfinite(c)]
    blocked = any(t.part.required and not isfinite(t.p) for t in tests)
    return (
        max(ps) if all(map(isfinite, ps)) else nan,
        min(1.0, len(tested) * min(tested)) if tested and not blocked else nan,
    )


def intersection(parts: Sequence[Part], alpha: float, context: Context) -> Outcome:
    """All decisive parts hold at a density; Holm's correction over the densities, each of which has its own verdict."""
    found = points(parts, context)
    tested, opposed = ([p for p in found if isfinite(getattr(p, name))] for name in ("p", "p_contrary"))
    return _outcome(
        parts,
        found,
        found,
        p=min(1.0, len(tested) * min(p.p for p in tested)) if tested else nan,
        p_contrary=min(1.0, len(opposed) * min(p.p_contrary for p in opposed)) if opposed else nan,
        holding=_stepwise(found, [p.p for p in found], alpha),
        opposed=_stepwise(found, [p.p_contrary for p in found], alpha),
        alpha=alpha,
        tests=max(len(tested), 1),
    )


def tickets(parts: Sequence[Part], alpha: float, context: Context) -> Outcome:
    """A claim about tickets: a fixed sequence over the densities at which C1's test says that the ticket matches.

    Densest first, each at ``alpha``, down to the first that does not hold; so does the opposite. The densities beyond
    are shown and decide nothing.
    """
    found = points(parts, context)
    matching = [p for p in found if p.level in context.matching]
    reached, against = (fixed_sequence([getattr(p, n) for p in matching], alpha) for n in ("p", "p_contrary"))
    return _outcome(
        parts,
        found,
        matching,
        p=matching[0].p if matching else nan,
        p_contrary=matching[0].p_contrary if matching else nan,
        holding=matching[:reached] if matching else [],
        opposed=matching[:against] if matching else [],
        alpha=alpha,
    )


def sequence(parts: Sequence[Part], alpha: float, context: Context) -> Outcome:
    """The levels of the one decisive part are tested in turn, each at alpha, down to the first that does not hold.

    The fixed-sequence procedure keeps alpha over all of them (Maurer et al. 1995). p is that of the first level, and so
    is the opposite's.
    """
    main = next(part for part in parts if part.decisive)
    levels = [level for level in sorted(main.present) if level]
    if not levels:
        return intersection(parts, alpha, context)
    found = [_point(parts, level, main.present.get(level, nan)) for level in levels]
    reached = fixed_sequence([p.p for p in found], alpha)
    shown = found[reached - 1] if reached else found[0]

    def explain() -> str:
        if 0 < reached < len(found):
            after = found[reached]
            words = f"matches down to {shown.where}; at {after.where}: {clause(after.weakest, alpha)}"
        else:
            words = f"at every level, down to {shown.where}" if reached else _at(shown, alpha)
        return "; ".join([words, *notes([t for p in found for t in p.tests])])

    return Outcome(
        p=found[0].p,
        p_contrary=found[0].p_contrary,
        shown=shown.weakest,
        against=found[0].against,
        explain=explain,
        measured=True,
        points=tuple(found),
        deciding=tuple(found),
        holding=tuple(found[:reached]),
        opposed=tuple(found[:1]) if found[0].p_contrary <= alpha else (),
        beyond=f"down to {shown.where}" if reached else "",
    )


def agreement(parts: Sequence[Part], alpha: float, context: Context) -> Outcome:
    """At every fixed density the two parts hold both, or both fail: "if and only if", decided over all of them.

    At one density p is the smaller of two ways to agree, each an intersection-union test; over the densities the
    largest counts. The size is alpha, but for a density at which both lie exactly on their bounds and are correlated
    above 0.8. The opposite is a density at which one holds and the other fails, by Bonferroni over the densities. Where
    every density agrees in the same way, only one direction was put to the test, and that decides nothing.
    """
    found = points(parts, context)
    if not found:
        return intersection(parts, alpha, context)
    pairs = [(p.deciding[0], p.deciding[1]) for p in found]
    both = [max(a.p, b.p) for a, b in pairs]
    neither = [max(a.p_contrary, b.p_contrary) for a, b in pairs]
    apart = [min(max(a.p, b.p_contrary), max(a.p_contrary, b.p)) for a, b in pairs]
    agree = [min(ways) for ways in zip(both, neither, strict=True)]
    complete = all(isfinite(t.p) for pair in pairs for t in pair)
    tried = {x <= y for x, y in zip(both, neither, strict=True)} == {True, False}
    finite = [p for p in apart if isfinite(p)]
    worst = max(range(len(found)), key=lambda i: agree[i] if isfinite(agree[i]) else -1.0)
    wrong = min(range(len(found)), key=lambda i: apart[i] if isfinite(apart[i]) else 2.0)

    def explain() -> str:
        lines = [f"at {p.where}: {clause(p.deciding[0], alpha)}, and {clause(p.deciding[1], alpha)}" for p in found]
        if complete and not tried:
            lines.append("all densities go the same way, so only one direction of the claim was put to the test")
        return "; ".join([*lines, *notes([t for p in found for t in p.tests])])

    one, two = pairs[wrong]
    clash = (one.part.holds, two.part.fails) if one.p <= one.p_contrary else (one.part.fails, two.part.holds)
    return Outcome(
        p=max(agree) if complete and tried else nan,
        p_contrary=min(1.0, len(finite) * min(finite)) if finite else nan,
        shown=pairs[worst][0],
        against=one,
        explain=explain,
        measured=True,
        points=tuple(found),
        deciding=tuple(found),
        holding=tuple(found),
        opposed=(found[wrong],),
        beyond="; ".join(
            f"at {p.where} {a.part.holds if x <= y else a.part.fails} and {b.part.holds if x <= y else b.part.fails}"
            for p, (a, b), x, y in zip(found, pairs, both, neither, strict=True)
        ),
        against_words=f"at {found[wrong].where} {clash[0]}, yet {clash[1]}",
    )


def _outcome(
    parts: Sequence[Part],
    found: Sequence[Point],
    deciding: Sequence[Point],
    *,
    p: float,
    p_contrary: float,
    holding: Sequence[Point],
    opposed: Sequence[Point],
    alpha: float,
    tests: int = 1,
) -> Outcome:
    """The outcome of points, with every one of them in words."""
    absent = [t for t in (assess(each, -1) for each in parts) if not t.part.measured.values]
    if not found:
        shown = next((t for t in absent if t.part.decisive), None) or assess(parts[0], -1)
        missing = [t for t in absent if t.part.decisive]
        lines = [f"{title(t)}: {t.reason}" for t in missing] or [_nowhere(parts)]
        return Outcome(nan, nan, shown, shown, lambda: "; ".join(lines), measured=False)
    best = min(deciding or found, key=lambda x: x.p if isfinite(x.p) else 2.0)
    clearest = min(deciding or found, key=lambda x: x.p_contrary if isfinite(x.p_contrary) else 2.0)

    def explain() -> str:
        deciders = {x.level for x in deciding}
        lines = [("" if x.level in deciders else "beyond the verdict, ") + _at(x, alpha) for x in found]
        lines = [*([] if deciding else [UNMATCHED]), *lines]
        lines += [f"{title(t)}: {t.reason}" for t in absent if t.part.decisive]
        lines += [f"for comparison, {title(t)}: not measured" for t in absent if not t.part.decisive]
        return "; ".join([*lines, *notes([t for x in found for t in x.tests])])

    return Outcome(
        p=p,
        p_contrary=p_contrary,
        shown=(holding[-1] if holding and tests == 1 else best).weakest,
        against=(opposed[0] if opposed else clearest).against,
        explain=explain,
        measured=any(t.n for x in found for t in x.deciding),
        points=tuple(found),
        deciding=tuple(deciding),
        holding=tuple(holding),
        opposed=tuple(opposed),
        tests=tests,
        beyond=listed([x.where for x in holding]),
    )


def _stepwise(found: Sequence[Point], ps: Sequence[float], alpha: float) -> list[Point]:
    """Holm's points: those whose p is at most alpha over how many are left, in order of density."""
    order = sorted((i for i, p in enumerate(ps) if isfinite(p)), key=lambda i: ps[i])
    kept: list[int] = []
    for rank, i in enumerate(order):
        if ps[i] > alpha / (len(order) - rank):
            break
        kept.append(i)
    return [found[i] for i in sorted(kept)]


def _nowhere(parts: Sequence[Part]) -> str:
    return f"not measured: no level that all its parts have is near a fixed density ({title(assess(parts[0], -1))})"


def _at(point: Point, alpha: float) -> str:
    """The point with all its parts; those beside the claim last. Parts without any rows are told once, elsewhere."""
    words = [
        clause(t, alpha) if t.part.decisive else f"for comparison, {clause(t, alpha)}"
        for t in point.tests
        if t.n or (t.part.decisive and t.part.measured.values)
    ]
    return f"at {point.where}: " + ", and ".join(words)


def notes(tests: Sequence[Tested]) -> list[str]:
    """What was chosen or left out, each said once."""
    found: dict[str, None] = {}
    for t in tests:
        for note in t.part.measured.notes if t.part.measured.values else ():
            found.setdefault(note)
        if t.dropped and not t.reason:
            seeds = "1 seed" if t.dropped == 1 else f"{t.dropped} seeds"
            found.setdefault(f"{title(t)}: {seeds} dropped: a value is missing")
    return list(found)
