"""What the page says in words: the sentence under the title, the key numbers, comparisons, failures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sublevel.claims.branches import Branches
from sublevel.report.frame import Column, Frame, Tables
from sublevel.report.numbers import duration, estimate, in_points, percent, plain, probability
from sublevel.report.prepare import over_seeds, where


def headline(tables: Tables, summary: dict[str, Any]) -> str:
    """One or two sentences computed from the tables: how much was trained, and how the ticket compares."""
    levels = tables["levels"]
    if levels.empty:
        return "No network has been evaluated in this study."
    data, model = nested(summary, "study", "data", "name"), nested(summary, "model", "name")
    setting = " with ".join(str(v) for v in (data, model) if v) or "the study's data"
    branches = levels.loc[levels["branch"] != "dense", "branch"].nunique()
    depth = f"{counted(branches, 'branch', 'branches')} down to level {int(levels['level'].max())}"
    what = f"{counted(len(levels), 'network')} on {setting}"
    first = f"{what}: {depth if branches else 'dense only'}, {counted(levels['seed'].nunique(), 'seed')}."
    return f"{first} {_ticket(levels)}".strip()


def counted(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "branch", "branches"), counted(1200, "network")
    ('1 branch', '1,200 networks')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _ticket(levels: Frame) -> str:
    """Dense against the sparsest ticket, in test error, with intervals where there are three seeds."""
    dense = over_seeds(where(levels, branch="dense"), "test_error", ["branch"])
    mine = where(levels, branch=Branches(levels).label("imp"))
    means = over_seeds(mine, "test_error", ["level"])
    if means.empty or dense.empty:
        return ""
    density = percent(float(mine.groupby("level")["density"].mean().loc[means["level"].iloc[-1]]))
    shown = []
    for row in (means.iloc[-1], dense.iloc[0]):
        head, _, rest = estimate(float(row["mean"]), float(row["low"]), float(row["high"]), 100).partition(" ")
        shown.append(f"{head}% {rest}".strip())
    return f"With {density} of the weights left, imp's test error is {shown[0]}; the dense network's is {shown[1]}."


def key_numbers(tables: Tables, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(value, label) pairs for the strip under the headline; what is unknown is left out."""
    levels = tables["levels"]
    parameters, prunable = nested(summary, "model", "parameters"), nested(summary, "model", "prunable")
    done = nested(summary, "cells", "done")
    total = nested(summary, "seconds", "total")
    pairs = [
        (f"{len(levels):,}" if len(levels) else "", "networks evaluated"),
        (f"{int(levels['seed'].nunique())}" if len(levels) else "", "seeds"),
        (percent(float(levels["density"].min())) if len(levels) else "", "of the weights at the last level"),
        (_whole(prunable), f"prunable weights of {_whole(parameters)}" if parameters else "prunable weights"),
        (_whole(done), "cells computed"),
        (duration(float(total)) if isinstance(total, (int, float)) else "", "total compute time"),
    ]
    return [(value, label) for value, label in pairs if value]


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


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
    p: str
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
    p, exact = probability(float(row["p"])), probability(float(row["p_exact"]))
    return Row(
        comparison=str(row["comparison"]), at=_at(float(row["level"]), float(row["density"])),
        n=plain(float(row["n"])), effect=value, interval=interval, unit=unit,
        p=f"{p} ({exact})" if p and exact else p or exact, reading=str(row["reading"]),
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
