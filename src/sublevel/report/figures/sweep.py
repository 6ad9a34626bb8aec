"""A sweep of the fraction: one pruning step of many sizes, and what it does to error and barrier."""

from __future__ import annotations

from dataclasses import replace

from sublevel.claims.branches import Branches
from sublevel.report.describe import Axis, Figure, Panel, Series, View, titles, view
from sublevel.report.figures.common import POINTS, flat
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.palette import Style
from sublevel.report.prepare import choices, seeds_note, where

LOOK = Style("#1f78c8", "circle")
BARRIERS = (
    ("error_barrier", "Test error barrier to the dense network (points)", "test", POINTS),
    ("loss_barrier", "Train loss barrier to the dense network", "train", 1.0),
)


@figure("What pruning and retraining do", "sweep of the fraction", "levels", sweep=True)
def fractions(tables: Tables) -> Figure:
    """Test error and barrier to the dense network after one pruning step, against the fraction that it prunes."""
    levels, paths = tables["levels"], where(tables["paths"], path="to-dense")
    once = first_steps(levels)
    ends = paths.merge(once[["branch", "seed", "fraction"]], on=["branch", "seed"])
    ends = ends[ends["level_to"] == 1.0]
    shown = choices(ends, ["order", "buffers"]) or [{}] * bool(len(once))
    drawn = [_fractions(once, where(ends, **c), levels, c) for c in shown]
    barrier = "barrier" in titles(drawn)
    return Figure(
        key="fractions",
        title="How much may one step prune?",
        views=drawn,
        how=(
            "Each point is a network pruned once, by another fraction, then rewound and trained: its test error"
            + ", and its barrier to the dense network" * barrier
            + ". Dotted is the dense network's test error."
        ),
        trap=(
            "A fraction that is harmless once may do harm ten times."
            + " A barrier of zero means a flat segment, not equal networks." * barrier
        ),
        notes=[seeds_note(once, ["fraction"])],
        columns=3,
    )


def first_steps(levels: Frame) -> Frame:
    """The networks of a sweep and IMP's own first level, with the ``fraction`` that was pruned.

    By imp's own criterion: the columns of ``levels`` say what a branch is. Empty where there is no sweep.
    """
    labels = {v.label for v in Branches(levels).steps()}
    mine = levels[levels["branch"].isin(labels) & (levels["level"] == 1.0)]
    return mine.assign(fraction=(1.0 - mine["density"]).round(4))


def _fractions(once: Frame, ends: Frame, levels: Frame, choice: dict[str, str]) -> View:
    # The networks that these barriers are of: another data order is another branch of the same fraction.
    once = once[once["branch"].isin(ends["branch"])] if len(ends) else once
    ticks: list[float] = []
    for value in sorted(set(once["fraction"])):
        if not ticks or value - ticks[-1] >= 0.14:  # room between their labels
            ticks.append(float(value))
    axis = Axis(title="fraction pruned", hover=".3~p", ticks=tuple((v, f"{100 * v:.3g}%") for v in ticks))
    dense = where(levels, branch="dense")["test_error"].mean() * POINTS
    error = [*_line(once, "test_error", POINTS), flat("dense", float(dense), once["fraction"])]
    panels = [Panel(title="Test error (%)", x=axis, y=Axis(share=True), series=error)]
    for column, title, split, scale in BARRIERS:
        panels.append(Panel(title=title, x=axis, series=_line(where(ends, split=split), column, scale)))
    return view(panels, **choice)


def _line(frame: Frame, value: str, scale: float) -> list[Series]:
    """A mean by fraction; the pointer names the branches."""
    names = frame.groupby("fraction")["branch"].agg(lambda b: ", ".join(sorted(set(b))))
    return [
        replace(s, hover=[f"{h}; {names[x]}" for x, h in zip(s.x, s.hover, strict=True)])
        for s in measured(frame, value, "pruned once", LOOK, x="fraction", scale=scale, dots=True)
    ]
