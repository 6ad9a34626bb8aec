"""Figures of checkpoints that were trained elsewhere: one place on the axis, or one line, for each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from sublevel.claims.checkpoints import pairs
from sublevel.claims.margins import RISE_MARGIN
from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, flat, level_axis, views
from sublevel.report.figures.densities import QUANTITIES, smoothed
from sublevel.report.figures.measured import measured, shortened
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import OWN, Style
from sublevel.report.prepare import choices, first_part, where
from sublevel.report.terms import SPACES, shown

LETTERS = 45
"""Letters of names that fit beneath a panel; where there are more, places are numbered and named under the pointer."""
LOSSES = (
    ("test_error", "Test error (%)", POINTS), ("train_loss", "Train loss", 1.0),
    ("train_error", "Train error (%)", POINTS), ("test_loss", "Test loss", 1.0),
)  # fmt: skip


def names(table: Frame) -> list[str]:
    """The checkpoints of a table in the order in which they were given."""
    return list(dict.fromkeys(table.sort_values("level", kind="stable")["branch"]))


def categories(labels: Sequence[str]) -> Axis:
    """An axis with a name, or a number, at each of some places."""
    named = sum(map(len, labels)) <= LETTERS
    ticks = tuple((float(i), label if named else str(i)) for i, label in enumerate(labels, start=1))
    limits = (0.5, len(labels) + 0.5)  # room for the last name
    return Axis(title="" if named else "number in the legend or note", ticks=ticks, hover="", limits=limits)


def each(table: Frame, value: str, order: Sequence[str], scale: float = 1.0) -> list[Series]:
    """One point for each checkpoint, at its place."""
    rows = table.assign(place=table["branch"].map({name: i for i, name in enumerate(order, start=1)}))
    points = [measured(where(rows, branch=b), value, b, OWN, x="place", scale=scale, dots=False) for b in order]
    return [s for found in points for s in found]


@figure("Accuracy", "loss and error of each checkpoint", "levels", of="checkpoints")
def losses(tables: Tables) -> Figure:
    """Loss and error on training and test data, one point for each checkpoint."""
    table = tables["levels"]
    order = names(table)
    return Figure(
        key="checkpoints-accuracy",
        title="Loss and error of each checkpoint",
        views=[view([
            Panel(title=title, x=categories(order), y=Axis(share=scale == POINTS), series=each(table, c, order, scale))
            for c, title, scale in LOSSES
        ])],
        how="Each checkpoint has one place. The losses are those of the checkpoint's own function on all examples.",
        trap=(
            "Inputs are normalised as stated under Setup. A network that was trained with another normalisation has a "
            "high loss here."
        ),
    )  # fmt: skip


@figure("Paths and barriers", "segments between checkpoints", "joins", of="checkpoints")
def segments(tables: Tables) -> Figure:
    """The rise of the train loss on the segment between every two checkpoints, with the margin."""
    found: Frame = pairs(tables["joins"], tables["levels"])
    labels = [f"{row.a} to {row.b}" for row in found.itertuples()]
    rises = [
        Series(label=label, x=[i], y=[POINTS * rise], style=Style("#1f78c8", "circle"), mode="points", legend=False,
               hover=[label])
        for i, (label, rise) in enumerate(zip(labels, found["rise"], strict=True), start=1)
    ]  # fmt: skip
    limit = flat(f"margin, {POINTS * RISE_MARGIN:g}%", POINTS * RISE_MARGIN, range(1, max(2, len(labels)) + 1))
    title = "Rise of the train loss over the higher end (%)"
    return Figure(
        key="checkpoints-segments",
        title="Does a straight segment join them?",
        views=[view([Panel(title=title, x=categories(labels), series=[*rises, limit])])] if rises else [],
        how="One point for each pair of checkpoints. Below the margin, the two share a basin along a straight line.",
        trap=(
            "A rise on the segment does not exclude a curve without one. Between different initialisations it may be "
            "only a permutation of hidden units."
        ),
        notes=[f"{', '.join(f'{i}: {label}' for i, label in enumerate(labels, start=1))}." * bool(labels)],
        columns=1,
    )


@figure("Paths and barriers", "loss along segments from the first checkpoint", "profiles", of="checkpoints")
def profiles(tables: Tables) -> Figure:
    """Loss and error along the segment from the first checkpoint to each other, one line for each."""
    table = where(tables["profiles"], path="to-dense")
    first = next(iter(names(tables["levels"])), "")
    return Figure(
        key="checkpoints-profiles",
        title=f"From {shortened(first, 40)} to each other checkpoint",
        views=views(table, ["split", "buffers"], _profiles),
        how="Loss and error along straight segments, one line for each end. A bump between the ends is a barrier.",
        trap="A grid maximum is a lower bound of the path's maximum. A curve may pass where a segment does not.",
    )


def _profiles(frame: Frame) -> list[Panel]:
    axis = Axis(title="alpha", hover=".3~g")
    panels = []
    for column, title, scale in (("loss", "Loss", 1.0), ("error", "Error (%)", POINTS)):
        ends = choices(frame, ["branch", "level_to"], ["level_to"])
        lines = [_line(where(frame, **end), "alpha", column, end["branch"], scale) for end in ends]
        panels.append(Panel(title=title, x=axis, y=Axis(share=scale == POINTS), series=lines))
    return panels


def _line(rows: Frame, x: str, y: str, label: str, scale: float = 1.0) -> Series:
    rows = rows.sort_values(x)
    return Series(label=label, x=list(rows[x]), y=list(scale * rows[y]), style=OWN, mode="line", branch=label)


@figure("Curvature", "largest eigenvalues of each checkpoint", "spectra", of="checkpoints")
def eigenvalues(tables: Tables) -> Figure:
    """The largest eigenvalues by index, one line for each checkpoint, in each space."""
    table = first_part(where(tables["spectra"], end="largest"))
    return Figure(
        key="checkpoints-eigenvalues",
        title="The largest eigenvalues",
        views=views(table[table["space"].isin(list(SPACES))], ["operator", "buffers"], _eigenvalues),
        how="The largest eigenvalues of the curvature of the train loss by index, one line for each checkpoint.",
        trap=(
            "In its own subspace a pruned network has fewer dimensions, which alone can lower its eigenvalues. Compare "
            "at equal loss: near zero loss the Hessian of the cross-entropy vanishes."
        ),
    )


def _eigenvalues(frame: Frame) -> list[Panel]:
    axis = level_axis(frame["index"], "index")
    panels = []
    for space in (s for s in SPACES if (frame["space"] == s).any()):
        mine = where(frame, space=space)
        lines = [
            Series(label=b, x=list(rows["index"]), y=list(rows["eigenvalue"]), style=OWN,
                   hollow=list(rows["converged"] == 0))
            for b in names(mine) if len(rows := where(mine, branch=b).sort_values("index"))
        ]  # fmt: skip
        panels.append(Panel(title=f"Largest, {SPACES[space]}", x=axis, y=Axis(log=True), series=lines))
    return panels


@figure("Curvature", "spectral densities of each checkpoint", "densities", of="checkpoints")
def spectra(tables: Tables) -> Figure:
    """The density of all eigenvalues, one line for each checkpoint, overlaid."""
    table = first_part(tables["densities"])
    table = table[np.isfinite(table["node"]) & (table["weight"] > 0)]
    return Figure(
        key="checkpoints-densities",
        title="The density of the eigenvalues",
        views=views(table, ["space", "operator", "buffers"], _densities),
        how=(
            "The density of all eigenvalues by stochastic Lanczos quadrature, one line for each checkpoint: the bulk "
            "around zero, outliers to the right, negative curvature to the left."
        ),
        trap="A height is a share of its own space's dimensions. Ripples of the bulk are the method's.",
        pooled=True,
        columns=1,
    )


def _densities(frame: Frame) -> list[Panel]:
    curves, axis = smoothed(frame, [(b, where(frame, branch=b)) for b in names(frame)])
    return [Panel(title="Density per unit of the axis", x=axis, y=Axis(log=True, hover=".3~g"), series=curves)]


@figure("Curvature", "trace and log-determinant of each checkpoint", "estimates", of="checkpoints")
def estimates(tables: Tables) -> Figure:
    """What is read off whole spectra and chains, one point for each checkpoint."""
    table = first_part(tables["estimates"])
    table = table[np.isfinite(table["value"])].assign(doubtful=table["reason"] != "")
    found = choices(table, ["space", "operator", "buffers"])
    return Figure(
        key="checkpoints-estimates",
        title="Trace, negative eigenvalues, log-determinant",
        views=[_estimates(where(table, **c), c, names(tables["levels"])) for c in found],
        how="One point for each checkpoint, its bar two standard errors of the estimate. Hollow points are unreliable.",
        trap="Do not compare log-determinants of different dimension: one without curvature adds log(delta).",
    )


def _estimates(rows: Frame, choice: dict[str, str], order: Sequence[str]) -> View:
    panels = []
    for c in choices(rows.fillna({"setting": math.inf}), ["quantity", "setting"]):
        mine = where(rows.fillna({"setting": math.inf}), **c)
        delta = f", delta = {plain(c['setting'])}" if c["quantity"] == "log-determinant" else ""
        title = QUANTITIES.get(c["quantity"], c["quantity"]) + delta
        panels.append(Panel(title=title, x=categories(order), series=each(mine, "value", order)))
    return view(panels, **{k: shown(k, v) for k, v in choice.items()})


@figure("Volume", "volume of each checkpoint", "volumes", of="checkpoints")
def volumes(tables: Tables) -> Figure:
    """The log volume of each checkpoint's basin, by method and height."""
    table = first_part(tables["volumes"])
    table = table[np.isfinite(table["log_volume"])].assign(doubtful=table["reason"] != "")
    draw = partial(_volumes, order=names(tables["levels"]))
    return Figure(
        key="checkpoints-volumes",
        title="The volume of each basin",
        views=views(table, ["method", "space", "buffers"], draw),
        how="The log volume of the points around each checkpoint whose loss is at most eps higher. Hollow: unreliable.",
        trap="Volumes of different dimension cannot be compared, and a saddle has no basin of its own.",
    )


def _volumes(frame: Frame, order: Sequence[str]) -> list[Panel]:
    return [
        Panel(title=f"Log volume, eps = {plain(c['eps'])}", x=categories(order),
              series=each(where(frame, **c), "log_volume", order))
        for c in choices(frame, ["eps"])
    ]  # fmt: skip
