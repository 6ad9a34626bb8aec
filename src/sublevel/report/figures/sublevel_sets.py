"""The dense network's sublevel set on a plane: its height, its border, and which solutions lie in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from contourpy import contour_generator

from sublevel.claims.basins import threshold
from sublevel.claims.margins import FEWEST_SEEDS, PREDICTION, RISE_MARGIN
from sublevel.report.describe import Landscape, Series
from sublevel.report.frame import Frame
from sublevel.report.numbers import plain
from sublevel.report.palette import Style
from sublevel.report.prepare import where

BORDER = Style("#b3123f")


@dataclass(frozen=True)
class SublevelSet:
    """The points with train loss at most ``height``; ``label`` says whose height it is, ``rule`` how it was found.

    ``name`` is what it is called beside a point.
    """

    height: float
    label: str
    rule: str
    name: str = "the set"

    def holds(self, loss: float) -> bool:
        """Whether a solution of that loss lies in it."""
        return loss <= self.height


def sublevel_set(marks: Frame, levels: Frame) -> SublevelSet | None:
    """The sublevel set of the dense network, else of a plane's first solution; None where no loss is known.

    With three dense networks or more its height is the 95% prediction bound for the train loss of another one, the
    threshold of the claims; with fewer it is the loss of the solution and 10% of it, the margin of a barrier.
    """
    losses = where(levels, branch="dense")["train_loss"].dropna()
    bound = len(losses) >= FEWEST_SEEDS
    height = threshold(list(losses))
    of = "the dense network"
    if losses.empty and len(marks):
        first = marks[marks["step"].isna()].iloc[0]
        height, of = (1 + RISE_MARGIN) * own_loss(first, levels), str(first["name"])
    if not math.isfinite(height):
        return None
    rule = (
        f"the {100 * PREDICTION:.0f}% prediction bound for the train loss of a new dense network ({len(losses)} seeds)"
        if bound
        else f"{100 * RISE_MARGIN:.0f}% above the train loss of {of}"
    )
    return SublevelSet(height, f"sublevel set of {of}: loss ≤ {plain(height, 3)}", rule,
                       "the set" if losses.empty else "the dense set")  # fmt: skip


def own_loss(mark: Frame, levels: Frame) -> float:
    """The train loss that a landmark's solution has on all examples; NaN where it is not known."""
    found = where(levels, branch=mark["branch"], level=mark["level"], seed=mark["seed"])["train_loss"]
    return float(found.iloc[0]) if len(found) else math.nan


def border(of: SublevelSet, landscape: Landscape) -> list[Series]:
    """The line at the height of the set, on a landscape with that ``level``; none where it does not cross."""
    x, y, z = (np.asarray(v, dtype=float) for v in (landscape.x, landscape.y, landscape.z))
    level = landscape.level
    if level is None:
        return []
    lines: Any = contour_generator(x, y, np.ma.masked_invalid(z)).lines(level)
    if not lines:
        return []
    gap = np.full((1, 2), np.nan)
    at = np.concatenate([part for line in lines for part in (line, gap)][:-1])
    heights = np.where(np.isnan(at[:, 0]), np.nan, level)
    return [Series(label=of.label, x=at[:, 0].tolist(), y=at[:, 1].tolist(), z=heights.tolist(), style=BORDER,
                   mode="line")]  # fmt: skip
