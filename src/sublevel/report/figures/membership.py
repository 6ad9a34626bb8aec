"""Membership: which solutions lie in the dense network's connected sublevel set, at which height."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from sublevel.claims.basins import dense_losses, threshold
from sublevel.claims.margins import RISE_MARGIN
from sublevel.claims.paths import rise_over
from sublevel.report.describe import Axis, Figure, Panel, Series
from sublevel.report.figures.common import DOTTED, POINTS, density_axis, flat, views
from sublevel.report.figures.measured import each_branch
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import OWN, known_first
from sublevel.report.prepare import first_part, parts_note, seeds_note, with_density
from sublevel.tables import SOLUTION

MARGIN = POINTS * RISE_MARGIN
RISE = f"margin, {MARGIN:g}%"
LIMIT = "dense threshold"


@figure("Sublevel sets", "membership", "membership")
def membership(tables: Tables) -> Figure:
    """The two questions of C7: how far the best path to each solution rises, and how high the solution lies."""
    whole = _searched(tables)
    table = first_part(whole)
    return Figure(
        key="membership",
        title="In the dense network's sublevel set?",
        views=views(table, ["buffers"], _questions),
        how=(
            "A solution is in the set if a path to it rises by less than the margin (rise; hollow above it), and if "
            "its own train loss is below the dense threshold, both on the examples of the paths. Paths are segments "
            "and trained curves."
        ),
        trap=(
            "Failing to find a path does not prove that there is none. Each rise is an upper bound, and it is relative "
            "to a loss that grows as weights are removed."
        ),
        notes=[
            *_effort(table),
            seeds_note(table),
            parts_note(whole, "lowest_max", [*SOLUTION, "buffers"], "the lowest maximum"),
        ],
    )


def _searched(tables: Tables) -> Frame:
    """Every search with the relative rise of its best path; solutions with matched units are a branch of their own."""
    table = with_density(tables["membership"], tables["levels"])
    rise = rise_over(*(table[c].to_numpy(dtype=float) for c in ("lowest_max", "loss", "loss_dense")))
    branch = table["branch"].where(table["aligned"] != 1, table["branch"] + ", units matched")
    why = f"no path found that rises less than {MARGIN:g}%"
    return table.assign(branch=branch, rise=rise, doubtful=rise > RISE_MARGIN, reason=why)


def _effort(table: Frame) -> list[str]:
    """How many solutions were joined, by what, and what a curve cost."""
    counts = table["found"].value_counts()
    words = [f"{counts[k]} by {name}" for k, name in (("segment", "a segment"), ("curve", "a curve")) if k in counts]
    missed = int(counts.get("not found", 0))
    joined = f" ({', '.join(words)})" if words else ""
    tried = table[table["gradient_steps"] > 0]
    steps, seen = (plain(float(tried[c].median())) for c in ("gradient_steps", "evaluations"))
    return [
        f"{len(table) - missed} of {len(table)} solutions joined{joined}; {missed} not found." * bool(len(table)),
        f"Effort for a curve (median): {steps} gradient steps, {seen} evaluations." * bool(len(tried)),
    ]


def _questions(frame: Frame) -> list[Panel]:
    axis, line = density_axis(frame["density"]), threshold(list(dense_losses({"membership": frame}).values()))
    rise = [*each_branch(frame, "rise", scale=POINTS), flat(RISE, MARGIN, frame["density"])]
    ends = [*each_branch(frame.drop(columns="doubtful"), "loss"), flat(LIMIT, line, frame["density"])]
    return [
        Panel(title="Rise of the best path over its higher end (%)", x=axis, series=rise),
        Panel(title="Train loss of the solution", x=axis, series=ends),
    ]


@figure("Sublevel sets", "share of solutions joined at each height", "membership")
def shares(tables: Tables) -> Figure:
    """The share of a branch's solutions that are joined to the dense network, as a function of the height c."""
    whole = _searched(tables)
    missing = int((~np.isfinite(whole["lowest_max"])).sum())
    table = first_part(whole)
    table = table[np.isfinite(table["lowest_max"])]
    draw = partial(_shares, limit=threshold(list(dense_losses({"membership": table}).values())))
    return Figure(
        key="membership-share",
        title="Which share is joined to the dense network, for every threshold",
        views=views(table.assign(level="all"), ["level", "buffers"], draw) + views(table, ["level", "buffers"], draw),
        how=(
            "For every height c, the share of a branch's solutions that a path with no loss above c joins to the "
            "dense network of their seed; the other panel has the same by how far that path rises. "
            "A line that rises early lies in the dense network's basin."
        ),
        trap=(
            "Each line is a lower bound of the true share, since a lower path may exist. A branch for which less "
            "effort was spent lies lower for that reason alone."
        ),
        notes=[
            f"{missing} of {len(whole)} solutions have no maximum and are not counted." * bool(missing),
        ],
        pooled=True,
    )


def _shares(frame: Frame, limit: float) -> list[Panel]:
    panels = []
    for column, scale, title, x, (label, at) in (
        ("lowest_max", 1.0, "Joined at or below the height c (%)", "height c (train loss)", (LIMIT, limit)),
        (
            "rise",
            POINTS,
            "Joined with at most this rise (%)",
            "rise over the higher end (%)",
            (RISE, MARGIN),
        ),
    ):
        values = frame[column] * scale
        pad = 0.05 * (float(np.ptp(values)) or 1.0)
        ends = (float(values.min()) - pad, float(values.max()) + pad)
        lines = [_steps(values[frame["branch"] == b], b, ends) for b in known_first(frame["branch"])]
        if math.isfinite(at):
            lines.append(Series(label=label, x=[at, at], y=[0.0, 100.0], style=DOTTED, mode="line"))
        panels.append(Panel(title=title, x=Axis(title=x), y=Axis(hover=".3~g", share=True), series=lines))
    return panels


def _steps(values: Frame, label: str, ends: tuple[float, float]) -> Series:
    """The empirical distribution function from end to end of the axis: at each value it rises by 1 / n."""
    at = np.sort(values[np.isfinite(values)].to_numpy(dtype=float))
    x = [ends[0], *np.repeat(at, 2), ends[1]]
    counts = np.repeat(np.arange(len(at) + 1), 2)
    return Series(
        label=label, x=[float(v) for v in x], y=[100.0 * float(c) / len(at) for c in counts], style=OWN, mode="line",
        hover=[f"{c} of {len(at)}" for c in counts],
    )  # fmt: skip
