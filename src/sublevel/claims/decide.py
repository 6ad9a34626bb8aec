"""The two tables: verdicts, and the comparisons that are their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd

from sublevel.claims.accuracy import matching
from sublevel.claims.combine import Combined, sequence
from sublevel.claims.levels import Design, tested_levels
from sublevel.claims.margins import ALPHA, DENSITIES
from sublevel.claims.parts import ClaimPart, assess
from sublevel.claims.query import Tables, indexed
from sublevel.claims.registry import CLAIMS, Claim, registered
from sublevel.claims.sentence import quotable
from sublevel.claims.words import probability, reading, seeds_text
from sublevel.errors import ConfigError, unknown
from sublevel.stats import holm, paired
from sublevel.tables import table

VERDICTS = table(
    "verdicts",
    (),
    """
    'claim', 'statement', 'verdict'
    'family': primary | exploratory: exploratory claims are not corrected for how many there are
    'why': the evidence at each density, or what is missing
    'sentence': to quote, with effect, interval and seeds
    effect: at ``density``, of the part on which the verdict rests
    low, high, 'unit', margin
    margin_flip: the margin at which that part would read otherwise; empty where the margin is 0
    density
    'interval': over what the interval is: seeds, and test examples or the error of a threshold
    n
    p: of the claim's test
    p_holm: after Holm's correction over the primary claims but C1, which is tested first and not corrected
    p_contrary: of the opposite's test
    p_contrary_holm: after Holm's correction over the opposites, by themselves
    'figure': the key of the figure that shows it
    """,
)
"""One row per claim: what this study says about it. verdict = supported | contradicted | undecided | not measured."""

COMPARISONS = table(
    "claims",
    (),
    """
    'claim', 'statement', 'comparison', level, density, 'unit', n, effect, low, high, p, p_exact, 'reading', margin,
    margin_flip, 'interval'
    'role': decides | beyond (a fixed density at which the ticket does not match) | comparison | empty
    """,
)
"""The evidence of the verdicts: comparisons with paired 90% intervals, each read alone."""

FIRST = "C1"
"""The claim that is tested first, without correction."""

Study = Mapping[str, Any]
"""A resolved study as JSON. Read are primary, claim_densities, fraction, prune, criterion and order."""


def verdicts(tables: Tables, names: Sequence[str] | None = None, study: Study | None = None) -> pd.DataFrame:
    """Return one row per claim: supported, contradicted, undecided or not measured, with why, and a sentence to quote.

    Supported: the claim's p value is at most `ALPHA`. C1 is tested first and not corrected, the other primary claims
    are corrected by Holm's method over those that these tables test, and exploratory claims are not corrected.
    Contradicted: the same for the opposite, with a correction of its own. A claim that holds at some densities while
    its opposite holds at others is undecided. Open questions that were not measured have no row. ``names`` selects
    claims. ``study`` names the primary claims (default: all) and the densities.

    Raises ConfigError for a name that is not registered.
    """
    found = judged(tables, names, study)
    rows = [each.row() for each in found if names or each.outcome.measured or not each.claim.exploratory]
    return pd.DataFrame(rows, columns=list(VERDICTS.columns))


def judged(tables: Tables, names: Sequence[str] | None = None, study: Study | None = None) -> list[Judged]:
    """Return every claim with its outcome, before any text is made; see `verdicts`."""
    for name in names or ():
        if name not in CLAIMS:
            raise unknown("claim", name, CLAIMS)
    chosen = registered() if names is None else [CLAIMS[name] for name in names]
    primary = set((study or {}).get("primary") or [name for name, each in CLAIMS.items() if not each.exploratory])
    tables = indexed(tables, study)
    design = designed(tables, study)
    parts = [list(each.query(tables)) for each in chosen]
    for each, mine in zip(chosen, parts, strict=True):
        if not any(part.decisive for part in mine):
            raise ConfigError(f"claim {each.name} has no decisive part; its function must yield one for any tables")
    found = [each.combine(mine, ALPHA, design) for each, mine in zip(chosen, parts, strict=True)]
    family = [each.name in primary and each.name != FIRST for each in chosen]
    sides = [[getattr(o, name) for o in found] for name in ("p", "p_contrary")]
    corrected = [_corrected(ps, family) for ps in sides]
    made = []
    for i, (each, mine, outcome) in enumerate(zip(chosen, parts, found, strict=True)):
        side = next((s for s in (0, 1) if family[i] and corrected[s][i] <= ALPHA), None)
        if side is not None:  # the words within the claim use the level that Holm leaves to it
            left = sum(p >= sides[side][i] for p, of in zip(sides[side], family, strict=True) if of)
            outcome = each.combine(mine, ALPHA / left, design)
        made.append(Judged(each, outcome, corrected[0][i], corrected[1][i], each.name in primary, sum(family)))
    return made


def designed(tables: Tables, study: Study | None = None) -> Design:
    """The densities of a study, and the levels at which C1's test says that IMP matches the dense network."""
    densities = tuple((study or {}).get("claim_densities") or DENSITIES)
    found = sequence([matching(tables)], ALPHA, Design(densities))
    return Design(densities, tuple(x.level for x in found.holding))


