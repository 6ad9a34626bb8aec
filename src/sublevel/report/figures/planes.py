"""Planes through weight space: heights in two and three dimensions, what lies on them, their persistence."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import RegularGridInterpolator, griddata
from scipy.spatial import QhullError

from sublevel.report.describe import Axis, Figure, Landscape, Panel, Series, View, labels, log_ticks, view
from sublevel.report.figures.common import DOTTED, POINTS, views
from sublevel.report.figures.registry import figure
from sublevel.report.figures.sublevel_sets import SublevelSet, border, own_loss, sublevel_set
from sublevel.report.frame import Column, Frame, Tables
from sublevel.report.numbers import percent, plain
from sublevel.report.palette import OWN, PLAIN, Style, known_first
from sublevel.report.prepare import choices, only_measured, where

SIDE = 41  # of the drawn grid
FINE = 81  # of the one of the first screen
OFF = 0.1  # of a plane's width: how far from it what is drawn on it may lie
SHOWN = 12  # planes on the page
LETTER = (0.022, 0.068)  # a letter and a line of a text, as shares of a map of a telephone
GAP = 0.055  # between a point and its text, as a share of that map
CUT = 0.96  # quantile of the heights above which they are cut
LOWEST = 1e-6  # of the highest: where a logarithm would begin to draw nothing but rounding
SEAM = Style("#111111", dash="dash")
RUN = Style("#e34a33", "circle")
RUN_LABEL = "the dense network's run"
KINDS = {
    "through": "through three solutions",
    "random": "along two random directions",
    "eigen": "along the two steepest eigenvectors",
}
SHAPES = ("square", "diamond", "cross", "x")  # of the second, third, ... solution of one branch
QUANTITIES = (("loss", "Train loss", 1.0), ("error", "Train error (%)", POINTS))


@figure("Planes", "landscape", "planes", of="both")
def landscape(tables: Tables) -> Figure:
    """The first plane through the dense network and two others, with the dense network's sublevel set in it."""
    table, levels = tables["planes"], tables["levels"]
    through = table[table["kind"] == "through"]
    dense = [c for c in choices(through, ["plane", "seed"], ["seed", "plane"]) if "dense" in str(c["plane"])]
    drawn: list[View] = []
    notes: list[str] = []
    for c in (dense or choices(through, ["plane", "seed"], ["seed", "plane"]))[:1]:
        own, marks = where(table, **c), where(tables["landmarks"], **c)
        marks = marks[marks["step"].isna()]
        around = sublevel_set(marks, levels)
        heights = grid(with_own_losses(own, marks, levels), "loss", side=FINE)
        if heights is None:
            continue
        panel = _panel(own, marks, where(tables["seams"], **c), heights, "Train loss", log=True, around=around)
        noted = partial(_noted, marks=marks, levels=levels, around=around)
        panel = replace(panel, series=_apart([noted(s) for s in panel.series], heights))
        drawn = [view([panel], view="contour"), view([_solid(panel)], view="surface")]
        if around is not None:
            notes.append(f"The border is at {plain(around.height, 3)}: {around.rule}.")
        if buffers := set(own["buffers"]) - {"", "none"}:
            notes.append(f"BatchNorm statistics: {', '.join(buffers)}.")
    return Figure(
        key="landscape",
        title=f"Where the {'checkpoints' if only_measured(levels) else 'tickets'} lie in the loss landscape",
        views=drawn,
        how=(
            "The train loss on the plane through three trained networks. "
            + (
                "Colour is the dense network's sublevel set and grey the outside: the dense network reaches what lies "
                "in its region without leaving the set."
                if any(p.landscape is not None and p.landscape.level is not None for v in drawn for p in v.panels)
                else "The border of the dense network's sublevel set does not cross this part."
            )
        ),
        trap=(
            "A plane is a slice of measure zero. Two regions that are apart on it may be joined outside it, and a "
            "region narrower than the grid is not seen."
        ),
        notes=notes,
        columns=1,
        printed=2,
    )


