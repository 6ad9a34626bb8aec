"""Curvature along coordinates: what the next level prunes, what it keeps, random ones; the steepest direction."""

from __future__ import annotations

import numpy as np

from sublevel.claims.words import listed
from sublevel.report.describe import Axis, Figure, Panel, Series, labels
from sublevel.report.figures.common import POINTS, beside_dense, density_axis, views
from sublevel.report.figures.measured import errors_note, measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import SPARE, Style
from sublevel.report.prepare import batchnorm, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

SETS: dict[str, Style] = {
    "pruned": Style("#d9601a", "square"),
    "kept": Style("#1f78c8", "circle"),
    "random": Style("#767676", "diamond", "dash"),
    "steepest": Style("#8667bd", "triangle-up", "dot"),
}
"""The sets in their order, each with one look."""


WORDS = {
    "pruned": "the coordinates that pruning removes",
    "kept": "as many that it keeps",
    "random": "as many random ones",
    "steepest": "the steepest eigenvector",
}
MEAN, STEEPEST = "Mean of H_ii over the set", "Curvature, steepest eigenvector"


def _sets(names: list[str]) -> str:
    """Sets in words, where the coordinates that are kept or random are named after those that are pruned."""
    if "pruned" in names:
        return listed([WORDS.get(n, n) for n in names])
    return listed([{"kept": "kept coordinates", "random": "random coordinates"}.get(n, WORDS.get(n, n)) for n in names])


def _look(names: Frame) -> dict[str, Style]:
    found = set(names)
    known = {n: s for n, s in SETS.items() if n in found}
    return known | {n: SPARE[i % len(SPARE)] for i, n in enumerate(sorted(found - set(SETS)))}


@figure("Curvature", "coordinates that pruning removes", "coordinates")
def coordinates(tables: Tables) -> Figure:
    """Mean curvature and width along the pruned, the kept, random coordinates and the steepest direction."""
    whole = with_density(tables["coordinates"], tables["levels"])
    table = first_part(whole)
    capped, widths = int((table["capped"] > 0).sum()), int(np.isfinite(table["width"]).sum())
    drawn = beside_dense(table, ["branch", "buffers", "when"], _coordinates)
    curved, wide, steepest = labels(drawn, MEAN), labels(drawn, "Width"), labels(drawn, STEEPEST)
    return Figure(
        key="coordinates",
        title="Are the coordinates that pruning removes the flat ones?",
        views=drawn,
        how=(
            f"Mean curvature along {_sets(curved)}, with equal counts in every layer." * bool(curved)
            + " The steepest eigenvector is there for comparison." * bool(steepest)
            + f" The width is the distance at which the loss has risen that much: {listed(wide)}." * bool(wide)
        ).strip(),
        trap=(
            "Compare with the random set, not with zero. " * ("random" in curved)
            + "Under BatchNorm small weights are flat by scale alone. " * batchnorm(table)
            + "The steepest eigenvector is no coordinate, and can be steep where every set is flat." * bool(steepest)
        ).strip()
        or "A mean hides the few coordinates that are steep.",
        notes=[
            errors_note(table),
            f"In {capped} of {widths} widths some direction does not rise that far within the radius searched "
            "(hollow)." * bool(capped),
            seeds_note(table),
            parts_note(where(whole, set="pruned"), "curvature", SOLUTION, "the mean curvature of the pruned set"),
        ],
        columns=3,
    )


def _coordinates(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    rises = sorted({float(v) for v in frame["rise"] if np.isfinite(v)})
    at = f" at a rise of {plain(rises[0])}" if len(rises) == 1 else ""
    kinds = (
        (MEAN, frame[frame["set"] != "steepest"]),
        (STEEPEST, where(frame, set="steepest")),
    )
    panels = []
    for title, mine in kinds:
        lines = (measured(where(mine, set=n), "curvature", n, look) for n, look in _look(mine["set"]).items())
        panels.append(Panel(title=title, x=axis, series=[s for line in lines for s in line]))
    return [*panels, Panel(title=f"Width{at}", x=axis, y=Axis(log=True), series=_widths(frame))]


def _widths(frame: Frame) -> list[Series]:
    found = []
    for name, style in _look(frame["set"]).items():
        rows = where(frame, set=name)
        rows = rows[rows["width"] > 0].groupby("level")
        mean = rows[["density", "width", "width_low", "width_high"]].mean()
        capped = [bool(v) for v in rows["capped"].max() > 0]
        ends = zip(mean["width_low"], mean["width_high"], strict=True)
        found.append(Series(
            label=name, x=list(mean["density"]), y=list(mean["width"]), low=list(mean["width_low"]),
            high=list(mean["width_high"]), style=style, hollow=capped,
            hover=[f"{plain(a, 3)} to {plain(b, 3)} over directions, mean over seeds" for a, b in ends],
        ))  # fmt: skip
    return found


@figure("Curvature", "slices along sets of coordinates", "slices")
def slices(tables: Tables) -> Figure:
    """Loss and error along one random direction of each set, for one network."""
    table = first_part(tables["slices"])
    drawn = views(table, ["branch", "level", "buffers", "when"], _slices)
    sets = [n for n in labels(drawn) if n != "steepest"]
    along = [f"one random unit vector in each of the sets {listed(sets)}"] * bool(sets)
    along += ["the steepest eigenvector"] * ("steepest" in labels(drawn))
    return Figure(
        key="slices",
        title="The loss along these directions" if sets else "The loss along the steepest direction",
        views=drawn,
        how=f"Loss and error along {listed(along)}. A narrow curve is a steep direction." if along else "",
        trap=(
            "A random direction mixes thousands of coordinates and shows their average, never the steepest. "
            * bool(sets)
            + "Distances are in the weights' own units, so networks of different norm cannot be compared by eye."
        ),
        notes=["Means over seeds at equal distance, within the range that all seeds have."]
        if table["seed"].nunique() > 1
        else [],
        pooled=True,
    )


def _slices(frame: Frame) -> list[Panel]:
    axis = Axis(title="distance from the solution", hover=".3~g")
    losses = frame.loc[frame["loss"] > 0, "loss"]
    log = bool(len(losses) and losses.max() / losses.min() > 30)
    return [
        Panel(title="Loss", x=axis, y=Axis(log=log), series=_lines(frame, "loss", 1.0)),
        Panel(title="Error (%)", x=axis, y=Axis(share=True), series=_lines(frame, "error", POINTS)),
    ]


def _lines(frame: Frame, value: str, scale: float) -> list[Series]:
    found = []
    for name, style in _look(frame["set"]).items():
        x, y = _mean_profile(where(frame, set=name), value)
        found.append(Series(label=name, x=list(x), y=list(y * scale), style=style, mode="line"))
    return found


def _mean_profile(frame: Frame, value: str, points: int = 33) -> tuple[np.ndarray, np.ndarray]:
    """The mean over seeds where their ranges overlap; a single seed at its own distances."""
    kept = frame[np.isfinite(frame[value])].sort_values("radius")
    curves = [(g["radius"].to_numpy(float), g[value].to_numpy(float)) for _, g in kept.groupby("seed")]
    if len(curves) < 2:
        return curves[0] if curves else (np.empty(0), np.empty(0))
    low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(low, high, points) if high > low else np.empty(0)
    return grid, np.mean([np.interp(grid, x, y) for x, y in curves], axis=0)
