"""From cells to the tables of a run: labels and values side by side, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sublevel.study.cells import BESIDE, EXTRACT, Row, register
from sublevel.study.store import Store
from sublevel.study.trees import trees
from sublevel.tables import COLUMNS

LOST = {"kind": "lost", "message": "its result is no longer in the store: run the study again"}


def build(document: Mapping[str, Any], store: Store) -> dict[str, pd.DataFrame]:
    """Every table of a run but claims and verdicts, from its manifest and the store."""
    register()
    rows: dict[str, list[Row]] = {name: [] for name in COLUMNS}
    beside: dict[tuple[Any, ...], Row] = {}
    for cell in document["cells"]:
        if cell["status"] != "done":
            rows["failures"].append(_failure(cell))
            continue
        entry = store.read_entry(cell["key"])
        if entry is None:
            rows["failures"].append(_failure({**cell, "error": LOST}))
            continue
        for table, row in EXTRACT[cell["kind"]](document["study"], cell["labels"], entry):
            if table == BESIDE:
                beside.setdefault(_solution(row), {}).update(row)
            else:
                rows[table].append(row)
    for row in rows["levels"]:
        row.update(beside.get(_solution(row), {}))
    rows["tree"] = list(trees(rows["joins"]))
    return {name: _frame(name, rows[name]) for name in COLUMNS if name not in ("claims", "verdicts")}


def _failure(cell: Mapping[str, Any]) -> Row:
    labels, error = cell["labels"], cell.get("error", {})
    level = labels.get("level", labels.get("level_to"))
    return {
        "branch": labels.get("branch"),
        "level": level,
        "seed": labels.get("seed"),
        "cell": cell["cell"],
        "kind": error.get("kind", ""),
        "error": error.get("message", ""),
    }


def _solution(labels: Mapping[str, Any]) -> tuple[Any, ...]:
    return labels["branch"], labels["level"], labels["seed"]


def _frame(name: str, rows: list[Row]) -> pd.DataFrame:
    """Columns as declared; rows as the study lists them, which no job count changes."""
    columns = list(COLUMNS[name])
    return pd.DataFrame.from_records([{c: row.get(c) for c in columns} for row in rows], columns=columns)