def with_own_losses(frame: Frame, marks: Frame, levels: Frame) -> Frame:
    """A plane's points and the solutions on it, at their own train loss: the grid can miss a narrow minimum."""
    on = marks[marks["step"].isna() & (marks["residual"] <= 1e-3 * float(np.ptp(frame["x"]) or 1.0))]
    rows = [{"x": float(m["x"]), "y": float(m["y"]), "loss": own_loss(m, levels)} for _, m in on.iterrows()]
    known = pd.DataFrame([row for row in rows if math.isfinite(row["loss"])])
    return pd.concat([frame[["x", "y", "loss"]], known], ignore_index=True) if len(known) else frame


def _noted(series: Series, marks: Frame, levels: Frame, around: SublevelSet | None) -> Series:
    """A solution with its text beside it: how many weights are left, and whether it lies in the set."""
    mine = where(marks, name=series.label)
    if mine.empty:
        return series
    mark, loss = mine.iloc[0], own_loss(mine.iloc[0], levels)
    found = where(levels, branch=mark["branch"], level=mark["level"], seed=mark["seed"])
    left = percent(float(found["density"].iloc[0])) if len(found) and mark["level"] else ""
    lines = [f"{mark['branch']}, {left} left" if left else series.label]
    if around is not None and math.isfinite(loss):
        lines += [f"{'inside' if around.holds(loss) else 'outside'} {around.name}", f"loss {plain(loss, 2)}"]
    return replace(series, note="\n".join(lines), legend=False)


def _apart(series: list[Series], heights: Grid) -> list[Series]:
    """Each text on the side of its point where it stays on the map and covers least of what is drawn there.

    Sizes are those of a telephone's map: on a wider one the texts are smaller and stay where they are put.
    """
    (x, y, _), found = heights, list[Series]()
    (left, wide), (low, high) = ((float(v[0]), float(np.ptp(v))) for v in (x, y))
    drawn = [((a - left) / wide, (b - low) / high) for s in series for a, b in zip(s.x, s.y, strict=True)]
    taken: list[Box] = []
    for s in series:
        if not s.note:
            found.append(s)
            continue
        at = (s.x[0] - left) / wide, (s.y[0] - low) / high
        boxes = {side: _box(s.note, at, *side) for side in product((False, True), ("center", "left", "right"))}
        best = min(boxes, key=lambda side: _covered(boxes[side], drawn, taken))
        taken.append(boxes[best])
        found.append(replace(s, below=best[0], align=best[1]))
    return found


Box = tuple[float, float, float, float]  # left, bottom, right, top, as shares of the map


def _box(note: str, at: tuple[float, float], below: bool, align: str) -> Box:
    lines = note.split("\n")
    wide, high = max(map(len, lines)) * LETTER[0], len(lines) * LETTER[1]
    left = at[0] - wide * {"center": 0.5, "left": 0.0, "right": 1.0}[align]
    bottom = at[1] - (GAP + high) if below else at[1] + GAP
    return left, bottom, left + wide, bottom + high


def _covered(box: Box, drawn: list[tuple[float, float]], taken: list[Box]) -> float:
    """How bad a place is: first what lies off the map or on another text, then the points of lines and markers."""
    left, bottom, right, top = box
    off = sum(max(0.0, v) for v in (-left, -bottom, right - 1, top - 1))
    met = sum(left < r and a < right and bottom < t and b < top for a, b, r, t in taken)
    return 1e6 * off + 1e5 * met + sum(left <= a <= right and bottom <= b <= top for a, b in drawn)


