"""Volumes of two points that may be compared: the same k, operator, examples and coordinates."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Figure, Panel, Series, View, view
from sublevel.report.figures.common import density_axis, flat
from sublevel.report.figures.curvature import OPERATORS, control_note
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.numbers import plain
from sublevel.report.palette import PLAIN, dashed, known_first, styles
from sublevel.report.prepare import choices, doubts_note, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

PAIRS = {
    "matched-loss": "solution and dense, at matched loss",
    "prune": "after and before pruning",
}
PAIR = ("pair", "method", "operator", "setting")
DIFFERENCES = {
    "volume": "Log volume: point minus reference (nats)",
    "trace": "Sum of the k eigenvalues: ratio to the reference",
    "norm": "Weight norm: ratio to the reference",
    "gap": "Loss: point minus reference",
}


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
    return Figure(
        key="volume-pairs",
        title="Volumes that may be compared",
        views=[_pairs(rows, choice) for rows, choice in _views(table)],
        how=(
            "Log volume of a point minus that of its reference, by the same method, examples and coordinates: "
            "below zero is less volume. Choose a solution beside the dense network at matched loss, or a network "
            "after its pruning beside the same before it."
        ),
        trap=(
            "Losses are matched by taking the run that ended lower at a point that it stored on its way, which is no "
            "minimum. Where the weights' norms differ read the adaptive operator, which does not see their scale."
        ),
        notes=[
            seeds_note(table),
            _gaps(table),
            doubts_note(int(table["doubtful"].sum()), len(table), "pairs", table.loc[table["doubtful"], "reason"]),
            control_note(table),
            parts_note(whole, "volume", [*SOLUTION, *PAIR, "k", "eps"], "the difference"),
        ],
    )


def _views(table: Frame) -> list[tuple[Frame, dict[str, str]]]:
    """Pair, operator, k with eps and policy; matched losses first, the Hessian first."""
    table = table.assign(setting=[_setting(row) for _, row in table.iterrows()])
    first, rank = list(PAIRS), list(OPERATORS)
    found = choices(table, ["pair", "operator", "setting", "buffers"])
    found.sort(key=lambda c: (c["pair"] not in first, c["pair"], c["operator"] not in rank, rank.index(c["operator"])
                              if c["operator"] in rank else 0))  # fmt: skip
    return [
        (
            where(table, **c),
            c | {"pair": PAIRS.get(c["pair"], c["pair"]), "operator": OPERATORS.get(c["operator"], c["operator"])},
        )
        for c in found
    ]


def _setting(row: Frame) -> str:
    """The method with what decides its answer."""
    if row["method"] == "logdet":
        return f"log-determinant, damping {row['setting']:g}, eps = {plain(row['eps'])}"
    way = "rays, " if row["method"] == "rays" else ""
    return f"{way}k = {row['k']:g}, eps = {plain(row['eps'])}"


def _gaps(table: Frame) -> str:
    matched = where(table, pair="matched-loss")
    if matched.empty:
        return ""
    gaps = (matched["loss"] / matched["loss_reference"] - 1).abs()
    return f"The losses of {len(matched)} matched pairs differ by {plain(float(gaps.median()) * 100, 2)}% (median)."


def _pairs(frame: Frame, choice: dict[str, str]) -> View:
    axis = density_axis(frame["density"])
    same = {"volume": 0.0, "trace": 1.0, "norm": 1.0, "gap": 0.0}
    panels = []
    for column, title in DIFFERENCES.items():
        lines = _branches(frame, column)
        level = flat("no difference", same[column], frame["density"], dashed(PLAIN, "dot"))
        panels.append(Panel(title=title, x=axis, series=[*lines, level] if lines else []))
    return view(panels, **choice)


def _branches(frame: Frame, value: str) -> list[Series]:
    look = styles(frame["branch"])
    return [s for b in known_first(frame["branch"]) for s in measured(where(frame, branch=b), value, b, look[b])]
