"""The two legs of a level: pruning, then retraining."""

from __future__ import annotations

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, hover, level_axis, mean_of, samples
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.numbers import percent
from sublevel.report.palette import Style, dashed, known_first, policy
from sublevel.report.prepare import choices, seeds_note, where, with_density

LEGS = {"prune": "Pruning", "retrain": "Retraining"}
LEG_STYLES = {"prune": Style("#8667bd", "square"), "retrain": Style("#0a9b74", "circle")}
MOVES = (("distance", "Distance between the ends"), ("cosine", "Cosine between the ends"))


@figure("What pruning and retraining do", "the two legs of a level", "legs")
def legs(tables: Tables) -> Figure:
    """Loss and error at both ends of both legs, by level, and how far the weights moved."""
    table = with_density(tables["legs"], tables["levels"])
    names = choices(table, ["branch", "split"])
    order = {b: i for i, b in enumerate(known_first(table["branch"]))}
    names.sort(key=lambda c: (order[c["branch"]], c["split"] != "train"))
    return Figure(
        key="legs",
        title="What pruning breaks and retraining mends",
        views=[_legs(where(table, **c), c) for c in names],
        how=(
            "Hollow and dotted is before a leg, filled is after it: pruning left, retraining right, for each "
            "treatment of the BatchNorm statistics. Below, how far each leg moves the weights."
        ),
        trap=(
            "With BatchNorm much of the jump after pruning is statistics that no longer fit the weights. Compare "
            "the policies before calling it a loss of the solution."
        ),
        notes=[seeds_note(table, singles=False)],
    )


def _legs(frame: Frame, choice: dict[str, str]) -> View:
    axis = level_axis(frame["level"])
    panels = [
        Panel(
            title=f"{name}: {title}",
            x=axis,
            y=Axis(log=log, share=scale == POINTS),
            series=_ends(where(frame, leg=leg), column, scale, log),
        )
        for column, title, scale in (("loss", "loss", 1.0), ("error", "error (%)", POINTS))
        for leg, name in LEGS.items()
        for log in [column == "loss" and _wide(frame)]
    ]
    moved = [Panel(title=title, x=axis, series=_moves(frame, column)) for column, title in MOVES]
    return view([*panels, *moved], **choice)


def _wide(frame: Frame) -> bool:
    """Whether the losses of a view span so much that only a logarithmic axis shows them."""
    losses = frame[["loss_start", "loss_end"]].stack()
    return bool(len(losses) and losses.min() > 0 and losses.max() / losses.min() > 30)


def _ends(frame: Frame, column: str, scale: float, log: bool) -> list[Series]:
    found: list[Series] = []
    for buffers in sorted(frame["buffers"].unique()):
        mine, style = where(frame, buffers=buffers), policy(buffers)
        suffix = "" if buffers in ("none", "") else f", {buffers} statistics"
        found.append(_line(mine, f"{column}_start", f"before{suffix}", dashed(style, "dot"), scale, log, hollow=True))
        found.append(_line(mine, f"{column}_end", f"after{suffix}", style, scale, log))
    return found


def _line(frame: Frame, value: str, label: str, style: Style, scale: float, log: bool, hollow: bool = False) -> Series:
    means = mean_of(frame, value, ["level"], scale, log)
    return Series(
        label=label, x=list(means["level"]), y=list(means["mean"]), low=list(means["low"]),
        high=list(means["high"]), style=style, hollow=[hollow] * len(means), hover=_hover(frame, means),
        samples=samples(frame, value, means, "level", scale, log=log),
    )  # fmt: skip


def _hover(frame: Frame, means: Frame) -> list[str]:
    """Interval and seeds, and how many weights are left: the axis has the level alone."""
    left = frame.groupby("level")["density"].mean().reindex(means["level"])
    return [f"{h}{f', {percent(d)} left' if d == d else ''}" for h, d in zip(hover(means), left, strict=True)]


def _moves(frame: Frame, value: str) -> list[Series]:
    one = frame.drop_duplicates(["level", "seed", "leg"])  # the weights do not depend on the buffers
    return [
        _line(where(one, leg=leg), value, f"{name.lower()} leg", LEG_STYLES[leg], 1.0, False)
        for leg, name in LEGS.items()
    ]
