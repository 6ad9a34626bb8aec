"""The tables of a run, from the labels and values of its cells, in a fixed order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from sublevel.engine.store import Store
from sublevel.errors import DamagedEntry
from sublevel.study.catalogue import KINDS
from sublevel.study.cells import BESIDE, Row
from sublevel.study.measurements.topology import trees
from sublevel.tables import SOLUTION, TABLES, table

FAILURES = table("failures", SOLUTION, "'cell', 'kind', 'error'")
"""The cells that did not finish, with the reasons."""

LOST = {"kind": "lost", "message": "its result is no longer in the store: run the study again"}


def build(document: Mapping[str, Any], store: Store) -> dict[str, pd.DataFrame]:
    """Every table of a run except claims and verdicts, from its manifest and the store."""
    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    beside: dict[tuple[Any, ...], Row] = {}
    for cell in document["cells"]:
        if cell["status"] != "done":
            rows["failures"].append(_failure(cell))
            continue
        entry = store.read_entry(cell["key"])
        if entry is None:
            rows["failures"].append(_failure({**cell, "error": LOST}))
            continue
        try:
            found = extracted(document["study"], cell["kind"], cell["labels"], entry)
        except DamagedEntry as error:
            rows["failures"].append(_failure({**cell, "error": {"kind": "misshapen", "message": str(error)}}))
            continue
        for name, row in found:
            if name == BESIDE:
                beside.setdefault(_solution(row), {}).update(row)
            else:
                rows[name].append(row)
    for row in rows["levels"]:
        row.update(beside.get(_solution(row), {}))
    rows["tree"] = list(trees(rows["joins"]))
    columns = {name: list(each.columns) for name, each in TABLES.items() if name not in ("claims", "verdicts")}
    plain = {name: [{c: row.get(c) for c in named} for row in rows[name]] for name, named in columns.items()}
    return {name: pd.DataFrame.from_records(plain[name], columns=named) for name, named in columns.items()}


def extracted(study: Mapping[str, Any], kind: str, labels: Row, entry: Row) -> list[tuple[str, Row]]:
    """The rows of a cell's entry. Raises DamagedEntry if it has not the shape of its kind."""
    cell = str(labels.get("cell", kind))
    if kind not in KINDS:
        raise DamagedEntry(f"{cell}: this version knows no cells of kind {kind!r}")
    try:
        found = [(name, dict(row)) for name, row in KINDS[kind].rows(study, labels, entry)]
        for name, row in found:
            _check_row(row, TABLES["levels" if name == BESIDE else name].columns)
    except Exception as error:  # untrusted values may be wrong in any way
        raise DamagedEntry(f"{cell}: its values are not those of a {kind}: {type(error).__name__}: {error}") from error
    return found


def _check_row(row: Row, columns: Collection[str]) -> None:
    """Raise TypeError for a row with invalid labels, or with a value that is neither text nor a number."""
    for name, value in row.items():
        if name in columns and not (value is None or isinstance(value, str | int | float)):
            raise TypeError(f"{name} is a {type(value).__name__}")
    for name, kind in (("branch", str), ("level", int), ("seed", int)):
        if name in columns and not (row.get(name) is None or type(row[name]) is kind):
            raise TypeError(f"{name} is {row[name]!r}")


def _failure(cell: Mapping[str, Any]) -> Row:
    labels, error = cell["labels"], cell.get("error", {})
    level = labels.get("level", labels.get("level_to"))
    labels = {name: value if isinstance(value, str | int | float) else None for name, value in labels.items()}
    about = {"branch": labels.get("branch"), "level": level, "seed": labels.get("seed"), "cell": cell["cell"]}
    return {**about, "kind": error.get("kind", ""), "error": error.get("message", "")}


def _solution(labels: Mapping[str, Any]) -> tuple[Any, ...]:
    return labels["branch"], labels["level"], labels["seed"]
