"""Accuracy against sparsity."""

from __future__ import annotations

from sublevel.report.describe import Figure, view
from sublevel.report.figures.common import POINTS, density_panels
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.prepare import seeds_note

ACCURACY = [
    ("test_error", "Test error (%)", POINTS, False),
    ("validation_error", "Validation error (%)", POINTS, False),
    ("train_loss", "Train loss", 1.0, False),
    ("train_error", "Train error (%)", POINTS, False),
]


@figure("Accuracy", "accuracy against sparsity", "levels")
def accuracy(tables: Tables) -> Figure:
    """Test and validation error, train loss and train error against density, for every branch."""
    levels = tables["levels"]
    return Figure(
        key="accuracy",
        title="Accuracy against sparsity",
        views=[view(density_panels(levels, ACCURACY))],
        how=(
            "Sparsity grows to the right, from the dense network (grey line with its interval) to the last level. "
            "A branch matches the dense network as long as its interval stays near the grey band."
        ),
        trap=(
            "Overlapping intervals are no test, since the comparison is paired by seed. Read the paired differences "
            "at the top of this page."
        ),
        notes=[seeds_note(levels)],
    )