@figure("Planes", "planes", "planes", of="both")
def planes(tables: Tables, around: SublevelSet | None = None) -> Figure:
    """Loss and error on planes, as contours and as a surface, with the solutions and the dense run on them.

    ``around`` is the sublevel set that is drawn; by default that of the dense network.
    """
    table, marks = tables["planes"], tables["landmarks"]
    found = choices(table, ["plane", "seed"], ["seed", "plane"])
    drawn = []
    for c in found[:SHOWN]:
        own, points, seams = (where(t, **c) for t in (table, marks, tables["seams"]))
        drawn += _plane(own, points, seams, c, around or sublevel_set(points, tables["levels"]))
    statistics = sorted(set(table["buffers"]) - {"", "none"})
    groups = dict(list(table.groupby(["plane", "seed"])))
    known = [(groups[key], rows) for key, rows in marks.groupby(["plane", "seed"]) if key in groups]
    outside = sum(int((~_inside(rows, frame)).sum()) for frame, rows in known)
    names = labels(drawn)
    return Figure(
        key="planes",
        title="The loss on planes",
        views=drawn,
        how=(
            f"Train loss and error on a plane {' or '.join(w for k, w in KINDS.items() if k in set(table['kind']))}"
            ". Markers are solutions"
            + ", the line is the dense run" * (RUN_LABEL in names)
            + ", and grey lies outside the sublevel set" * any(n.startswith("sublevel set") for n in names)
            + ". Choose the surface to turn the same heights."
        ),
        trap=(
            "A plane is a slice of measure zero: a wall seen on it may have a way round it. A point off the plane "
            "is drawn where it is nearest, so the height under it is the plane's and not its own."
        ),
        notes=[
            f"Heights above the {100 * CUT:.0f}th percentile of a plane are cut off there; the loss is on a logarithm."
            * bool(drawn),
            f"BatchNorm statistics: {', '.join(statistics)}." * bool(statistics),
            f"Hollow checkpoints lie more than {100 * OFF:.0f}% of the plane's width off it."
            * any(any(s.hollow) for v in drawn for p in v.panels for s in p.series),
            f"{outside} solutions and checkpoints lie outside the part of their plane that is drawn." * bool(outside),
            f"Shown are the first {SHOWN} of {len(found)} planes; all are in the tables." * (len(found) > SHOWN),
            *sorted({f"{n}: {r}." for n, r in zip(table["plane"], table["reason"], strict=True) if r}),
        ],
        printed=2,
    )


def _plane(frame: Frame, marks: Frame, seams: Frame, choice: dict[str, Any], around: SublevelSet | None) -> list[View]:
    panels = [
        _panel(frame, marks, seams, heights, title, log=value == "loss", around=around if value == "loss" else None)
        for value, title, scale in QUANTITIES
        if (heights := grid(frame, value, scale)) is not None
    ]
    named = {"plane": choice["plane"], "seed": f"{choice['seed']:g}"}
    solid = [_solid(p) for p in panels]
    return [view(panels, **named, view="contour"), view(solid, **named, view="surface")]


def _solid(panel: Panel) -> Panel:
    return replace(panel, landscape=panel.landscape and replace(panel.landscape, solid=True))


Grid = tuple[np.ndarray, np.ndarray, np.ndarray]


def grid(frame: Frame, value: str, scale: float = 1.0, side: int = SIDE) -> Grid | None:
    """``x (side,)``, ``y (side,)`` and the interpolated heights ``(side, side)`` of scattered points, scaled.

    Linear between points; NaN where the nearest point has no finite value. None where the points span no plane.
    """
    points = frame[["x", "y"]].to_numpy(dtype=float)
    heights = frame[value].to_numpy(dtype=float)
    here = np.isfinite(points).all(axis=1)
    points, heights = points[here], heights[here]
    known = np.isfinite(heights)
    if known.sum() < 3:
        return None
    x, y = (np.linspace(points[:, i].min(), points[:, i].max(), side) for i in (0, 1))
    mesh = tuple(np.meshgrid(x, y))
    try:
        z = griddata(points[known], heights[known], mesh, method="linear", rescale=True)
    except (QhullError, ValueError):
        return None
    z = np.clip(z, heights[known].min(), heights[known].max())  # no rounding leaves the range
    nearest = griddata(points, known.astype(float), mesh, method="nearest", rescale=True)
    return x, y, np.where(nearest > 0, z, np.nan) * scale


