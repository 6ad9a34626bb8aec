"""Membership: which solutions lie in the dense network's connected sublevel set, at which height."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series
from sublevel.report.figures.common import DOTTED, density_axis, sparse, views
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import OWN, Style, known_first
from sublevel.report.prepare import first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

PATHS = {
    "segment_max": ("segment", Style("#d9601a", "square")),
    "curve_max": ("curve", Style("#1f78c8", "circle")),
}
THRESHOLD = ("threshold: the higher end", Style("#767676", "diamond", "dot"))
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
        views=views(sparse(table), ["branch", "buffers"], _heights),
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
            *_effort(table),
            seeds_note(table),
            parts_note(whole, "lowest_max", [*SOLUTION, "buffers"], "the lowest maximum"),
        ],
    )


def _told_apart(table: Frame) -> Frame:
    """Solutions whose hidden units were matched first are a branch of their own."""
    return table.assign(branch=table["branch"].where(table["aligned"] != 1, table["branch"] + ", units matched"))


def _effort(table: Frame) -> list[str]:
    """How many solutions were joined, by what, and what a curve cost."""
    counts = table["found"].value_counts()
    words = [f"{counts[k]} by {name}" for k, name in (("segment", "a segment"), ("curve", "a curve")) if k in counts]
    missed = int(counts.get("not found", 0))
    joined = f" ({', '.join(words)})" if words else ""
    tried = table[table["gradient_steps"] > 0]
    steps, seen = (plain(float(tried[c].median())) for c in ("gradient_steps", "evaluations"))
    return [
        f"{len(table) - missed} of {len(table)} solutions joined{joined}; {missed} not found." * bool(len(table)),
        f"Effort for a curve (median): {steps} gradient steps, {seen} evaluations." * bool(len(tried)),
    ]


def _heights(frame: Frame) -> list[Panel]:
    axis, certain = density_axis(frame["density"]), frame.drop(columns="doubtful")
    heights = [s for c, (label, style) in PATHS.items() for s in measured(frame, c, label, style)]
    heights += [replace(s, low=None, high=None) for s in measured(certain, "threshold", *THRESHOLD)]
    excess = measured(frame, "excess", "lowest maximum", Style("#8667bd", "triangle-up"))
    # The loss at one end of the paths: where it decides the threshold, the path is not to blame.
    ends = [s for c in ENDS for s in measured(certain, c, *ENDS[c])]
    return [
        Panel(title="Largest train loss on the path", x=axis, series=heights),
        Panel(title="Excess over the threshold", x=axis, series=excess),
        Panel(title="Train loss at the two ends", x=axis, series=ends),
    ]


@figure("Sublevel sets", "share of solutions joined at each height", "membership")
def shares(tables: Tables) -> Figure:
    """The share of a branch's solutions that are joined to the dense network, as a function of the height c."""
    whole = tables["membership"]
    missing = int((~np.isfinite(whole["lowest_max"])).sum())
    table = first_part(_told_apart(with_density(whole, tables["levels"])))
    table = table[np.isfinite(table["lowest_max"])]
    dense = where(tables["levels"], branch="dense")["train_loss"]
    draw = partial(_shares, dense=float(dense.mean()) if dense.notna().any() else math.nan)
    return Figure(
        key="membership-share",
        title="Which share lies in the dense network's sublevel set, for every threshold",
        views=views(table.assign(level="all"), ["level", "buffers"], draw) + views(table, ["level", "buffers"], draw),
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
            f"{missing} of {len(whole)} solutions have no maximum and are not counted." * bool(missing),
            "The dotted line is the dense network's own train loss." * bool(dense.notna().any()),
        ],
        pooled=True,
    )


def _shares(frame: Frame, dense: float) -> list[Panel]:
    panels = []
    for column, title, x in (
        ("lowest_max", "Joined at or below the height c (%)", "height c (train loss)"),
        ("excess", "Joined at or below threshold + excess (%)", "excess over the threshold"),
    ):
        pad = 0.05 * (float(np.ptp(frame[column])) or 1.0)
        ends = (float(frame[column].min()) - pad, float(frame[column].max()) + pad)
        lines = [_steps(where(frame, branch=b)[column], b, ends) for b in known_first(frame["branch"])]
        if column == "lowest_max" and math.isfinite(dense):
            lines.append(Series(label="dense train loss", x=[dense, dense], y=[0.0, 100.0], style=DOTTED, mode="line"))
        panels.append(Panel(title=title, x=Axis(title=x), y=Axis(hover=".3~g", share=True), series=lines))
    return panels


def _steps(values: Frame, label: str, ends: tuple[float, float]) -> Series:
    """The empirical distribution function from end to end of the axis: at each value it rises by 1 / n."""
    at = np.sort(values[np.isfinite(values)].to_numpy(dtype=float))
    x = [ends[0], *np.repeat(at, 2), ends[1]]
    counts = np.repeat(np.arange(len(at) + 1), 2)
    return Series(
        label=label, x=[float(v) for v in x], y=[100.0 * float(c) / len(at) for c in counts], style=OWN, mode="line",
        hover=[f"{c} of {len(at)}" for c in counts],
    )  # fmt: skip
