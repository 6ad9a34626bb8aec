"""Accuracy against sparsity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sublevel.report.describe import Figure, Panel, view
from sublevel.report.figures.common import POINTS, density_panels
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Tables
from sublevel.report.prepare import seeds_note

ACCURACY = [
    ("test_error", "Test error (%)", POINTS, False),
    ("validation_error", "Validation error (%)", POINTS, False),
    ("train_loss", "Train loss", 1.0, False),
    ("train_error", "Train error (%)", POINTS, False),
]

NEAR = 2.0
"""A branch leaves the near view above this many times what half of the branches stay below."""


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
        notes=[seeds_note(levels), *(["The other scale shows the branches that leave the frame."] if cut else [])],
    )


def closer(panel: Panel) -> Panel:
    """The panel without the height that only a few branches need: one collapse would hide every other difference."""
    drawn = [heights for s in panel.series if (heights := [y for y in s.y if np.isfinite(y)])]
    edge = NEAR * float(np.median([max(heights) for heights in drawn])) if drawn else 0.0
    if not drawn or max(map(max, drawn)) <= edge:
        return panel
    low = min(map(min, drawn))
    return replace(panel, y=replace(panel.y, limits=(max(low - (edge - low) / 20, 0.0), edge)))