def _panel(
    frame: Frame, marks: Frame, seams: Frame, heights: Grid, title: str, *, log: bool, around: SublevelSet | None
) -> Panel:
    x, y, z = heights
    log = log and bool(np.nanmin(z) > LOWEST * np.nanmax(z))
    top = float(np.nanquantile(z, CUT))
    drawn = np.minimum(np.log10(z) if log else z, math.log10(top) if log else top)
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    if high <= low:
        high = low + (abs(low) or 1.0) * 1e-3
    level = math.nan if around is None else math.log10(around.height) if log else around.height
    landscape = Landscape(
        x=list(x), y=list(y), z=[list(row) for row in drawn], title=title, low=low, high=high,
        texts=[[plain(float(v), 3) for v in row] for row in z], ticks=_ticks(low, high, log),
        level=level if low < level < high else None,
    )  # fmt: skip
    at = RegularGridInterpolator((y, x), drawn, bounds_error=False)
    across, upward = (
        Axis(title=f"{name} direction", hover=".3~g", limits=(float(v[0]), float(v[-1])))
        for name, v in (("first", x), ("second", y))
    )
    edge = [] if around is None or landscape.level is None else border(around, landscape)
    drawn_on_it = [*edge, *_seams(seams, at), *_marks(marks, at, frame)]
    return Panel(title=title, x=across, y=upward, series=drawn_on_it, landscape=landscape)


def _ticks(low: float, high: float, log: bool) -> tuple[tuple[float, str], ...]:
    """About five heights in words, inside the range."""
    if log:
        found = [(math.log10(v), t) for v, t in log_ticks([10.0**low, 10.0**high])]
        inside = [(v, t) for v, t in found if low <= v <= high]
        if len(inside) > 2:
            return tuple(inside[:: max(1, math.ceil(len(inside) / 6))])
    values = np.linspace(low, high, 5)
    return tuple((float(v), plain(float(10.0**v if log else v), 3)) for v in values)


def _seams(seams: Frame, at: RegularGridInterpolator) -> list[Series]:
    """Where the statistics change from one solution's to another's, as lines that follow the surface."""
    share = np.linspace(0, 1, SIDE)
    drawn = []
    for i, row in enumerate(seams.itertuples()):
        x, y = row.x0 + share * (row.x1 - row.x0), row.y0 + share * (row.y1 - row.y0)
        z = [float(v) for v in at(np.column_stack([y, x]))]
        label = "the statistics change: a seam, no wall"
        drawn.append(Series(label=label, x=list(x), y=list(y), z=z, style=SEAM, mode="line", legend=i == 0))
    return drawn


def _inside(marks: Frame, frame: Frame) -> Column:
    """Which landmarks lie on the part of the plane that was looked at."""
    return marks["x"].between(frame["x"].min(), frame["x"].max()) & marks["y"].between(
        frame["y"].min(), frame["y"].max()
    )


def _marks(marks: Frame, at: RegularGridInterpolator, frame: Frame) -> list[Series]:
    """The dense run as a line, then every solution as a marker of its branch."""
    inside = marks[_inside(marks, frame)]
    path = inside[inside["step"].notna()].sort_values("step")
    solutions = inside[inside["step"].isna()]
    end = where(solutions, branch="dense")
    drawn = _run([*path.itertuples(), *end.itertuples()], at, float(np.ptp(frame["x"]))) if len(path) else []
    branch = solutions["branch"].fillna(solutions["name"]).astype(str)
    for known in known_first(branch):
        for i, row in enumerate(solutions[branch == known].itertuples()):
            style = replace(OWN, marker=("", *SHAPES)[min(i, len(SHAPES))])
            drawn.append(replace(_mark(str(row.name), [row], style, at), branch=known))
    return drawn