def _corrected(ps: Sequence[float], family: Sequence[bool]) -> list[float]:
    """P values with Holm's correction over a family; those outside it as they are."""
    inside = iter(holm([p for p, of in zip(ps, family, strict=True) if of]).tolist())
    return [next(inside) if of else p for p, of in zip(ps, family, strict=True)]


@dataclass(frozen=True)
class Judged:
    """A claim with its outcome and corrected p values."""

    claim: Claim
    outcome: Combined
    p: float
    p_contrary: float
    primary: bool
    tests: int

    @property
    def mixed(self) -> bool:
        """Whether the claim is shown at some densities and its opposite at others."""
        return self.p <= ALPHA and self.p_contrary <= ALPHA

    @property
    def verdict(self) -> str:
        """The verdict in one word; a p value of NaN decides nothing."""
        if not self.outcome.measured:
            return "not measured"
        if self.mixed:
            return "undecided"
        return "contradicted" if self.p_contrary <= ALPHA else "supported" if self.p <= ALPHA else "undecided"

    @property
    def why(self) -> str:
        """The evidence, or what is missing."""
        o = self.outcome
        if self.verdict == "contradicted":
            return f"{o.against.part.name}: {reading(o.against, ALPHA)} (p {probability(self.p_contrary)}); {o.why}"
        if self.verdict == "undecided" and not self.mixed and o.p <= ALPHA:
            alone = f"significant alone (p {probability(o.p)}), not after Holm's correction over {self.tests} claims"
            return f"{alone}; {o.why}"
        if self.verdict == "undecided" and not self.mixed and o.p_contrary <= ALPHA:
            alone = f"the opposite is significant alone (p {probability(o.p_contrary)}), not after Holm's correction"
            return f"{alone}; {o.why}"
        return o.why

    def row(self) -> dict[str, Any]:
        """The line of the table ``verdicts``."""
        o, verdict = self.outcome, self.verdict
        shown = o.against if verdict == "contradicted" else o.shown
        family = "primary" if self.primary else "exploratory"
        return {
            "claim": self.claim.name,
            "statement": self.claim.statement,
            "verdict": verdict,
            "family": family,
            "why": self.why,
            "sentence": quotable(verdict, o, shown, family, mixed=self.mixed),
            "effect": shown.mean,
            "low": shown.low,
            "high": shown.high,
            "unit": shown.part.unit,
            "margin": shown.part.margin,
            "margin_flip": shown.flips,
            "density": shown.density if shown.n else nan,
            "interval": seeds_text(shown) if shown.n else "",
            "n": shown.n,
            "p": o.p,
            "p_holm": self.p if self.primary else nan,
            "p_contrary": o.p_contrary,
            "p_contrary_holm": self.p_contrary if self.primary else nan,
            "figure": self.claim.figure,
        }


def claims(tables: Tables, study: Study | None = None) -> pd.DataFrame:
    """Return one row per claim, comparison, unit and level, each read alone with no correction for how many there are.

    ``effect`` is the mean over seeds, of the first branch of ``comparison`` minus the second where two are compared;
    ``low`` and ``high`` its 90% interval (``interval`` names the source of error), ``p`` and ``p_exact`` the two-sided
    test of 0 and the sign-flip test. Pairs with a missing or infinite value are dropped; ``n`` counts the others.
    ``role`` is the row's part in the verdict: ``decides``, ``beyond`` (a fixed density at which the ticket does not
    match), ``comparison``, or empty where the density is not a fixed one. Claims without their branches have no rows.
    """
    tables = indexed(tables, study)
    design = designed(tables, study)
    lines = []
    for each in registered():
        parts = list(each.query(tables))
        outcome = each.combine(parts, ALPHA, design)
        deciding = {x.level for x in outcome.deciding}
        at = {x.level for x in outcome.levels or tested_levels(parts, design)}
        for part in parts:
            for line in _comparisons(part):
                role = "comparison" if not part.decisive else "decides" if line["level"] in deciding else "beyond"
                role = role if line["level"] in at else ""
                lines.append({"claim": each.name, "statement": each.statement, "role": role} | line)
    return pd.DataFrame(lines, columns=list(COMPARISONS.columns))


def _comparisons(part: ClaimPart) -> Iterator[dict[str, Any]]:
    for level, density in part.present.items():
        found = assess(part, level)
        low, high = found.limits
        flips = paired(found.values, np.zeros(found.n))
        two_sided = 2 * min(found.found.below(0.0), found.found.above(0.0)) if isfinite(low) else nan
        yield {
            "comparison": part.name, "level": level, "density": density, "unit": part.unit, "n": found.n,
            "effect": found.mean, "low": low, "high": high, "p": two_sided, "p_exact": flips.p_exact,
            "margin": part.margin, "margin_flip": found.flips, "interval": found.found.kind,
            "reading": reading(found, ALPHA) if found.reason or isfinite(part.margin) else "shown, not tested",
        }  # fmt: skip
