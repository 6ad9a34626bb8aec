"""Volumes by several estimators, side by side over the height eps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, View, log_ticks, view
from sublevel.report.figures.common import views, with_network
from sublevel.report.figures.curvature import control_note
from sublevel.report.figures.measured import errors_note, measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.palette import OWN, SPARE, Style, known_first
from sublevel.report.prepare import caution, choices, doubts_note, first_part, parts_note, seeds_note, where
from sublevel.report.terms import shown
from sublevel.tables import SOLUTION

METHODS: dict[str, Style] = {
    "top-k": Style("#767676", "circle", "dot"),
    "logdet": Style("#1f78c8", "square"),
    "radial": Style("#d9601a", "diamond", "dash"),
    "importance": Style("#0a9b74", "triangle-up"),
    "thermodynamic": Style("#c7559b", "x"),
}
RADIUS = "(V / omega_n)^(1/n)"


def prepared(table: Frame) -> Frame:
    """The rows that can stand over eps, with what is known of each under the pointer.

    A row with a reason, or whose solution is not stationary at its height, is doubtful.
    """
    kept = table[np.isfinite(table["log_volume"]) & (table["eps"] > 0)]
    n = [f"n = {k:g}" if np.isfinite(k) else "" for k in kept["k"]]
    moved = np.where(kept["stationary"] == 0, "not stationary at this height", "")
    reason = np.where(kept["reason"] == "", moved, kept["reason"])
    return kept.assign(more=n, doubtful=reason != "", reason=reason)


@figure("Volume", "volumes by method", "volumes")
def compared(tables: Tables) -> Figure:
    """`by_method`, of the networks with several methods or several eps: one volume alone compares nothing."""
    made = by_method(tables)
    return replace(made, views=[v for v in made.views if any(_several(p) for p in v.panels)])


def _several(panel: Panel) -> bool:
    heights = {x for s in panel.series for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)}
    return len(panel.series) > 1 or len(heights) > 1


def by_method(tables: Tables) -> Figure:
    """Effective radius and log volume of one network over eps, one line for each method."""
    whole = prepared(tables["volumes"])
    table = first_part(whole)
    return Figure(
        key="volume-methods",
        title="One basin by every method",
        views=views(
            with_network(table), ["network", "space", "buffers"], _methods, ["space", "buffers", "branch", "level"]
        ),
        how=(
            "The effective radius of the set within eps of a network's loss, and its log volume, one line for "
            "each method. Trust the number where methods agree; on a quadratic every radius rises with slope "
            "1/2."
        ),
        trap=(
            "log V of n dimensions contains (n/2) log 2 eps, so log volumes of different n change their order "
            "with eps. Rays that are not drawn after the curvature fall short by hundreds of nats in a stretched "
            "basin."
        ),
        notes=[
            "A top-k ellipsoid has k dimensions and the others n: it is another quantity."
            * bool((table["method"] == "top-k").any()),
            errors_note(table),
            doubts_note(table, "volumes"),
            parts_note(whole, "log_volume", [*SOLUTION, "space", "method", "eps"], "the log volume"),
        ],
        caution=caution(table, "volumes"),
    )


def _methods(frame: Frame) -> list[Panel]:
    present = sorted(frame["method"].unique())
    look = {m: METHODS.get(m, SPARE[i % len(SPARE)]) for i, m in enumerate(present)}
    return _over_eps(frame, "method", {m: look[m] for m in sorted(present, key=_place)})


def _place(method: str) -> tuple[int, str]:
    return list(METHODS).index(method) if method in METHODS else len(METHODS), method


def _over_eps(frame: Frame, column: str, look: dict[str, Style]) -> list[Panel]:
    """Radius and log volume over eps, a line for each value of a column."""
    axis = Axis(title="eps (nats above the solution)", log=True, ticks=log_ticks(list(frame["eps"])))
    found: dict[str, list] = {"effective_radius": [], "log_volume": []}
    for name, style in look.items():
        rows = where(frame, **{column: name})
        found["effective_radius"] += measured(
            rows.drop(columns="se"), "effective_radius", name, style, x="eps", log=True
        )
        found["log_volume"] += measured(rows, "log_volume", name, style, x="eps")
    return [
        Panel(title=f"Effective radius {RADIUS}", x=axis, y=Axis(log=True), series=found["effective_radius"]),
        Panel(title="Log volume (nats)", x=axis, series=found["log_volume"]),
    ]


@figure("Volume", "volumes over eps", "volumes")
def over_eps(tables: Tables) -> Figure:
    """Effective radius and log volume over eps at one level, one line for each branch, by method and space."""
    table = first_part(prepared(tables["volumes"]))
    table = table[table["method"] != "top-k"]
    return Figure(
        key="volume-eps",
        title="The basins of one level, branch by branch",
        views=[v for c in choices(table, ["space", "buffers"]) for v in _levels(where(table, **c), c)],
        how=(
            "The effective radius and the log volume over eps by one method, for every branch at one level and "
            "the dense network. A line that lies higher is a wider basin by that method."
        ),
        trap=(
            "In their own subspaces the dense network has more dimensions than the pruned ones. Only in the "
            "original space, or between branches of one level, is n the same."
        ),
        notes=[seeds_note(table), errors_note(table), doubts_note(table, "volumes"), control_note(table)],
        caution=caution(table, "volumes"),
    )


def _levels(table: Frame, choice: dict[str, str]) -> list[View]:
    """For each method a view of each level, with the dense network in it."""
    found = []
    for method in sorted(table["method"].unique(), key=_place):
        rows = where(table, method=method)
        pruned = sorted(rows.loc[rows["branch"] != "dense", "level"].unique())
        for level in pruned or sorted(rows["level"].unique()):
            mine = rows[rows["level"].isin([level, 0.0])]
            panels = _over_eps(mine, "branch", dict.fromkeys(known_first(mine["branch"]), OWN))
            named = {k: shown(k, v) for k, v in choice.items()}
            found.append(view(panels, method=method, level=f"{level:g}", **named))
    return found