def _run(rows: list[Frame], at: RegularGridInterpolator, width: float) -> list[Series]:
    """The dense run: a line that follows the surface between its checkpoints, and the checkpoints."""
    points = _mark(RUN_LABEL, rows, RUN, at)
    share, whole = np.linspace(0, len(rows) - 1, 12 * (len(rows) - 1) + 1), np.arange(len(rows))
    x, y = np.interp(share, whole, points.x), np.interp(share, whole, points.y)
    z = at(np.column_stack([y, x]))
    line = replace(points, x=list(x), y=list(y), z=list(z), mode="line", hover=())
    off = [float(r.residual) > width * OFF for r in rows]
    return [replace(s, branch="dense") for s in (line, replace(points, legend=False, hollow=off))]


def _mark(label: str, rows: list[Frame], style: Style, at: RegularGridInterpolator) -> Series:
    x, y = [float(r.x) for r in rows], [float(r.y) for r in rows]
    z = at(np.column_stack([y, x]))
    texts = [f"{r.name}; {plain(float(r.residual), 3)} from the plane" for r in rows]
    return Series(label=label, x=x, y=y, z=[float(v) for v in z], style=style, mode="points", hover=texts)


DIMENSIONS = {
    0.0: ("basins (dimension 0)", Style("#1f78c8", "circle")),
    1.0: ("rings around peaks (dimension 1)", Style("#d9601a", "diamond")),
}


@figure("Planes", "persistence of planes", "persistence", of="both")
def persistence(tables: Tables) -> Figure:
    """Birth against death of every basin and ring on a plane."""
    table = tables["persistence"]
    table = table.assign(doubtful=table["reason"].fillna("").astype(str) != "")
    drawn = views(table[np.isfinite(table["birth"])], ["plane", "seed"], _diagram, ["seed", "plane"])
    rings = any(label.startswith(DIMENSIONS[1.0][0]) for label in labels(drawn))
    return Figure(
        key="persistence",
        title="Basins and rings on each plane" if rings else "Basins on each plane",
        views=drawn,
        how=(
            "A basin is born at its minimum and dies where it merges into a deeper one. "
            + "A ring is born where it closes around a peak and dies when the peak is flooded. " * rings
            + "Far above the diagonal is deep, and hollow at the top edge is what never dies."
        ),
        trap=(
            "These are features of one slice on one grid, and near the diagonal is the grid's noise. A basin of "
            "the slice need not be one of the space."
        ),
        notes=[
            "Grey are features that may be made by the seam where BatchNorm's statistics change from one "
            "solution's to the next's: recompute the statistics to see the plane without it."
            * bool(table["doubtful"].any())
        ],
        columns=1,
    )


def _diagram(born: Frame) -> list[Panel]:
    ends = [*born["birth"], *born["death"].dropna()]
    low, high = min(ends), max(ends)
    top = high + 0.08 * (high - low or abs(high) or 1.0)
    series = [Series(label="birth = death", x=[low, top], y=[low, top], style=DOTTED, mode="line")]
    for c in choices(born, ["doubtful", "dimension"]):
        s = _features(where(born, **c), c["dimension"], top)
        grey = replace(s, label=f"{s.label}, may be the seam's", style=replace(s.style, colour=PLAIN.colour))
        series.append(grey if c["doubtful"] else s)
    title = "Death (train loss); the top edge: never"
    return [Panel(title=title, x=Axis(title="birth (train loss)"), series=series)]


def _features(rows: Frame, dimension: float, top: float) -> Series:
    label, style = DIMENSIONS.get(dimension, (f"dimension {dimension:g}", PLAIN))
    never = [not math.isfinite(v) for v in rows["death"]]
    where_it_is = zip(rows["x"], rows["y"], never, strict=True)
    texts = [f"at ({plain(x, 3)}, {plain(y, 3)})" + (", never dies" if n else "") for x, y, n in where_it_is]
    deaths = [top if n else float(d) for n, d in zip(never, rows["death"], strict=True)]
    return Series(label=label, x=list(rows["birth"]), y=deaths, style=style, mode="points", hollow=never, hover=texts)
