"""What claims read off a path: how far the loss rises over the higher end, in what a margin is stated for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sublevel.claims.margins import RISE_RESOLUTION
from sublevel.claims.parts import ClaimPart
from sublevel.claims.query import Measured, Selection, Tables, densities

Statistic = Callable[[Selection], NDArray[np.float64]]


def relative_rise(rows: Selection) -> NDArray[np.float64]:
    """The height over the higher end, divided by the loss there."""
    return rise_over(rows.numbers("loss_max"), rows.numbers("loss_from"), rows.numbers("loss_to"))


def rise_over(top: NDArray[np.float64], one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """(top - max(one, two)) / max(one, two), at least 0; NaN where the higher end is not above 0.

    >>> rise_over(np.array([1.2]), np.array([1.0]), np.array([0.5])).round(9).tolist()
    [0.2]
    """
    end = np.maximum(one, two)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(end > 0, np.maximum(top - end, 0.0) / end, np.nan)


def of_paths(tables: Tables, rows: Selection, values: Statistic | str, *notes: str) -> Measured:
    """A value of each path, by the level that it leads to."""
    known = densities(tables, *sorted(set(rows.words("branch"))))
    chosen = (f"{rows.note} on paths",) if rows.note else ()
    numbers = rows.numbers(values) if isinstance(values, str) else values(rows)
    return Measured(rows.cells(numbers, "level_to"), known, rows.asked, (*chosen, *notes))


def rise_part(name: str, measured: Measured, **more: object) -> ClaimPart:
    """A relative rise, which cannot be negative: 0 in every seed lies inside any margin."""
    return ClaimPart(name=name, unit="share", measured=measured, floor=RISE_RESOLUTION, **more)  # pyright: ignore
