"""Accuracy against sparsity, and whether training had come to rest."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, density_panels, faint
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import Style, known_first
from sublevel.report.prepare import over_seeds, seeds_note, where

ACCURACY = [
    ("test_error", "Test error (%)", POINTS, False),
    ("validation_error", "Validation error (%)", POINTS, False),
    ("train_loss", "Train loss", 1.0, False),
    ("train_error", "Train error (%)", POINTS, False),
]


@figure("Accuracy", "accuracy against sparsity")
def accuracy(tables: Tables) -> Figure:
    """Test and validation error, train loss and train error against density, for every branch."""
    levels = tables["levels"]
    return Figure(
        key="accuracy",
        title="Accuracy against sparsity",
        views=[view(density_panels(levels, ACCURACY))],
        how="Sparsity grows to the right, from the dense network (grey line with its interval) to the last "
        "level; a branch matches the dense network as long as its interval stays near the grey band.",
        trap="Overlapping intervals are no test: the seed is the unit and the comparison is paired, so read "
        "the verdict in the table of comparisons.",
        notes=[seeds_note(levels)],
    )


CURVES = {
    "train_loss": ("train, running and augmented", Style("#1f78c8")),
    "validation_loss": ("validation", Style("#d9601a", dash="dash")),
}


@figure("Accuracy", "learning curves")
def learning(tables: Tables) -> Figure:
    """Learning curves by epoch: of the dense network, and of each branch at its last level."""
    history = tables["history"]
    networks = _networks(history)
    return Figure(
        key="learning",
        title="Learning curves",
        views=[_curves(where(history, branch=b, level=v), name) for name, b, v in networks],
        how="Loss and held-out error by epoch, mean over seeds, with single seeds faint where there are few: "
        "a network has been trained to its plateau when both have gone flat.",
        trap="The running train loss is taken on augmented images while the weights move, so it is "
        "neither the train loss at the end nor comparable with it; claims read before a plateau are "
        "claims about speed.",
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
        Panel(title="Validation error (%)", x=axis, series=error),
    ]
    return view(panels, network=name)


def _curve(frame: Frame, column: str, label: str, style: Style) -> list[Series]:
    kept = frame[np.isfinite(frame[column]) & np.isfinite(frame["epoch"])].sort_values(["seed", "epoch"])
    means = over_seeds(kept, column, ["epoch"])
    mean = Series(label=label, x=list(means["epoch"]), y=list(means["mean"]), style=style, mode="line")
    seeds = kept["seed"].nunique()
    if not 1 < seeds <= 5 or len(kept) > 1000:
        return [mean]
    return [faint(label, kept["epoch"], kept[column], kept["seed"], style), mean]
