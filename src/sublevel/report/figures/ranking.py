"""Branches ranked by test error at each density, and how much worse each is than the best."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, hover
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import estimate, percent
from sublevel.report.palette import OWN
from sublevel.report.prepare import over_seeds, seeds_note, where

FEWEST = 3
"""Branches at a level that make an order worth drawing."""

EQUAL = 1e-9
"""Points: differences of all seeds that are as equal as this have no spread, and so no interval."""

LETTERS = 45
"""Letters of names that fit beneath a panel; where there are more, places are numbered and named under the pointer."""


@figure("Accuracy", "order of the branches", "levels")
def ranking(tables: Tables) -> Figure:
    """Test error by rank at every density that three or more branches have, and the paired excess over the best."""
    levels = tables["levels"]
    sparse = levels[(levels["branch"] != "dense") & np.isfinite(levels["test_error"])]
    counts = sparse.groupby("level")["branch"].nunique()
    found = [where(sparse, level=level) for level in counts[counts >= FEWEST].index]
    return Figure(
        key="ranking",
        title="Which branch is best at each density?",
        views=[_view(rows) for rows in reversed(found)],
        how=(
            "Test error: branches by their mean. Excess: how far each lies over the first, paired by seed; an interval "
            "that contains 0 shows no significant difference."
        ),
        trap=(
            "The winner is picked and scored on the same data, so its lead is biased upward. With more branches, more "
            "intervals miss 0 by chance."
        ),
        notes=[*(_sentence(rows) for rows in found), seeds_note(sparse, singles=False)],
        pooled=True,
    )


def ordered(rows: Frame) -> Frame:
    """One row for each branch of a level, best first: its mean error, and the excess over the best, in points."""
    means = over_seeds(rows, "test_error", ["branch"], POINTS)
    means = means.sort_values(["mean", "branch"], ignore_index=True)
    errors = rows.pivot_table(index="seed", columns="branch", values="test_error")
    excess = errors.sub(errors[means["branch"].iloc[0]], axis=0).melt(value_name="excess", ignore_index=False)
    behind = over_seeds(excess.reset_index(), "excess", ["branch"], POINTS)
    equal = behind["high"] - behind["low"] <= EQUAL
    behind.loc[equal, ["low", "high"]] = np.nan
    return means.merge(behind, on="branch", suffixes=("", "_behind"), how="left")


def _view(rows: Frame) -> View:
    order = ordered(rows)
    texts = order["branch"] if sum(map(len, order["branch"])) <= LETTERS else order.index + 1
    ticks = tuple((float(i), str(text)) for i, text in enumerate(texts, start=1))
    axis = Axis(title="place", ticks=ticks, hover="", limits=(0.5, len(order) + 0.5))  # room for the last name
    panels = []
    kinds = (("Test error (%)", order, ""), ("Excess over the first (points)", order.iloc[1:], "_behind"))
    for title, part, of in kinds:
        ends = part[[f"{c}{of}" for c in ("mean", "low", "high")]].stack()
        room = 0.06 * float(ends.max() - ends.min()) if len(ends) else 0.0
        limits = (float(ends.min()) - room, float(ends.max()) + room) if room else None
        panels.append(Panel(title=title, x=axis, y=Axis(limits=limits, share=not of), series=_points(part, of)))
    return view(panels, density=percent(float(rows["density"].mean())))


def _points(order: Frame, of: str) -> list[Series]:
    """A point with its interval for each branch, at its place in the order."""
    parts = order[[f"{c}{of}" for c in ("mean", "low", "high", "n")]].set_axis(["mean", "low", "high", "n"], axis=1)
    texts = hover(parts)
    return [
        Series(
            label=branch, x=[float(place) + 1], y=[mean], low=[low], high=[high], style=OWN, mode="points",
            hover=[text],
        )
        for place, branch, mean, low, high, text in zip(
            order.index, order["branch"], parts["mean"], parts["low"], parts["high"], texts, strict=True
        )
    ]  # fmt: skip


def _sentence(rows: Frame) -> str:
    """The order at a density in words: the first, those that do not differ significantly, those that are worse."""
    order = ordered(rows)
    first, others = order.iloc[0], order.iloc[1:]
    surely: pd.Series = others["low_behind"] > 0
    density = percent(float(rows["density"].mean()))
    near = ", ".join(others.loc[~surely, "branch"])
    far = ", ".join(
        f"{row['branch']} (+{estimate(row['mean_behind'], row['low_behind'], row['high_behind'])} points)"
        for _, row in others[surely].iterrows()
    )
    found = f"At {density} of the weights, {first['branch']} has the lowest mean test error"
    found += f"; not significantly different: {near}" if near else ""
    return found + (f"; worse: {far}." if far else ".")
