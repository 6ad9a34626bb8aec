"""Volumes of two points that may be compared: the same k, operator, examples and coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from sublevel.report.describe import Figure, Panel
from sublevel.report.figures.common import density_axis, flat, views
from sublevel.report.figures.curvature import control_note
from sublevel.report.figures.measured import each_branch
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.prepare import caution, doubts_note, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

PAIR = ("pair", "method", "operator", "setting")
DIFFERENCES = {
    "volume": ("Log volume: point minus reference (nats)", 0.0),
    "trace": ("Sum of the k eigenvalues: ratio to the reference", 1.0),
    "norm": ("Weight norm: ratio to the reference", 1.0),
    "gap": ("Loss: point minus reference", 0.0),
}
"""Column -> title, and the value of no difference."""


def with_differences(table: Frame) -> Frame:
    """The rows with what the figure draws, and what makes a row doubtful."""
    loose = np.where(table["converged"] == 0, "not converged", "")
    return table.assign(
        volume=table["log_volume"] - table["log_volume_reference"],
        trace=table["trace_top"] / table["trace_top_reference"],
        norm=table["weight_norm"] / table["weight_norm_reference"],
        gap=table["loss"] - table["loss_reference"],
        doubtful=(table["reason"] != "") | (table["converged"] == 0),
        reason=np.where(table["reason"] == "", loose, table["reason"]),
    )


@figure("Volume", "volumes of pairs", "volume_pairs")
def volume_pairs(tables: Tables) -> Figure:
    """Log volume, trace, norm and loss of a point against those of its reference, against density."""
    whole = with_differences(with_density(tables["volume_pairs"], tables["levels"]))
    table = first_part(whole)
    named = table.assign(setting=[_setting(row) for row in table.to_dict("records")])
    matched = where(table, pair="matched-loss")
    gap = plain(float((matched["loss"] / matched["loss_reference"] - 1).abs().median()) * 100, 2)
    return Figure(
        key="volume-pairs",
        title="Volumes that may be compared",
        views=views(named, ["pair", "operator", "setting", "buffers"], _pairs),
        how=(
            "Log volume of a point minus that of its reference, by the same method, examples and coordinates: "
            "below zero is less volume. A pair is a solution and the dense network at matched loss, or a network after "
            "and before pruning."
        ),
        trap=(
            "Losses are matched at a point stored along the run that ended lower, so that point is not at a minimum. "
            "Where the weights' norms differ, read the adaptive operator, which does not depend on their scale."
        ),
        notes=[
            seeds_note(table),
            f"The losses of {len(matched)} matched pairs differ by {gap}% (median)." * bool(len(matched)),
            doubts_note(table, "pairs"),
            control_note(table),
            parts_note(whole, "volume", [*SOLUTION, *PAIR, "k", "eps"], "the difference"),
        ],
        caution=caution(table, "pairs"),
    )


def _setting(row: dict[str, Any]) -> str:
    """The method with what decides its answer."""
    if row["method"] == "logdet":
        return f"log-determinant, damping {row['setting']:g}, eps = {plain(row['eps'])}"
    way = "rays, " if row["method"] == "rays" else ""
    return f"{way}k = {row['k']:g}, eps = {plain(row['eps'])}"


def _pairs(frame: Frame) -> list[Panel]:
    panels = []
    for column, (title, same) in DIFFERENCES.items():
        lines = each_branch(frame, column)
        level = flat("no difference", same, frame["density"])
        panels.append(Panel(title=title, x=density_axis(frame["density"]), series=[*lines, level] if lines else []))
    return panels
