"""Learning curves: whether training had converged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series
from sublevel.report.figures.common import POINTS, bare, views, with_network
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.palette import Style

CURVES = {
    "train_loss": ("train (running mean)", Style("#1f78c8")),
    "validation_loss": ("validation", Style("#d9601a", dash="dash")),
}


@figure("Appendix", "learning curves", "history")
def learning(tables: Tables) -> Figure:
    """Learning curves by epoch: of the dense network, and of each branch at its last level."""
    history = tables["history"]
    few = bool(len(history)) and history["seed"].nunique() <= 5
    last = history[history["level"] == history.groupby("branch")["level"].transform("max")]
    return Figure(
        key="learning",
        title="Learning curves",
        views=views(with_network(last), ["network"], _curves, ["branch"]),
        how=(
            "Loss and held-out error by epoch, of the dense network and of each branch at its last level. "
            "Training has reached its plateau where both are flat."
        ),
        trap=(
            "The train loss is a running mean over an epoch, with augmentation if the study has any, so it is not the "
            "train loss at the end. A claim read before the plateau is a claim about speed."
        ),
        notes=["Means over seeds; single seeds are faint dots." if few else "Means over seeds."] * bool(len(history)),
        pooled=not few,
    )


def _curves(frame: Frame) -> list[Panel]:
    axis = Axis(title="epoch")
    loss = [s for c, (label, look) in CURVES.items() for s in _curve(frame, c, label, look)]
    error = _curve(frame, "validation_error", *CURVES["validation_loss"], scale=POINTS)
    return [
        Panel(title="Loss", x=axis, series=loss),
        Panel(title="Validation error (%)", x=axis, y=Axis(share=True), series=error),
    ]


def _curve(frame: Frame, column: str, label: str, style: Style, scale: float = 1.0) -> list[Series]:
    kept = frame[np.isfinite(frame[column]) & np.isfinite(frame["epoch"])].sort_values(["seed", "epoch"])
    found = measured(kept, column, label, style, x="epoch", scale=scale, dots=len(kept) <= 1000)
    few = kept["seed"].nunique() <= 5
    return [replace(s, samples=s.samples if few else None) for s in bare(found)]
