"""Paths between solutions: the profiles, and what they sum up to."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from sublevel.claims.margins import ERROR_MARGIN
from sublevel.report.describe import Axis, Figure, Panel, Series
from sublevel.report.figures.common import POINTS, bare, by_branch, density_axis, flat, level_look, views
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import percent
from sublevel.report.palette import Style
from sublevel.report.prepare import choices, seeds_note, where, with_density

SEGMENT = (
    "A segment below a threshold certifies it at the grid's resolution only. One that rises above it proves nothing, "
    "since a curve may pass where the segment does not."
)
KINDS = {  # title, where it goes, trap
    "successive": (
        "From one solution to the next",
        "from a level's solution (alpha = 0) to the next (alpha = 1)",
        SEGMENT,
    ),
    "to-dense": (
        "From the dense network to each solution",
        "from the dense network (alpha = 0) to a level's solution (alpha = 1)",
        "The maximum over a grid is a lower bound of the path's maximum. Between different initialisations a barrier "
        "may be only a permutation of hidden units.",
    ),
    "to-dense-aligned": (
        "From the dense network to each solution, hidden units matched",
        "from the dense network (alpha = 0) to a level's solution with its hidden units permuted to match (alpha = 1)",
        "Matching is greedy, so a barrier that is left may still be a permutation that it missed. The permuted "
        "solution is the same function, but lies outside its own mask's subspace.",
    ),
    "from-start": (
        "From the rewound start to the solution",
        "from the rewound start m * theta_k (alpha = 0) to the solution that it was trained to (alpha = 1)",
        "A line that only falls puts start and solution in one connected sublevel set. It does not say that training "
        "went that way.",
    ),
    "start-to-dense": (
        "From the rewound start to the dense network",
        "from the rewound start m * theta_k (alpha = 0) to the dense network (alpha = 1)",
        "The start has a high loss of its own, so judge the line against its higher end. A line that only falls joins "
        "the two below the start's loss, and not below the dense network's.",
    ),
    "orders": (
        "Between two data orders from the same start",
        "between two networks that differ only in the order of their data",
        "This barrier is a comparator and not a noise floor. Levels that share one order may have lower barriers than "
        "levels with independent ones.",
    ),
}
INSTABILITY = "instability"
MARGIN = POINTS * ERROR_MARGIN


@figure("Paths and barriers", "loss and error along paths", "profiles")
def profiles(tables: Tables) -> list[Figure]:
    """One figure for each kind of path: loss and error along the segment, coloured by level."""
    table = with_density(tables["profiles"], tables["levels"], "level_to")
    table = table[table["path"] != INSTABILITY]  # its paths differ in the step, which a profile does not name
    return [_kind(where(table, **c), c["path"]) for c in choices(table, ["path"])]


def _kind(table: Frame, kind: str) -> Figure:
    few = table["seed"].nunique() <= 5
    title, way, trap = KINDS.get(kind, (f"Along paths of the kind {kind}", "from alpha = 0 to alpha = 1", SEGMENT))
    return Figure(
        key=f"paths-{kind}",
        title=title,
        views=views(table, ["branch", "split", "order", "buffers"], partial(_profiles, few=few)),
        how=(
            f"Loss and error along the straight segment {way}. One line for each level from cold to warm, mean over "
            "seeds: a bump between the ends is a barrier."
        ),
        trap=trap,
        notes=[
            f"All of it is {table['branch'].iloc[0]}." * (table["branch"].nunique() == 1),
            "Single seeds peak at different alphas: the mean line can be flatter than every seed's own."
            * (table["seed"].nunique() > 1),
        ],
        pooled=not few,
    )


def along(tables: Tables) -> Figure:
    """Loss and error along paths that no study made: one line for each."""
    table = tables["profiles"].assign(density=np.nan, branch="")
    how = "Loss and error along each path, from alpha = 0 to alpha = 1: a bump between the ends is a barrier."
    return replace(_kind(table, "given"), title="Loss and error along a path", how=how)


def _profiles(frame: Frame, few: bool) -> list[Panel]:
    axis = Axis(title="alpha", hover=".3~g")
    rounded = frame.assign(alpha=frame["alpha"].round(6))
    return [
        Panel(title="Loss", x=axis, series=_lines(rounded, "loss", 1.0, few)),
        Panel(title="Error (%)", x=axis, y=Axis(share=True), series=_lines(rounded, "error", POINTS, few)),
    ]


def _lines(frame: Frame, column: str, scale: float, few: bool) -> list[Series]:
    """One line for each level, at the alphas that all its seeds have: refined ones belong to one."""
    known = frame[np.isfinite(frame[column])]
    levels = sorted(known["level_to"].unique())
    found = []
    for level in levels:
        rows = where(known, level_to=level)
        seeds = rows.groupby("alpha")["seed"].transform("size")
        n = int(seeds.max())
        left = percent(float(rows["density"].mean()))
        about = f"{left} left, " * bool(left) + (f"mean of {n} seeds" if n > 1 else "one seed" * bool(left))
        style = level_look("", level, levels)
        lines = measured(rows[seeds == n], column, f"level {level:g}", style, x="alpha", scale=scale, dots=False)
        found += [replace(s, samples=s.samples if few else None) for s in bare(lines, about=about)]
    return found


HEIGHTS = (
    ("loss_barrier", "Loss barrier", 1.0),
    ("error_barrier", "Error barrier (points)", POINTS),
    ("loss_height", "Loss: height over the higher end", 1.0),
    ("error_height", "Error: height over the higher end (points)", POINTS),
)


@figure("Paths and barriers", "barriers", "paths")
def barriers(tables: Tables) -> Figure:
    """Barriers and heights of every kind of path against the density of its end."""
    paths = tables["paths"][tables["paths"]["path"] != INSTABILITY]
    table = with_density(paths, tables["levels"], "level_to").assign(level=paths["level_to"])
    return Figure(
        key="barriers",
        title="Barriers",
        views=views(table, ["path", "split", "order", "buffers"], _barriers),
        how=(
            "A barrier is the largest excess of a path over the straight line between its ends; the height over the "
            "higher end is its largest excess over that end. The axis is the density of the sparser end, with one line "
            "for each branch."
        ),
        trap=(
            "A grid maximum is a lower bound of the path's maximum. A barrier near zero is a claim of "
            "equivalence, which holds only if the upper end of its interval lies below the margin "
            f"({MARGIN:g} points of error, dotted)."
        ),
        notes=[seeds_note(table, ["path", "branch", "level"])],
    )


def _barriers(frame: Frame) -> list[Panel]:
    series = {column: by_branch(frame, column, scale) for column, _, scale in HEIGHTS}
    return _with_margin(series, density_axis(frame["density"]), frame["density"])


def _with_margin(series: dict[str, list[Series]], axis: Axis, x: Frame) -> list[Panel]:
    """A panel for each height, in those of the error with the declared margin."""
    line = flat(f"margin, {MARGIN:g} points", MARGIN, x)
    return [
        Panel(title=title, x=axis, series=series[c] + [line] * bool(c.startswith("error") and series[c]))
        for c, title, _ in HEIGHTS
    ]


SPLITS = {"train": Style("#1f78c8", "circle"), "test": Style("#d9601a", "square")}


@figure("Paths and barriers", "instability of the dense run", "paths")
def instability(tables: Tables) -> Figure:
    """The barrier between the dense run's end and the end of a run that branches off at step k, against k."""
    table = where(tables["paths"], path=INSTABILITY)
    one = ["order", "buffers", "split", "step", "seed"]  # several pairs of data orders of a seed are one draw
    table = table.groupby(one, as_index=False).mean(numeric_only=True)
    return Figure(
        key="instability",
        title="From which step on is the dense run stable?",
        views=views(table, ["order", "buffers"], _instability),
        how=(
            "The dense run is left at step k and finished with another data order; drawn is the barrier between "
            "the two ends against k. Where the error barrier stays below the margin (dotted), the data order no "
            "longer decides where training ends."
        ),
        trap=(
            "A barrier below the margin is a claim of equivalence: read the upper end of its interval. The loss "
            "can keep a barrier that the error does not show."
        ),
        notes=[seeds_note(table, ["step", "split"])],
    )


def _instability(frame: Frame) -> list[Panel]:
    parts = {split: where(frame, split=split) for split in SPLITS}
    series = {
        c: [s for n, look in SPLITS.items() for s in measured(parts[n], c, n, look, x="step", scale=scale)]
        for c, _, scale in HEIGHTS
    }
    return _with_margin(series, Axis(title="step k at which the dense run is left", hover=",d"), frame["step"])
