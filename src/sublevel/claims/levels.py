"""A claim at one level: the tests of its parts, taken together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan

from sublevel.claims.margins import DENSITIES, match_densities
from sublevel.claims.parts import ClaimPart, Tested, assess, densities_text


@dataclass(frozen=True)
class Design:
    """What the study fixes: the densities, and the levels at which C1's test says that the ticket matches."""

    densities: tuple[float, ...] = DENSITIES
    matching: tuple[int, ...] = ()


@dataclass(frozen=True)
class LevelTests:
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
        best = [min(each, key=lambda t: or_else(t.p, 2.0)) for each in _sets(self.tests)]
        return max(best, key=lambda t: (or_else(t.p, -1.0), t.n))

    @property
    def against(self) -> Tested:
        """The part that speaks most clearly against the claim."""
        return min(self.deciding, key=lambda t: or_else(t.p_contrary, 2.0))

    @property
    def where(self) -> str:
        """Its density, or its level where several networks of several densities meet; empty for a number of a seed."""
        if isfinite(self.density):
            return f"{densities_text([self.density])} of the weights"
        return f"level {self.level}" if self.level else ""


def tested_levels(parts: Sequence[ClaimPart], design: Design) -> list[LevelTests]:
    """The claim at each fixed density that all its deciding parts have a level for, densest first.

    The level is one for all parts: the nearest of those that they have in common. The dense network counts as a density
    for the parts that are read there. Parts with levels of their own are read at those.
    """
    deciding = [p for p in parts if p.decisive]
    own = sorted({level for p in deciding for level in p.levels or ()})
    if own:
        return [tested_at(parts, level, nan) for level in own if any(level in p.present for p in deciding)]
    measured = [p for p in deciding if any(p.present)]
    if not measured and not any(0 in p.present for p in deciding if p.dense):
        return []
    common = set.intersection(*(set(p.present) for p in measured)) if measured else set()
    density = {level: p.present[level] for p in measured for level in common if isfinite(p.present[level]) and level}
    matched = match_densities(density, design.densities).values()
    found = [tested_at(parts, level, density[level]) for level in sorted(matched)]
    there = [p for p in parts if p.dense and 0 in p.present]
    return ([tested_at(there, 0, 1.0)] if any(p.decisive for p in there) else []) + found


def tested_at(parts: Sequence[ClaimPart], level: int, density: float) -> LevelTests:
    """The parts at one level. All must hold: an intersection-union test (Berger 1982), p the largest of theirs.

    Of a set of which one is enough, Bonferroni's smallest counts, and its opposite is that none holds. The opposite of
    the claim is that some part fails, by Bonferroni over those tested; none is tested while a required one is not.
    """
    tests = sorted((assess(p, level) for p in parts), key=lambda t: not t.part.decisive)
    ps, contraries = [], []
    for each in _sets(tests):
        finite = [t.p for t in each if isfinite(t.p)]
        ps.append(min(1.0, len(each) * min(finite)) if finite else nan)
        contraries.append(max(t.p_contrary for t in each) if len(finite) == len(each) else nan)
    opposed = [c for c in contraries if isfinite(c)]
    blocked = any(t.part.required and not isfinite(t.p) for t in tests if t.part.decisive)
    return LevelTests(
        level,
        density,
        tuple(tests),
        p=max(ps) if all(map(isfinite, ps)) else nan,
        p_contrary=min(1.0, len(opposed) * min(opposed)) if opposed and not blocked else nan,
    )


def _sets(tests: Iterable[Tested]) -> list[list[Tested]]:
    """The tests that count: alone, or with those of which one is enough."""
    sets: dict[str, list[Tested]] = {}
    for i, t in enumerate(t for t in tests if t.part.decisive):
        sets.setdefault(t.part.either or str(i), []).append(t)
    return list(sets.values())


def or_else(p: float, otherwise: float) -> float:
    """A p value, or another number where nothing was tested."""
    return p if isfinite(p) else otherwise
