"""Settings, data, machine and times of a study as rows of text."""

from __future__ import annotations

from typing import Any

from sublevel.report.numbers import duration, plain

TABLES = (
    ("study", "The study, resolved"),
    ("data", "Data"),
    ("model", "Model"),
    ("numerics", "Numerics"),
    ("versions", "Versions"),
    ("hardware", "Hardware"),
    ("cells", "Cells"),
)


MEASURED = ("name", "given", "data", "model", "geometry")
"""What of a study concerns checkpoints that were trained elsewhere."""


def setup(summary: dict[str, Any], *, measured: bool = False) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, rows) of every part of a summary that is there, times last; ``measured``: without any recipe."""
    study = summary.get("study")
    if measured and isinstance(study, dict):
        summary = summary | {"study": {key: study[key] for key in MEASURED if key in study}}
    found = [(title, flatten(summary[key])) for key, title in TABLES if summary.get(key)]
    seconds = summary.get("seconds")
    seconds = seconds if isinstance(seconds, dict) else {}
    spent = {"total": seconds.get("total"), **dict(seconds.get("cells") or {})}
    times = [(str(name), duration(float(s))) for name, s in spent.items() if isinstance(s, (int, float))]
    return [pair for pair in [*found, ("Times", times)] if pair[1]]


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested value as (dotted path, text) rows, in the order in which it was given.

    >>> flatten({"train": {"lr": 0.1, "milestones": [1, 2]}, "levels": 10})
    [('train.lr', '0.1'), ('train.milestones', '1, 2'), ('levels', '10')]
    """
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, (list, tuple)) and any(isinstance(v, dict) for v in value):
        return [row for i, v in enumerate(value) for row in flatten(v, f"{prefix}[{i}]")]
    return [(prefix, _text(value))]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, float):
        return plain(value, 6) or str(value)
    return str(value)
