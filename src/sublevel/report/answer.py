"""The first screen of measured checkpoints: whether they share a basin, and the tables behind the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sublevel.claims.checkpoints import answer
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain

PERCENT = ("density", "train_error", "test_error", "rise")
NAMES: dict[str, str] = {
    "a": "from",
    "b": "to",
    "rise": "rise over the higher end",
    "joined": "joined",
    "lambda_1": "largest eigenvalue",
}


@dataclass(frozen=True)
class Answered:
    """The answer in a word or two, its sentence, and (title, columns, rows, names) of the tables behind it.

    The first ``names`` columns of a table hold names, the others numbers.
    """

    word: str
    sentence: str
    tables: list[tuple[str, list[str], list[list[str]], int]]


def answered(tables: Tables) -> Answered:
    """Whether measured checkpoints share a basin along straight lines."""
    found: Any = answer(tables)
    pairs, joined = found.pairs, int(found.pairs["joined"].sum())
    word = "yes" if joined == len(pairs) else "no" if not joined else f"{joined} of {len(pairs)} pairs do"
    parts = [("Checkpoints", found.checkpoints, 1), ("Pairs", pairs, 2)]
    shown = [(title, _names(frame), _rows(frame), n) for title, frame, n in parts if len(frame)]
    return Answered(word if len(pairs) else "not measured", found.sentence, shown)


def _names(frame: Frame) -> list[str]:
    return [NAMES.get(str(column), str(column).replace("_", " ")) for column in frame]


def _rows(frame: Frame) -> list[list[str]]:
    return [[_cell(value, name in PERCENT) for name, value in row.items()] for row in frame.to_dict("records")]


def _cell(value: Any, percent: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{100 * value:.1f}%" if percent and value == value else plain(value)
