"""Learning curves: whether training had come to rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, samples
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import Style, known_first
from sublevel.report.prepare import over_seeds, where

CURVES = {
    "train_loss": ("train, running and augmented", Style("#1f78c8")),
    "validation_loss": ("validation", Style("#d9601a", dash="dash")),
}


@figure("Appendix", "learning curves", "history")
def learning(tables: Tables) -> Figure:
    """Learning curves by epoch: of the dense network, and of each branch at its last level."""
    history = tables["history"]
    few = bool(len(history)) and history["seed"].nunique() <= 5
    networks = _networks(history)
    return Figure(
        key="learning",
        title="Learning curves",
        views=[_curves(where(history, branch=b, level=v), name) for name, b, v in networks],
        how=(
            "Loss and held-out error by epoch, of the dense network and of each branch at its last level. "
            "Training has reached its plateau where both are flat."
        ),
        trap=(
            "The running train loss is taken on augmented images while the weights move, so it is not the train "
            "loss of the end. A claim read before the plateau is a claim about speed."
        ),
        notes=["Means over seeds; single seeds are faint dots." if few else "Means over seeds."] * bool(len(history)),
        pooled=not few,
    )


def _networks(history: Frame) -> list[tuple[str, str, float]]:
    last = history.groupby("branch")["level"].max()
    found = [(b, float(last[b])) for b in known_first(history["branch"])]
    return [("dense" if b == "dense" else f"{b}, level {int(v)}", b, v) for b, v in found]


def _curves(frame: Frame, name: str) -> View:
    axis = Axis(title="epoch")
    loss = [s for c, (label, look) in CURVES.items() for s in _curve(frame, c, label, look)]
    error = _curve(frame.assign(e=frame["validation_error"] * POINTS), "e", *CURVES["validation_loss"])
    panels = [
        Panel(title="Loss", x=axis, series=loss),
        Panel(title="Validation error (%)", x=axis, y=Axis(share=True), series=error),
    ]
    return view(panels, network=name)


def _curve(frame: Frame, column: str, label: str, style: Style) -> list[Series]:
    kept = frame[np.isfinite(frame[column]) & np.isfinite(frame["epoch"])].sort_values(["seed", "epoch"])
    means = over_seeds(kept, column, ["epoch"])
    single = samples(kept, column, means, "epoch", dots=True) if kept["seed"].nunique() <= 5 else None
    return [Series(label=label, x=list(means["epoch"]), y=list(means["mean"]), style=style, mode="line",
                   samples=single and replace(single, dots=len(kept) <= 1000))]  # fmt: skip
