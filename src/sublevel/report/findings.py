"""What the page says in words: the sentence under the title, the key numbers, comparisons, failures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sublevel.claims.branches import Branches
from sublevel.report.frame import Column, Frame
from sublevel.report.numbers import duration, estimate, in_points, percent, plain, probability
from sublevel.report.prepare import over_seeds, where

Tables = dict[str, Frame]


def headline(tables: Tables, summary: dict[str, Any]) -> str:
    """One or two sentences computed from the tables: how much was trained, and how the ticket compares."""
    levels = tables["levels"]
    if levels.empty:
        return "No network has been evaluated in this study."
    first = f"{_count(levels, 'network')} on {_setting(summary)}: {_branches(levels)}, {_seeds(levels)}."
    return f"{first} {_ticket(levels)}".strip()


def _count(levels: Frame, noun: str) -> str:
    return f"{len(levels):,} {noun}" + ("s" if len(levels) != 1 else "")


def _setting(summary: dict[str, Any]) -> str:
    model, data = nested(summary, "model", "name"), nested(summary, "study", "data", "name")
    named = [str(v) for v in (data, model) if v]
    return " with ".join(named) if named else "the study's data"


def _branches(levels: Frame) -> str:
    """How many branches there are, and how deep they go."""
    n = levels.loc[levels["branch"] != "dense", "branch"].nunique()
    depth = int(levels["level"].max())
    if n == 0:
        return "dense only"
    return f"{n} {'branch' if n == 1 else 'branches'} down to level {depth}"


def _seeds(levels: Frame) -> str:
    n = int(levels["seed"].nunique())
    return f"{n} seed" + ("s" if n != 1 else "")


def _ticket(levels: Frame) -> str:
    """Dense against the sparsest ticket, in test error, with intervals where there are three seeds."""
    dense = over_seeds(where(levels, branch="dense"), "test_error", ["branch"])
    mine = where(levels, branch=Branches(levels).label("imp"))
    means = over_seeds(mine, "test_error", ["level"])
    if means.empty or dense.empty:
        return ""
    density = percent(float(mine.groupby("level")["density"].mean().loc[means["level"].iloc[-1]]))
    ticket, whole = _percentage(means.iloc[-1]), _percentage(dense.iloc[0])
    return f"With {density} of the weights left, imp's test error is {ticket}; the dense network's is {whole}."


def _percentage(row: Column) -> str:
    text = estimate(float(row["mean"]), float(row["low"]), float(row["high"]), 100)
    head, _, rest = text.partition(" ")
    return f"{head}% {rest}".strip()


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
    """One comparison as the page prints it; ``low, mid, high`` are places from 0 to 100 on a common scale."""

    comparison: str
    at: str
    n: str
    effect: str
    interval: str
    unit: str
    p: str
    reading: str
    places: tuple[float, float, float] | None
    zero: float


@dataclass(frozen=True)
class Claim:
    """A claim with all its comparisons."""

    name: str
    statement: str
    rows: list[Row]


def claims(table: Frame) -> list[Claim]:
    """The table of comparisons, grouped by claim in the order of the table."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(table["claim"]):
        groups.setdefault(str(name), []).append(place)
    found = []
    for name, places in groups.items():
        mine = table.iloc[places]
        found.append(Claim(name, str(mine["statement"].iloc[0]), [_row(r, mine) for _, r in mine.iterrows()]))
    return found


def _row(row: Column, group: Frame) -> Row:
    scale, unit = in_points(str(row["unit"]))
    effect, low, high = (scale * float(row[c]) for c in ("effect", "low", "high"))
    value, _, interval = estimate(effect, low, high).partition(" ")
    same = group[group["unit"] == row["unit"]]
    places, zero = _places(effect, low, high, scale * same[["effect", "low", "high"]])
    return Row(
        comparison=str(row["comparison"]), at=_at(float(row["level"]), float(row["density"])),
        n=plain(float(row["n"])), effect=value, interval=interval, unit=unit,
        p=_p(float(row["p"]), float(row["p_exact"])), reading=str(row["reading"]), places=places, zero=zero,
    )  # fmt: skip


def _at(level: float, density: float) -> str:
    parts = [f"level {level:g}" if math.isfinite(level) else "", percent(density)]
    return ", ".join(p for p in parts if p)


def _p(p: float, exact: float) -> str:
    shown = probability(p)
    return f"{shown} ({probability(exact)})" if math.isfinite(exact) and shown else shown or probability(exact)


def _places(effect: float, low: float, high: float, group: Frame) -> tuple[tuple[float, float, float] | None, float]:
    """Where an interval lies on a scale that holds zero and every estimate of its claim and unit.

    An interval much wider than the estimates (two seeds) would squeeze all others, so the scale ends at
    four times the largest estimate and longer intervals are cut there.
    """
    effects = group["effect"].abs()
    ends = group[["low", "high"]].abs().max(axis=1)
    reach = min(float(ends.max()), 4 * float(effects.max())) if ends.notna().any() else float(effects.max())
    if not math.isfinite(reach) or reach <= 0 or not math.isfinite(effect):
        return None, 50.0
    spots = [50 + 48 * max(-1.0, min(1.0, v / reach)) for v in (low, effect, high) if math.isfinite(v)]
    if len(spots) < 3:
        spots = [50 + 48 * effect / reach] * 3
    return (round(spots[0], 2), round(spots[1], 2), round(spots[2], 2)), 50.0


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
