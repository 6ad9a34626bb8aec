"""Volumes by several estimators, side by side over the height eps."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, log_ticks, view
from sublevel.report.figures.common import SPACES
from sublevel.report.figures.curvature import control_note
from sublevel.report.figures.measured import errors_note, measured, networks
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import SPARE, Style, known_first, styles
from sublevel.report.prepare import choices, doubts_note, first_part, parts_note, seeds_note, where
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
def by_method(tables: Tables) -> Figure:
    """Effective radius and log volume of one network over eps, one line for each method."""
    whole = prepared(tables["volumes"])
    table = first_part(whole)
    return Figure(
        key="volume-methods",
        title="One basin by every method",
        views=[
            _methods(where(table, branch=b, level=v, space=c["space"], buffers=c["buffers"]), name, c)
            for c in _spaces(table)
            for name, b, v in networks(where(table, **c))
        ],
        how=(
            "The effective radius of the set within eps of a network's loss, and its log volume, one line for "
            "each method. Where methods agree the number is the basin's; on a quadratic every radius rises with "
            "slope 1/2."
        ),
        trap=(
            "log V of n dimensions contains (n/2) log 2 eps, so log volumes of different n change their order "
            "with eps. Rays that are not drawn after the curvature fall short by hundreds of nats in a stretched "
            "basin."
        ),
        notes=[
            "A top-k ellipsoid has k dimensions and the others n: beside them it is another quantity."
            * bool((table["method"] == "top-k").any()),
            errors_note(table),
            doubts_note(int(table["doubtful"].sum()), len(table), "volumes", table.loc[table["doubtful"], "reason"]),
            parts_note(whole, "log_volume", [*SOLUTION, "space", "method", "eps"], "the log volume"),
        ],
    )


def _spaces(table: Frame) -> list[dict[str, str]]:
    rank = {s: i for i, s in enumerate(SPACES)}
    return sorted(choices(table, ["space", "buffers"]), key=lambda c: (rank.get(c["space"], 9), c["buffers"]))


def _methods(frame: Frame, name: str, choice: dict[str, str]) -> View:
    look = {m: METHODS.get(m, SPARE[i % len(SPARE)]) for i, m in enumerate(sorted(frame["method"].unique()))}
    order = [m for m in METHODS if m in look] + sorted(set(look) - set(METHODS))
    lines = [(where(frame, method=m), m, look[m]) for m in order]
    return _over_eps(frame, lines, {"network": name, **_named(choice)})


def _named(choice: dict[str, str]) -> dict[str, str]:
    return choice | {"space": SPACES.get(choice["space"], choice["space"])}


def _over_eps(frame: Frame, lines: list[tuple[Frame, str, Style]], choice: dict[str, str]) -> View:
    axis = Axis(title="eps (nats above the solution)", log=True, ticks=log_ticks(list(frame["eps"])))
    radius = [
        s for rows, label, style in lines for s in _line(rows.drop(columns="se"), "effective_radius", label, style)
    ]
    volume = [s for rows, label, style in lines for s in _line(rows, "log_volume", label, style)]
    panels = [
        Panel(title=f"Effective radius {RADIUS}", x=axis, y=Axis(log=True), series=radius),
        Panel(title="Log volume (nats)", x=axis, series=volume),
    ]
    return view(panels, **choice)


def _line(rows: Frame, value: str, label: str, style: Style) -> list[Series]:
    return measured(rows, value, label, style, by="eps", x="eps", log=value == "effective_radius")


@figure("Volume", "volumes over eps", "volumes")
def over_eps(tables: Tables) -> Figure:
    """Effective radius and log volume over eps at one level, one line for each branch, by method and space."""
    table = first_part(prepared(tables["volumes"]))
    table = table[table["method"] != "top-k"]
    return Figure(
        key="volume-eps",
        title="The basins of one level, branch by branch",
        views=[
            _branches(where(table, **c), m, level, c)
            for c in _spaces(table)
            for m in _known(where(table, **c)["method"])
            for level in _levels(where(table, method=m, **c))
        ],
        how=(
            "The effective radius and the log volume over eps by one method, for every branch at one level and "
            "the dense network. A line that lies higher is a wider basin by that method."
        ),
        trap=(
            "In their own subspaces the dense network has more dimensions than the pruned ones. Only in the "
            "original space, or between branches of one level, is n the same."
        ),
        notes=[seeds_note(table), errors_note(table), control_note(table)],
    )


def _known(methods: Frame) -> list[str]:
    found = set(methods)
    return [m for m in METHODS if m in found] + sorted(found - set(METHODS))


def _levels(frame: Frame) -> list[float]:
    return sorted(frame.loc[frame["branch"] != "dense", "level"].unique()) or sorted(frame["level"].unique())


def _branches(frame: Frame, method: str, level: float, choice: dict[str, str]) -> View:
    mine = frame[(frame["method"] == method) & (frame["level"].isin([level, 0.0]))]
    look = styles(frame["branch"])
    lines = [(where(mine, branch=b), b, look[b]) for b in known_first(mine["branch"])]
    return _over_eps(mine, lines, {"method": method, "level": f"{level:g}", **_named(choice)})
