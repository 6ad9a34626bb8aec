"""Accuracy against sparsity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sublevel.report.describe import Figure, Panel, Series, view
from sublevel.report.figures.common import POINTS, density_panels
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Tables
from sublevel.report.numbers import plain
from sublevel.report.prepare import seeds_note

ACCURACY = [
    ("test_error", "Test error (%)", POINTS, False),
    ("validation_error", "Validation error (%)", POINTS, False),
    ("train_loss", "Train loss", 1.0, False),
    ("train_error", "Train error (%)", POINTS, False),
]

NEAR = 2.0
"""A branch leaves the near view above this many times what half of the branches stay below."""

CUT = "A triangle at the top edge is a point above the frame."


@figure("Accuracy", "accuracy against sparsity", "levels")
def accuracy(tables: Tables) -> Figure:
    """Test and validation error, train loss and train error against density, for every branch."""
    levels = tables["levels"]
    every = density_panels(levels, ACCURACY)
    near = [closer(panel) for panel in every]
    views = [view(near, scale="near the dense network"), view(every, scale="everything")]
    cut = near != every
    return Figure(
        key="accuracy",
        title="Accuracy against sparsity",
        views=views if cut else [view(every)],
        how=(
            "Sparsity grows to the right, from the dense network (grey line with its interval) to the last level. "
            "A branch matches the dense network as long as its interval stays near the grey band."
        ),
        trap=(
            "Overlapping intervals are no test, since the comparison is paired by seed. Read the paired differences "
            "in the claims."
        ),
        notes=[seeds_note(levels), *([f"{CUT} The other scale shows it."] if cut else [])],
    )


def closer(panel: Panel) -> Panel:
    """The panel without the height that only a few branches need: one collapse would hide every other difference."""
    drawn = [heights for s in panel.series if (heights := [y for y in s.y if np.isfinite(y)])]
    edge = NEAR * float(np.median([max(heights) for heights in drawn])) if drawn else 0.0
    if not drawn or max(map(max, drawn)) <= edge:
        return panel
    low = min(map(min, drawn))
    limits = (max(low - (edge - low) / 20, 0.0), edge)
    marks = [mark for s in panel.series if (mark := _out(s, edge, edge - (edge - limits[0]) / 40))]
    return replace(panel, y=replace(panel.y, limits=limits), series=[*panel.series, *marks], note=CUT if marks else "")


def _out(series: Series, edge: float, at: float) -> Series | None:
    """Triangles at the height ``at`` over the points of a series that lie above the edge of the frame."""
    out = [(x, y) for x, y in zip(series.x, series.y, strict=True) if np.isfinite(y) and y > edge]
    if not out:
        return None
    return Series(
        label=series.label, x=[x for x, _ in out], y=[at] * len(out), mode="points", legend=False, branch=series.label,
        style=replace(series.style, marker="triangle-up"), hover=[f"above the frame, at {plain(y, 3)}" for _, y in out],
    )  # fmt: skip
