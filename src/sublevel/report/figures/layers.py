"""Where the weights are: layer by layer, and mask against mask."""

from __future__ import annotations

import numpy as np

from sublevel.claims.branches import Branches
from sublevel.report.describe import Figure, Heat, Panel, view
from sublevel.report.figures.common import POINTS, chance, density_panels, level_axis, views
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.prepare import seeds_note


@figure("Appendix", "weights per layer", "layers")
def layer_density(tables: Tables) -> Figure:
    """A map of the density of every layer at every level, for each branch."""
    table = tables["layers"]
    return Figure(
        key="layers",
        title="Weights remaining in each layer",
        views=views(table[table["branch"] != "dense"], ["branch"], _map),
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


def _map(frame: Frame) -> list[Panel]:
    mean = frame.groupby(["index", "layer", "level"])["density"].mean().unstack("level")
    names = [str(layer) for _, layer in mean.index]
    z = [[float(np.log10(v)) if v > 0 else float("nan") for v in row] for row in mean.to_numpy(dtype=float)]
    low = min((v for row in z for v in row if np.isfinite(v) and v < 0), default=-1.0)  # -1 where all are whole
    heat = Heat(x=list(mean.columns), rows=names, z=z, title="weights remaining", low=low, high=0.0)
    return [Panel(title="Weights remaining", x=level_axis(mean.columns), heat=heat)]


@figure("Appendix", "masks and norms", "levels")
def masks(tables: Tables) -> Figure:
    """Overlap of the masks with imp's against chance; norms; filters with no weight left."""
    levels = tables["levels"]
    # Imp's overlap with itself, and the dense network's with a full mask, say nothing.
    trivial = levels["branch"].isin(["dense", Branches(levels).label("imp")])
    others = levels.assign(overlap_imp=levels["overlap_imp"].where(~trivial))
    return Figure(
        key="masks",
        title="Masks and norms",
        views=[
            view([
                *density_panels(
                    others,
                    [("overlap_imp", "Share of the weights that imp keeps too (%)", POINTS, False)],
                    chance(others[~trivial], "overlap_chance", POINTS) if others["overlap_imp"].notna().any() else [],
                ),
                *density_panels(levels, [
                    ("gradient_norm", "Gradient norm of the train loss", 1.0, True),
                    ("weight_norm", "Weight norm", 1.0, False),
                    ("dead_filters", "Dead filters", 1.0, False),
                ]),
            ])
        ],
        how=(
            "The share of each mask's weights that IMP's mask of the same level keeps too, with chance (dotted). Then "
            "the norms of gradient and weights at the end of training, and filters with no weight left."
        ),
        trap=(
            "Compare the overlap with chance, which falls with density. A large gradient norm says that a "
            "solution is not stationary."
        ),
        notes=[seeds_note(levels)],
    )  # fmt: skip
