"""From cells to the tables of a run: labels and values side by side, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from sublevel.geometry.volume import ellipsoid
from sublevel.study.store import Store
from sublevel.tables import COLUMNS

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]

LOST = {"kind": "lost", "message": "its result is no longer in the store: run the study again"}

BESIDE = "levels (more columns)"
"""What a cell adds to the row of a solution that another cell makes."""


def build(document: Mapping[str, Any], store: Store) -> dict[str, pd.DataFrame]:
    """Every table of a run but the claims, from its manifest and the store."""
    rows: dict[str, list[Row]] = {name: [] for name in COLUMNS}
    context = Context(document["study"])
    beside: dict[tuple[Any, ...], Row] = {}
    for cell in document["cells"]:
        if cell["status"] != "done":
            rows["failures"].append(_failure(cell))
            continue
        entry = store.read_entry(cell["key"])
        if entry is None:
            rows["failures"].append(_failure({**cell, "error": LOST}))
            continue
        for table, row in EXTRACT[cell["kind"]](context, cell["labels"], entry):
            if table == BESIDE:
                beside.setdefault(_solution(row), {}).update(row)
            else:
                rows[table].append(row)
    for row in rows["levels"]:
        row.update(beside.get(_solution(row), {}))
    return {name: _frame(name, rows[name]) for name in COLUMNS if name != "claims"}


class Context:
    """What the rows need from the study itself."""

    def __init__(self, study: Mapping[str, Any]) -> None:
        self.eps = (study["measure"]["spectra"] or {}).get("eps", 0.1)


def _solution_rows(c: Context, labels: Row, entry: Row) -> Rows:
    yield "levels", {**labels, **entry["values"]["row"]}
    for layer in entry["values"]["layers"]:
        yield "layers", {**labels, **layer, "density": layer["remaining"] / layer["prunable"]}


def _train_rows(c: Context, labels: Row, entry: Row) -> Rows:
    yield BESIDE, {**labels, "steps": entry["values"]["history"][-1]["step"] - entry["inputs"]["first"]}
    for row in entry["values"]["history"]:
        yield "history", {**labels, **row}


def _overlap_rows(c: Context, labels: Row, entry: Row) -> Rows:
    yield BESIDE, {**labels, **entry["values"]}


def _mask_rows(c: Context, labels: Row, entry: Row) -> Rows:
    return iter(())


def _leg_rows(c: Context, labels: Row, entry: Row) -> Rows:
    for row in entry["values"]["rows"]:
        yield "legs", {**labels, **row}


def _segment_rows(c: Context, labels: Row, entry: Row) -> Rows:
    for s in entry["values"]["segments"]:
        path = {**labels, "split": s["split"], "buffers": s["buffers"]}
        barriers = {
            f"{of}_{name}": s[of][key]
            for of in ("loss", "error")
            for name, key in (
                ("from", "start"),
                ("to", "end"),
                ("max", "maximum"),
                *((k, k) for k in ("alpha", "height", "barrier", "rise", "margin")),
            )
        }
        yield "paths", {**path, **barriers, "points": len(s["alphas"]), "distance": s["distance"]}
        for alpha, loss, error in zip(s["alphas"], s["profile_loss"], s["profile_error"], strict=True):
            yield "profiles", {**path, "alpha": alpha, "loss": loss, "error": error}


def _spectrum_rows(c: Context, labels: Row, entry: Row) -> Rows:
    values = entry["values"]
    row, buffers = values["row"], values["row"]["buffers"]
    yield "curvature", {**labels, **row}
    for pair in values["pairs"]:
        yield "spectra", {**labels, "buffers": buffers, **pair}
    largest = [pair["eigenvalue"] for pair in values["pairs"] if pair["end"] == "largest"]
    error = max(pair["residual"] for pair in values["pairs"] if pair["end"] == "largest")
    v = ellipsoid(largest, values["slopes"], eps=c.eps, converged=row["converged"], error=error)
    yield (
        "volumes",
        {
            **labels,
            "buffers": buffers,
            "method": "top-k",
            "k": v.n,
            "dimension": row["dimension"],
            "eps": v.eps,
            "log_volume": v.log_volume,
            "effective_radius": v.effective_radius,
            "se": v.se,
            "nonstationarity": v.diagnostics.get("nonstationarity"),
            "stationary": v.diagnostics.get("stationary"),
            "reason": v.reason,
        },
    )


EXTRACT: dict[str, Callable[[Context, Row, Row], Rows]] = {
    "train": _train_rows,
    "mask": _mask_rows,
    "solution": _solution_rows,
    "overlap": _overlap_rows,
    "leg": _leg_rows,
    "segment": _segment_rows,
    "spectrum": _spectrum_rows,
}


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
