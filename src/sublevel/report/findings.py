"""What the page says in words: what was studied, the comparisons, the failures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sublevel.claims.branches import Branches
from sublevel.report.frame import Column, Frame, Tables
from sublevel.report.numbers import estimate, in_points, percent, plain
from sublevel.report.palette import known_first
from sublevel.report.prepare import only_measured


def studied(tables: Tables, summary: dict[str, Any]) -> str:
    """What was studied, in one sentence computed from the tables and the summary."""
    levels = tables["levels"]
    if levels.empty:
        return "No network has been evaluated in this study."
    data, model = nested(summary, "study", "data", "name"), nested(summary, "model", "name")
    setting = " on ".join(str(v) for v in (model, data) if v) or "one network"
    seeds, networks = counted(levels["seed"].nunique(), "seed"), counted(len(levels), "network")
    if only_measured(levels):
        return f"{networks} trained elsewhere ({setting}), measured."
    names = known_first({v.base for v in Branches(levels).variants.values()} - {"dense"})
    if not names:
        return f"The dense network {setting}: {networks}, {seeds}."
    first, others = ("IMP" if names[0] == "imp" else names[0]), len(names) - 1
    by = f"{first} and {counted(others, 'other method')}" if others else first
    down = percent(float(levels["density"].min()))
    return f"{by} pruned {setting} down to {down} of its weights: {networks} trained, {seeds}."


def counted(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "branch", "branches"), counted(1200, "network")
    ('1 branch', '1,200 networks')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def nested(summary: Any, *keys: str) -> Any:
    """A value deep in a summary, or None where any key on the way is missing.

    >>> nested({"a": {"b": 1}}, "a", "b"), nested({"a": 2}, "a", "b")
    (1, None)
    """
    for key in keys:
        summary = summary.get(key) if isinstance(summary, dict) else None
    return summary


@dataclass(frozen=True)
class Row:
    """One comparison as the page prints it; ``places`` of low, effect and high on a common scale from 0 to 100."""

    comparison: str
    at: str
    n: str
    effect: str
    interval: str
    unit: str
    reading: str
    places: tuple[float, ...]


def comparisons(table: Frame) -> list[tuple[str, str, list[Row]]]:
    """(claim, statement, rows) of the table of comparisons, in its order."""
    return [
        (str(name), str(mine["statement"].iloc[0]), [_row(r, mine) for _, r in mine.iterrows()])
        for name, mine in table.groupby("claim", sort=False)
    ]


def _row(row: Column, group: Frame) -> Row:
    scale, unit = in_points(str(row["unit"]))
    effect, low, high = (scale * float(row[c]) for c in ("effect", "low", "high"))
    value, _, interval = estimate(effect, low, high).partition(" ")
    same = group[group["unit"] == row["unit"]]
    return Row(
        comparison=str(row["comparison"]), at=_at(float(row["level"]), float(row["density"])),
        n=plain(float(row["n"])), effect=value, interval=interval, unit=unit,
        reading=str(row["reading"]),
        places=_places(effect, low, high, scale * same[["effect", "low", "high"]]),
    )  # fmt: skip


def _at(level: float, density: float) -> str:
    return ", ".join(filter(None, (f"level {level:g}" if math.isfinite(level) else "", percent(density))))


def _places(effect: float, low: float, high: float, group: Frame) -> tuple[float, ...]:
    """Where an interval lies on a scale from 0 to 100 with zero in the middle, which holds every estimate of its claim.

    An interval much wider than the estimates (two seeds) would squeeze all others, so the scale ends at
    four times the largest estimate and longer intervals are cut there. Empty without an effect or a scale.
    """
    effects = group["effect"].abs()
    ends = group[["low", "high"]].abs().max(axis=1)
    reach = min(float(ends.max()), 4 * float(effects.max())) if ends.notna().any() else float(effects.max())
    if not math.isfinite(reach) or reach <= 0 or not math.isfinite(effect):
        return ()
    ends = (low, effect, high) if math.isfinite(low) and math.isfinite(high) else (effect,) * 3
    return tuple(round(50 + 48 * max(-1.0, min(1.0, v / reach)), 2) for v in ends)


def failures(table: Frame) -> list[dict[str, str]]:
    """What did not finish, as text."""
    return [
        {
            "solution": f"{r['branch']}, {_at(float(r['level']), math.nan)}, seed {plain(float(r['seed']))}",
            "kind": str(r["kind"]),
            "error": str(r["error"]),
        }
        for _, r in table.iterrows()
    ]
