"""Where the weights are: layer by layer, and mask against mask."""

from __future__ import annotations

import numpy as np

from sublevel.claims.branches import Branches
from sublevel.report.describe import Axis, Figure, Heat, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, by_branch, density_axis, level_axis
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import PLAIN, dashed, known_first
from sublevel.report.prepare import seeds_note, where


@figure("Appendix", "weights per layer", "layers")
def layer_density(tables: Tables) -> Figure:
    """A map of the density of every layer at every level, for each branch."""
    table = tables["layers"]
    branches = [b for b in known_first(table["branch"]) if b != "dense"]
    return Figure(
        key="layers",
        title="Weights remaining in each layer",
        views=[_map(where(table, branch=b), b) for b in branches],
        how=(
            "Each row is a layer from input to output, and each column is a level. The colour is the share of the "
            "layer's weights that are left, on a logarithmic scale, mean over seeds."
        ),
        trap=(
            "A share says nothing about importance where layers differ in size. A layer with no weight left (a "
            "blank cell) cuts the network."
        ),
        pooled=True,
    )


def _map(frame: Frame, branch: str) -> View:
    mean = frame.groupby(["index", "layer", "level"])["density"].mean().unstack("level")
    names = [str(layer) for _, layer in mean.index]
    z = [[float(np.log10(v)) if v > 0 else float("nan") for v in row] for row in mean.to_numpy(dtype=float)]
    finite = [v for row in z for v in row if np.isfinite(v)]
    heat = Heat(
        x=list(mean.columns),
        rows=names,
        z=z,
        title="weights remaining",
        low=min(finite, default=-1.0),
        high=0.0,
    )
    return view([Panel(title="Weights remaining", x=level_axis(mean.columns), heat=heat)], branch=branch)


MASKS = (
    ("overlap_imp", "Share of the weights that imp keeps too (%)", POINTS, False),
    ("gradient_norm", "Gradient norm of the train loss", 1.0, True),
    ("weight_norm", "Weight norm", 1.0, False),
    ("dead_filters", "Dead filters", 1.0, False),
)


@figure("Appendix", "masks and norms", "levels")
def masks(tables: Tables) -> Figure:
    """Overlap of the masks with imp's against chance; norms; filters with no weight left."""
    levels = tables["levels"]
    axis = density_axis(levels["density"])
    series = {c: by_branch(_kept(levels, c), c, scale, log=log) for c, _, scale, log in MASKS}
    series["overlap_imp"] += _chance(levels) if series["overlap_imp"] else []
    panels = [
        Panel(title=title, x=axis, y=Axis(log=log, share=scale == POINTS), series=series[c])
        for c, title, scale, log in MASKS
    ]
    return Figure(
        key="masks",
        title="Masks and norms",
        views=[view(panels)],
        how=(
            "The share of each mask's weights that imp's mask of the same level keeps too, beside chance "
            "(dotted). Then the gradient's and the weights' norms at the end of training, and filters with no "
            "weight left."
        ),
        trap=(
            "Overlap is to be read against chance, which falls with density. A large gradient norm says that a "
            "solution is not stationary."
        ),
        notes=[seeds_note(levels)],
    )


def _kept(levels: Frame, column: str) -> Frame:
    trivial = column == "overlap_imp"  # imp's overlap with itself, and the dense network's with a full mask
    return levels[~levels["branch"].isin(["dense", Branches(levels).label("imp")])] if trivial else levels


def _chance(levels: Frame) -> list[Series]:
    rows = _kept(levels, "overlap_imp").groupby("level")[["density", "overlap_chance"]].mean().dropna()
    return [Series(
        label="chance", x=list(rows["density"]), y=list(rows["overlap_chance"] * POINTS),
        style=dashed(PLAIN, "dot"), mode="line",
    )]  # fmt: skip
