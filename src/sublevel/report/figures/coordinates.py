"""Curvature along coordinates: what the next level prunes, what it keeps, random ones; the steepest direction."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, density_axis
from sublevel.report.figures.measured import errors_note, measured, networks, sparse_branches, with_dense
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.numbers import plain
from sublevel.report.palette import SPARE, Style
from sublevel.report.prepare import choices, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

SETS: dict[str, Style] = {
    "pruned": Style("#d9601a", "square"),
    "kept": Style("#1f78c8", "circle"),
    "random": Style("#767676", "diamond", "dash"),
    "steepest": Style("#8667bd", "triangle-up", "dot"),
}
"""The sets in their order, each with one look."""


WHEN = {"before": "before pruning", "retrained": "after retraining"}
"""Which coordinates, and at which point: those that the next level prunes, or those that this level pruned."""


def _look(names: Frame) -> dict[str, Style]:
    found = set(names)
    known = {n: s for n, s in SETS.items() if n in found}
    return known | {n: SPARE[i % len(SPARE)] for i, n in enumerate(sorted(found - set(SETS)))}


@figure("Curvature", "coordinates that pruning removes", "coordinates")
def coordinates(tables: Tables) -> Figure:
    """Mean curvature and width along the pruned, the kept, random coordinates and the steepest direction."""
    whole = with_density(tables["coordinates"], tables["levels"])
    table = first_part(whole)
    return Figure(
        key="coordinates",
        title="Are the coordinates that pruning removes the flat ones?",
        views=[
            _coordinates(
                where(with_dense(table, c["branch"]), buffers=c["buffers"], when=c["when"]),
                c | {"when": WHEN.get(c["when"], c["when"])},
            )
            for c in _chosen(table)
        ],
        how=(
            "Curvature and width along the coordinates that pruning takes, as many that it keeps and as many "
            "random ones, with equal counts in every layer; beside them the steepest eigenvector. Choose the "
            "point: before the pruning, or after the retraining."
        ),
        trap=(
            "Under BatchNorm small and flat are tied by scale alone: compare with the random set, not with zero. "
            "The steepest eigenvector is no coordinate, and can be steep where every set is flat."
        ),
        notes=[
            errors_note(table),
            _capped(table),
            seeds_note(table),
            parts_note(where(whole, set="pruned"), "curvature", SOLUTION, "the mean curvature of the pruned set"),
        ],
        columns=3,
    )


def _chosen(table: Frame) -> list[dict[str, str]]:
    """Branch, policy and point in time: what the next level will prune before what this level pruned."""
    rank = {b: i for i, b in enumerate(sparse_branches(table))}
    names = [c for c in choices(table, ["branch", "buffers", "when"]) if c["branch"] in rank]
    return sorted(names, key=lambda c: (rank[c["branch"]], c["buffers"], c["when"]))


def _capped(table: Frame) -> str:
    count, total = int((table["capped"] > 0).sum()), int(np.isfinite(table["width"]).sum())
    if not count:
        return ""
    return f"In {count} of {total} widths some direction had not risen that far within the radius looked at (hollow)."


def _coordinates(frame: Frame, choice: dict[str, str]) -> View:
    axis = density_axis(frame["density"])
    sets, steepest = frame[frame["set"] != "steepest"], where(frame, set="steepest")
    rises = sorted({float(v) for v in frame["rise"] if np.isfinite(v)})
    told = f" at a rise of {plain(rises[0])}" if len(rises) == 1 else ""
    panels = [
        Panel(title="Mean of H_ii over the set", x=axis, series=_curvature(sets)),
        Panel(title="Curvature, steepest eigenvector", x=axis, series=_curvature(steepest)),
        Panel(title=f"Width{told}", x=axis, y=Axis(log=True), series=_widths(frame)),
    ]
    return view(panels, **choice)


def _curvature(frame: Frame) -> list[Series]:
    look = _look(frame["set"])
    return [s for n, style in look.items() for s in measured(where(frame, set=n), "curvature", n, style)]


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
    return Figure(
        key="slices",
        title="The loss along these directions",
        views=[
            _slices(
                where(table, branch=b, level=v, **c),
                {"branch": b, "level": f"{v:g}", **c, "when": WHEN.get(c["when"], c["when"])},
            )
            for _, b, v in networks(table)
            for c in choices(where(table, branch=b, level=v), ["buffers", "when"])
        ],
        how=(
            "Loss and error along one random unit vector inside each set of coordinates, and along the steepest "
            "eigenvector. A narrow curve is a steep direction."
        ),
        trap=(
            "A random direction mixes thousands of coordinates and shows their average, never the steepest. "
            "Distances are in the weights' own units, so networks of different norm cannot be compared by eye."
        ),
        notes=["Means over seeds at equal distance, within the range that all seeds have."]
        if table["seed"].nunique() > 1
        else [],
        pooled=True,
    )


def _slices(frame: Frame, choice: dict[str, str]) -> View:
    axis = Axis(title="distance from the solution", hover=".3~g")
    losses = frame.loc[frame["loss"] > 0, "loss"]
    log = bool(len(losses) and losses.max() / losses.min() > 30)
    panels = [
        Panel(title="Loss", x=axis, y=Axis(log=log), series=_lines(frame, "loss", 1.0)),
        Panel(title="Error (%)", x=axis, y=Axis(share=True), series=_lines(frame, "error", POINTS)),
    ]
    return view(panels, **choice)


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
