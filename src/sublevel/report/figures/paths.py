"""Paths between solutions: the profiles, and what they sum up to."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, by_branch, density_axis, flat, mean_of
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import PLAIN, Style, dashed, known_first, ramp
from sublevel.report.prepare import choices, seeds_note, where, with_density

SEGMENT = (
    "A segment that stays below a threshold certifies it at the grid's resolution; one that rises above "
    "it proves nothing, for a curve may pass where the segment does not."
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
        "The maximum over a grid is a lower bound of the path's maximum, and between different "
        "initialisations a barrier may be only a permutation of hidden units.",
    ),
    "from-start": (
        "From the rewound start to the solution",
        "from the rewound start m * theta_k (alpha = 0) to the solution that it was trained to (alpha = 1)",
        "A line that only falls puts start and solution in one connected sublevel set; it does not say "
        "that training went that way.",
    ),
    "orders": (
        "Between two data orders from the same start",
        "between two networks that differ only in the order of their data",
        "This barrier is a comparator and not a noise floor: levels that share one order have lower "
        "barriers than levels with independent ones.",
    ),
}
INSTABILITY = "instability"
ERROR_MARGIN = 2.0  # points: the declared margin of equivalence


@figure("Paths between solutions", "loss and error along paths")
def profiles(tables: Tables) -> list[Figure]:
    """One figure for each kind of path: loss and error along the segment, coloured by level."""
    table = tables["profiles"]
    table = table[table["path"] != INSTABILITY]  # its paths differ in the step, which a profile does not name
    kinds = [k for k in KINDS if k in set(table["path"])] + sorted(set(table["path"]) - set(KINDS))
    return [_kind(where(table, path=k), k) for k in kinds]


def _kind(table: Frame, kind: str) -> Figure:
    columns = ["branch", "split", "order", "buffers"]
    rank = {b: i for i, b in enumerate(known_first(table["branch"]))}
    names = choices(table, columns)
    names.sort(key=lambda c: (rank[c["branch"]], c["split"] != "train", c["order"], c["buffers"]))
    title, way, trap = KINDS.get(kind, (f"Along paths of the kind {kind}", "from alpha = 0 to alpha = 1", SEGMENT))
    return Figure(
        key=f"paths-{kind}",
        title=title,
        views=[_profiles(where(table, **c), c) for c in names],
        how=f"Loss and error along the straight segment {way}, mean over seeds, one line for each level "
        "from cold to warm: a bump between the ends is a barrier.",
        trap=trap,
        notes=["Single seeds peak at different alphas: the mean line can be flatter than every seed's own."]
        if table["seed"].nunique() > 1
        else [],
    )


def _profiles(frame: Frame, choice: dict[str, str]) -> View:
    axis = Axis(title="alpha", hover=".3~g")
    rounded = frame.assign(alpha=frame["alpha"].round(6))
    panels = [
        Panel(title=title, x=axis, series=_lines(mean_of(rounded, column, ["level_to", "alpha"], scale)))
        for column, title, scale in (("loss", "Loss", 1.0), ("error", "Error (%)", POINTS))
    ]
    return view(panels, **choice)


def _lines(means: Frame) -> list[Series]:
    """One line for each level, at the alphas that all its seeds have: refined ones belong to one."""
    levels = sorted(means["level_to"].unique())
    found = []
    for i, level in enumerate(levels):
        mine = where(means, level_to=level)
        shared = mine[mine["n"].to_numpy() == mine["n"].max()]
        style = Style(ramp(i, len(levels)))
        found.append(Series(
            label=f"level {level:g}", x=list(shared["alpha"]), y=list(shared["mean"]),
            style=style, mode="line",
        ))  # fmt: skip
    return found


HEIGHTS = (
    ("loss_barrier", "Loss barrier", 1.0),
    ("error_barrier", "Error barrier (points)", POINTS),
    ("loss_height", "Loss: height over the higher end", 1.0),
    ("error_height", "Error: height over the higher end (points)", POINTS),
)


@figure("Paths between solutions", "barriers")
def barriers(tables: Tables) -> Figure:
    """Barriers and heights of every kind of path against the density of its end."""
    paths = tables["paths"][tables["paths"]["path"] != INSTABILITY]
    table = with_density(paths, tables["levels"], "level_to").assign(level=paths["level_to"])
    rank = {k: i for i, k in enumerate(KINDS)}
    names = choices(table, ["path", "split", "order", "buffers"])
    names.sort(key=lambda c: (rank.get(c["path"], 9), c["path"], c["split"] != "train", c["order"], c["buffers"]))
    return Figure(
        key="barriers",
        title="Barriers",
        views=[_barriers(where(table, **c), c) for c in names],
        how="Above, the barrier: the largest excess of the path over the straight line between its ends; "
        "below, its height over the higher end; both against the density of the sparser end, one line "
        "for each branch.",
        trap="A grid maximum is a lower bound, and a barrier near zero is a claim of equivalence: it "
        "holds only if the upper end of the interval lies below the margin (2 points of error, dotted).",
        notes=[seeds_note(table, ["path", "branch", "level"])],
    )


def _barriers(frame: Frame, choice: dict[str, str]) -> View:
    axis = density_axis(frame["density"])
    panels = []
    for column, title, scale in HEIGHTS:
        series = by_branch(frame, column, scale)
        if column.startswith("error") and np.isfinite(frame[column]).any():
            series.append(flat("margin, 2 points", ERROR_MARGIN, frame["density"], dashed(PLAIN, "dot")))
        panels.append(Panel(title=title, x=axis, series=series))
    return view(panels, **choice)


SPLITS = {"train": Style("#1f78c8", "circle"), "test": Style("#d9601a", "square")}


@figure("Paths between solutions", "instability of the dense run")
def instability(tables: Tables) -> Figure:
    """The barrier between the dense run's end and that of a run that left it at step k, against k."""
    table = where(tables["paths"], path=INSTABILITY)
    names = choices(table, ["order", "buffers"])
    return Figure(
        key="instability",
        title="From which step on is the dense run stable?",
        views=[_instability(where(table, **c), c) for c in names],
        how="The dense run is left at step k and finished with another data order; the barrier between the two ends, "
        "and the height over the higher end, against k, on train and test. From the step on at which the error "
        "barrier stays below the margin (dotted), the noise of the data order no longer decides where training ends: "
        "rewinding to such a step is what lets sparse networks match.",
        trap="A barrier below the margin is a claim of equivalence, which holds only where the upper end of the "
        "interval lies below it; a grid maximum is a lower bound. The loss can keep a barrier that the error does not "
        "show, and the statistics of BatchNorm make barriers of their own: compare the policies.",
        notes=[seeds_note(table, ["step", "split"])],
    )


def _instability(frame: Frame, choice: dict[str, str]) -> View:
    axis = Axis(title="step k at which the dense run is left", hover=",d")
    panels = []
    for column, title, scale in HEIGHTS:
        series = [
            s
            for split, style in SPLITS.items()
            for s in measured(where(frame, split=split), column, split, style, by="step", x="step", scale=scale)
        ]
        if column.startswith("error") and series:
            series.append(flat("margin, 2 points", ERROR_MARGIN, frame["step"], dashed(PLAIN, "dot")))
        panels.append(Panel(title=title, x=axis, series=series))
    return view(panels, **choice)
