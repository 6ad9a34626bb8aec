"""What pruning does to the loss, by whom the weights were chosen: the criterion, or chance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sublevel.report.describe import Figure, Panel
from sublevel.report.figures.common import POINTS, density_axis, views
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import Style
from sublevel.report.prepare import seeds_note, where, with_density

CRITERION = "criterion"
CHOSEN: dict[str, tuple[str, Style]] = {
    CRITERION: ("chosen by the criterion", Style("#1f78c8", "circle")),
    "random": ("random, as many in every layer", Style("#d9601a", "square", "dash")),
}
RISES = (("loss", "Rise of the train loss", 1.0), ("error", "Rise of the train error (points)", POINTS))


@figure("What pruning and retraining do", "criterion against random pruning", "prunings")
def prunings(tables: Tables) -> Figure:
    """The rise of loss and error at a pruning step, by the criterion and by layer-matched random draws."""
    table = with_rises(with_density(tables["prunings"], tables["levels"]))
    return Figure(
        key="prunings",
        title="Does the criterion choose weights that matter less?",
        views=views(table, ["branch", "buffers"], _prunings),
        how=(
            "The rise of the train loss right after pruning, where the criterion chose the weights and where chance "
            "did, with the same count in every layer. Faint dots are single seeds, for chance the mean of their draws."
        ),
        trap=(
            "The draws of one seed share one network, so the seed stays the unit. A smaller rise before retraining "
            "need not be a better network after it."
        ),
        notes=[seeds_note(table), _below(table)],
    )


def with_rises(table: Frame) -> Frame:
    """The rows with ``loss`` and ``error``: end minus start of the pruning."""
    return table.assign(**{of: table[f"{of}_end"] - table[f"{of}_start"] for of, _, _ in RISES})


def by_seed(rows: Frame, value: str) -> Frame:
    """One row for each level and seed: the mean over its draws."""
    kept = rows[np.isfinite(rows[value])]
    return kept.groupby(["level", "seed"], as_index=False)[[value, "density"]].mean()


def _below(table: Frame) -> str:
    """In how many prunings the criterion's rise lies below that of every random draw."""
    keys = ["branch", "level", "seed", "buffers"]
    lowest = where(table, chosen_by="random").groupby(keys)["loss"].agg(["min", "count"])
    mine = where(table, chosen_by=CRITERION).groupby(keys)["loss"].first()
    both: Frame = pd.concat([mine, lowest], axis=1, join="inner").dropna()
    if both.empty:
        return ""
    count, draws = int((both["loss"] < both["min"]).sum()), plain(float(both["count"].median()))
    return (
        f"In {count} of {len(both)} prunings the criterion's rise lies below that of every random draw ({draws} each)."
    )


def _prunings(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    rows = {(who, of): by_seed(where(frame, chosen_by=who), of) for who in CHOSEN for of, _, _ in RISES}
    return [
        Panel(
            title=title,
            x=axis,
            series=[s for n in CHOSEN for s in measured(rows[n, of], of, *CHOSEN[n], scale=scale, dots=True)],
        )
        for of, title, scale in RISES
    ]
