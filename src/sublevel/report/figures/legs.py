"""The two legs of a level: pruning, then retraining."""

from __future__ import annotations

from dataclasses import replace

from sublevel.report.describe import Axis, Figure, Panel, Series
from sublevel.report.figures.common import POINTS, level_axis, views
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import percent
from sublevel.report.palette import Style, dashed, policy
from sublevel.report.prepare import batchnorm, seeds_note, where, with_density

LEGS = {"prune": "Pruning", "retrain": "Retraining"}
LEG_STYLES = {"prune": Style("#8667bd", "square"), "retrain": Style("#0a9b74", "circle")}
MOVES = (("distance", "Distance between the ends"), ("cosine", "Cosine between the ends"))


@figure("What pruning and retraining do", "the two legs of a level", "legs")
def legs(tables: Tables) -> Figure:
    """Loss and error at both ends of both legs, by level, and how far the weights moved."""
    table = with_density(tables["legs"], tables["levels"])
    return Figure(
        key="legs",
        title="What pruning breaks and retraining mends",
        views=views(table, ["branch", "split"], _legs),
        how=(
            "Hollow and dotted is before a leg, filled is after it, in panels for pruning and for retraining"
            + ", for each policy of the BatchNorm statistics" * batchnorm(table)
            + ". Distance and cosine say how far each leg moves the weights."
        ),
        trap=(
            "With BatchNorm much of the jump after pruning comes from statistics that no longer fit the weights. "
            "Compare the policies before calling it a loss of the solution."
            if batchnorm(table)
            else "A jump right after pruning says little about the network after retraining."
        ),
        notes=[seeds_note(table, singles=False)],
    )


def _legs(frame: Frame) -> list[Panel]:
    axis = level_axis(frame["level"])
    losses = frame[["loss_start", "loss_end"]].stack()
    wide = bool(len(losses) and losses.min() > 0 and losses.max() / losses.min() > 30)
    ends = [
        Panel(
            title=f"{name}: {title}",
            x=axis,
            y=Axis(log=wide and column == "loss", share=column == "error"),
            series=_ends(where(frame, leg=leg), column, scale, log=wide and column == "loss"),
        )
        for column, title, scale in (("loss", "loss", 1.0), ("error", "error (%)", POINTS))
        for leg, name in LEGS.items()
    ]
    one = frame.drop_duplicates(["level", "seed", "leg"])  # the weights do not depend on the buffers
    moves = {
        title: [
            s
            for leg, name in LEGS.items()
            for s in _line(where(one, leg=leg), column, f"{name.lower()} leg", LEG_STYLES[leg])
        ]
        for column, title in MOVES
    }
    return ends + [Panel(title=title, x=axis, series=series) for title, series in moves.items()]


def _ends(frame: Frame, column: str, scale: float, *, log: bool) -> list[Series]:
    found: list[Series] = []
    for buffers in sorted(frame["buffers"].unique()):
        mine, style = where(frame, buffers=buffers), policy(buffers)
        suffix = "" if buffers in ("none", "") else f", {buffers} statistics"
        before = _line(mine, f"{column}_start", f"before{suffix}", dashed(style, "dot"), scale, log=log)
        found += [replace(s, hollow=[True] * len(s.x)) for s in before]
        found += _line(mine, f"{column}_end", f"after{suffix}", style, scale, log=log)
    return found


def _line(frame: Frame, value: str, label: str, style: Style, scale: float = 1.0, *, log: bool = False) -> list[Series]:
    """A mean by level; the pointer also says how many weights are left, since the axis has the level alone."""
    left = frame.groupby("level")["density"].mean()
    return [
        replace(s, hover=[f"{h}, {percent(left[x])} left" if left[x] == left[x] else h
                          for x, h in zip(s.x, s.hover, strict=True)])
        for s in measured(frame, value, label, style, x="level", scale=scale, log=log, dots=False)
    ]  # fmt: skip
