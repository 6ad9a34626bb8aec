"""The two tables: verdicts, and the single comparisons that they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from sublevel.claims.combine import Outcome
from sublevel.claims.margins import ALPHA, FEWEST_SEEDS, LEVEL
from sublevel.claims.parts import EQUAL, Part
from sublevel.claims.query import Indexed, Tables
from sublevel.claims.registry import CLAIMS, Claim, registered
from sublevel.claims.words import contradicted_by, probability, quotable
from sublevel.errors import ConfigError, unknown
from sublevel.stats import Paired, holm, no_spread, paired
from sublevel.tables import COLUMNS


def verdicts(tables: Tables, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per claim: supported, contradicted, undecided or not measured, with why, and a sentence to quote.

    Supported: the claim's p value, after Holm's correction over the claims that these tables test, is at most `ALPHA`.
    Contradicted: the same of its contrary, corrected by itself. ``names`` judges some claims only, which are then
    Holm's family.

    Raises ConfigError for a name that is not registered.
    """
    chosen = registered() if names is None else [_named(name) for name in names]
    tables = Indexed(tables)
    parts = [_parts(each, tables) for each in chosen]
    found = [each.combine(mine, ALPHA) for each, mine in zip(chosen, parts, strict=True)]
    support, contrary = [o.p for o in found], [o.p_contrary for o in found]
    rows = []
    for each, mine, outcome, p, against in zip(
        chosen, parts, found, holm(support).tolist(), holm(contrary).tolist(), strict=True
    ):
        if p <= ALPHA:  # rejected by Holm at this level, which what is said within the claim must keep
            outcome = each.combine(mine, ALPHA / sum(q >= outcome.p for q in support))
        rows.append(_row(each, outcome, p, against, sum(map(isfinite, support))))
    return pd.DataFrame(rows, columns=list(COLUMNS["verdicts"]))


def _named(name: str) -> Claim:
    if name not in CLAIMS:
        raise unknown("claim", name, CLAIMS)
    return CLAIMS[name]


def _parts(each: Claim, tables: Tables) -> list[Part]:
    """What a claim asks for: something decisive, whatever the tables hold."""
    found = list(each.query(tables))
    if not any(part.decisive for part in found):
        raise ConfigError(f"claim {each.name} has no decisive part; its function must yield one for any tables")
    return found


def _row(each: Claim, outcome: Outcome, p_holm: float, contrary_holm: float, tests: int) -> dict[str, Any]:
    verdict = _verdict(outcome, p_holm, contrary_holm)
    shown = outcome.against if verdict == "contradicted" else outcome.shown
    why = outcome.why
    if verdict == "contradicted":
        why = f"{contradicted_by(shown)} (p {probability(contrary_holm)}); {why}"
    elif verdict == "undecided" and outcome.p <= ALPHA:
        why = f"holds by itself (p {probability(outcome.p)}), not after Holm's correction over {tests} claims; {why}"
    elif verdict == "undecided" and outcome.p_contrary <= ALPHA:
        why = f"the contrary holds by itself (p {probability(outcome.p_contrary)}), not after Holm's correction; {why}"
    return {
        "claim": each.name,
        "statement": each.statement,
        "verdict": verdict,
        "why": why,
        "sentence": quotable(each.statement, verdict, outcome, shown),
        "effect": shown.mean,
        "low": shown.low,
        "high": shown.high,
        "unit": shown.part.unit,
        "margin": shown.part.margin,
        "n": shown.n,
        "p": outcome.p,
        "p_holm": p_holm,
        "p_contrary": outcome.p_contrary,
        "p_contrary_holm": contrary_holm,
        "figure": each.figure,
    }


def _verdict(outcome: Outcome, p_holm: float, contrary_holm: float) -> str:
    """NaN is above every level."""
    if not outcome.measured:
        return "not measured"
    if contrary_holm <= ALPHA:
        return "contradicted"
    return "supported" if p_holm <= ALPHA else "undecided"


def claims(tables: Tables) -> pd.DataFrame:
    """Return one row per claim, comparison, unit and level, each read alone with no correction for how many there are.

    ``effect`` is the mean over seeds, of the first branch of ``comparison`` minus the second where two are compared;
    ``low`` and ``high`` its 95% t interval, ``p`` and ``p_exact`` the two-sided t and sign-flip tests of 0. Pairs with
    a missing or infinite value are left out, and ``n`` counts those that are left. Claims whose branches are absent
    have no rows.
    """
    tables = Indexed(tables)
    lines = [
        {"claim": each.name, "statement": each.statement, **line}
        for each in registered()
        for part in each.query(tables)
        for line in _comparisons(part)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS["claims"]))


def _comparisons(part: Part) -> Iterator[dict[str, Any]]:
    for level, density in part.present.items():
        values = [v for (at, _), v in sorted(part.measured.values.items()) if at == level and isfinite(v)]
        result = paired(values, np.zeros(len(values)), LEVEL)
        numbers = {name: getattr(result, name) for name in ("n", "effect", "low", "high", "p", "p_exact")}
        about = {"comparison": part.name, "level": level, "density": density, "unit": part.unit}
        yield about | numbers | {"reading": _reading(part, result, values)}


def _reading(part: Part, result: Paired, values: list[float]) -> str:
    """Read an interval: wholly inside what the claim says, wholly outside, or neither."""
    if result.n < FEWEST_SEEDS:
        return f"not decided: fewer than {FEWEST_SEEDS} seeds"
    if no_spread(np.array(values)):
        return f"not decided: {EQUAL}"
    if part.low < result.low and result.high < part.high:
        return part.holds
    if result.high < part.low or part.high < result.low:
        return part.fails
    return f"not decided by {result.n} seeds"
