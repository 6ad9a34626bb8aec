"""Membership: which solutions lie in the dense network's connected sublevel set, at which height."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import density_axis
from sublevel.report.figures.measured import measured, sparse_branches
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.numbers import plain
from sublevel.report.palette import PLAIN, Style, dashed, known_first, styles
from sublevel.report.prepare import choices, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

PATHS = {
    "segment_max": ("segment", Style("#d9601a", "square")),
    "curve_max": ("curve", Style("#1f78c8", "circle")),
    "threshold": ("threshold: the higher end", Style("#767676", "diamond", "dot")),
}
ENDS = {
    "loss": ("the solution", Style("#1f78c8", "circle")),
    "loss_dense": ("the dense network", Style("#767676", "diamond", "dash")),
}


@figure("Sublevel sets", "membership", "membership")
def membership(tables: Tables) -> Figure:
    """The maxima of segment and trained curve from the dense network to each solution, beside the threshold."""
    whole = _told_apart(with_density(tables["membership"], tables["levels"]))
    whole = whole.assign(doubtful=whole["found"] == "not found", reason="not found below its threshold")
    table = first_part(whole)
    return Figure(
        key="membership",
        title="Joined to the dense network below a height?",
        views=[
            _heights(where(table, branch=b, **c), {"branch": b, **c})
            for b in sparse_branches(table)
            for c in choices(where(table, branch=b), ["buffers"])
        ],
        how=(
            "The largest train loss on the segment from the dense network, and on a curve trained to stay low, "
            "beside the threshold: the loss of the higher end. Then the excess over it, where 0 means one "
            "connected sublevel set and hollow means not found."
        ),
        trap=(
            "Not found is not outside, since another curve may pass below the threshold. Each maximum is an upper "
            "bound of the height at which two solutions join."
        ),
        columns=3,
        notes=[
            _found(table),
            _effort(table),
            seeds_note(table),
            parts_note(whole, "lowest_max", [*SOLUTION, "buffers"], "the lowest maximum"),
        ],
    )


def _told_apart(table: Frame) -> Frame:
    """Solutions whose hidden units were matched first are a branch of their own."""
    return table.assign(branch=table["branch"].where(table["aligned"] != 1, table["branch"] + ", units matched"))


def _found(table: Frame) -> str:
    if table.empty:
        return ""
    counts = table["found"].value_counts()
    words = [f"{counts[k]} by {name}" for k, name in (("segment", "a segment"), ("curve", "a curve")) if k in counts]
    missed = int(counts.get("not found", 0))
    joined = f" ({', '.join(words)})" if words else ""
    return f"{len(table) - missed} of {len(table)} solutions joined{joined}; {missed} not found."


def _effort(table: Frame) -> str:
    tried = table[table["gradient_steps"] > 0]
    if tried.empty:
        return ""
    steps, seen = tried["gradient_steps"].median(), tried["evaluations"].median()
    return f"Effort for a curve (median): {plain(float(steps))} gradient steps, {plain(float(seen))} evaluations."


def _heights(frame: Frame, choice: dict[str, str]) -> View:
    axis = density_axis(frame["density"])
    heights = [s for c, (label, style) in list(PATHS.items())[:2] for s in measured(frame, c, label, style)]
    bound = measured(frame.drop(columns="doubtful"), "threshold", *PATHS["threshold"])[-1:]
    heights += [replace(s, low=None, high=None) for s in bound]
    excess = measured(frame, "excess", "lowest maximum", Style("#8667bd", "triangle-up"))
    panels = [
        Panel(title="Largest train loss on the path", x=axis, series=heights),
        Panel(title="Excess over the threshold", x=axis, series=excess),
        Panel(title="Train loss at the two ends", x=axis, series=[s for c in ENDS for s in _end(frame, c)]),
    ]
    return view(panels, **choice)


def _end(frame: Frame, column: str) -> list[Series]:
    """The loss at one end of the paths: where it decides the threshold, the path is not to blame."""
    return measured(frame.drop(columns="doubtful"), column, *ENDS[column])


@figure("Sublevel sets", "share of solutions joined at each height", "membership")
def shares(tables: Tables) -> Figure:
    """The share of a branch's solutions that are joined to the dense network, as a function of the height c."""
    table = first_part(_told_apart(with_density(tables["membership"], tables["levels"])))
    table = table[np.isfinite(table["lowest_max"])]
    every = [("all", table), *((f"{v:g}", where(table, level=v)) for v in sorted(table["level"].unique()))]
    dense = where(tables["levels"], branch="dense")["train_loss"]
    return Figure(
        key="membership-share",
        title="Which share lies in the dense network's sublevel set, for every threshold",
        views=[
            _shares(where(rows, **c), dense, {"level": level, **c})
            for level, rows in every
            for c in choices(rows, ["buffers"])
        ],
        how=(
            "For every height c, the share of a branch's solutions that a path with no loss above c joins to the "
            "dense network of their seed; right, the same over each one's own threshold. A line that rises early "
            "lies in the dense network's basin."
        ),
        trap=(
            "Each line is a lower bound of the true share, since not found is not outside. A branch for which "
            "less effort was spent lies lower for that reason alone."
        ),
        notes=[
            _unmeasured(tables["membership"]),
            "The dotted line is the dense network's own train loss." * bool(dense.notna().any()),
        ],
        pooled=True,
    )


def _unmeasured(table: Frame) -> str:
    missing = int((~np.isfinite(table["lowest_max"])).sum())
    return f"{missing} of {len(table)} solutions have no maximum and are not counted." if missing else ""


def _shares(frame: Frame, dense: Frame, choice: dict[str, str]) -> View:
    look = styles(frame["branch"])
    mark = float(dense.mean()) if dense.notna().any() else math.nan
    panels = []
    for column, title, x in (
        ("lowest_max", "Joined at or below the height c (%)", "height c (train loss)"),
        ("excess", "Joined at or below threshold + excess (%)", "excess over the threshold"),
    ):
        pad = 0.05 * (float(np.ptp(frame[column])) or 1.0)
        ends = (float(frame[column].min()) - pad, float(frame[column].max()) + pad)
        lines = [_steps(where(frame, branch=b)[column], b, look[b], ends) for b in known_first(frame["branch"])]
        if column == "lowest_max" and math.isfinite(mark):
            style = dashed(PLAIN, "dot")
            lines.append(Series(label="dense train loss", x=[mark, mark], y=[0.0, 100.0], style=style, mode="line"))
        panels.append(Panel(title=title, x=Axis(title=x), y=Axis(hover=".3~g", share=True), series=lines))
    return view(panels, **choice)


def _steps(values: Frame, label: str, style: Style, ends: tuple[float, float]) -> Series:
    """The empirical distribution function from end to end of the axis: at each value it rises by 1 / n."""
    at = np.sort(values[np.isfinite(values)].to_numpy(dtype=float))
    x = [ends[0], *np.repeat(at, 2), ends[1]]
    counts = np.repeat(np.arange(len(at) + 1), 2)
    return Series(
        label=label, x=[float(v) for v in x], y=[100.0 * float(c) / len(at) for c in counts], style=style, mode="line",
        hover=[f"{c} of {len(at)}" for c in counts],
    )  # fmt: skip
