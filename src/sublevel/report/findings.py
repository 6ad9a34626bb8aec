"""What was studied, in one sentence, and what failed."""

from __future__ import annotations

import math
from typing import Any

from sublevel.claims.branches import Branches
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import percent, plain
from sublevel.report.palette import known_first
from sublevel.report.prepare import only_measured


def studied(tables: Tables, summary: dict[str, Any]) -> str:
    """What was studied, in one sentence computed from the tables and the summary."""
    levels = tables["levels"]
    if levels.empty:
        return "No network has been evaluated in this study."
    data, model = _data(summary), str(nested(summary, "model", "name") or "").removeprefix("__main__:")
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
    return f"{by} pruned {setting} down to {down} of its weights: {networks} measured, {seeds}."


def _data(summary: dict[str, Any]) -> str:
    """The data in words: what a source calls itself, else its name.

    >>> _data({"study": {"data": {"name": "fashion-mnist-small"}}, "data": {"origin": "Fashion-MNIST (Zalando SE), 2"}})
    'Fashion-MNIST'
    """
    name, origin = (str(nested(summary, *keys) or "") for keys in (("study", "data", "name"), ("data", "origin")))
    if name == "own":
        return "own data"
    return origin if name == "folder" and origin else origin.partition(" (")[0] if " (" in origin else name


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


def failures(table: Frame) -> list[dict[str, str]]:
    """What did not finish, as text."""
    return [
        {
            "solution": f"{r['branch']}, {_level(r['level'])}seed {plain(float(r['seed']))}",
            "kind": str(r["kind"]),
            "error": str(r["error"]),
        }
        for _, r in table.iterrows()
    ]


def _level(level: float) -> str:
    return f"level {level:g}, " if math.isfinite(level) else ""
