"""Accuracy against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sublevel.report.describe import Figure, Panel, Series, view
from sublevel.report.figures.common import POINTS, density_panels
from sublevel.report.figures.registry import Tables, figure
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
            "at the top of this page."
        ),
        notes=[seeds_note(levels), *(["Branches that leave the frame are whole in the other scale."] if cut else [])],
    )


def closer(panel: Panel) -> Panel:
    """The panel without the height that only a few branches need: one collapse would hide every other difference."""
    tops = [max(finite) for series in panel.series if (finite := _heights(series))]
    edge = NEAR * float(np.median(tops)) if tops else 0.0
    if not tops or max(tops) <= edge:
        return panel
    low = min(min(_heights(series)) for series in panel.series if _heights(series))
    room = (edge - low) / 20
    return replace(panel, y=replace(panel.y, limits=(max(low - room, 0.0), edge)))


def _heights(series: Series) -> Sequence[float]:
    return [y for y in series.y if np.isfinite(y)]
