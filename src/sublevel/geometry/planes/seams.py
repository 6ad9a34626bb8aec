"""Seams of a plane: lines at which BatchNorm's statistics change from one solution's to another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sublevel.space import Point


@dataclass(frozen=True)
class Seam:
    """A line of a plane from (x0, y0) to (x1, y1); its two sides have the statistics of different solutions.

    ``jump`` is the largest difference of the losses on its sides, in nats, at a few points.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    jump: float


def differ(a: Point, b: Point) -> bool:
    """Whether two points have different buffers."""
    return any(bool((buffer != b.buffers[name]).any()) for name, buffer in a.buffers.items() if name in b.buffers)


def bisector(
    places: np.ndarray, i: int, j: int, window: tuple[float, float, float, float], square: np.ndarray
) -> np.ndarray | None:
    """The ends, in coordinates of the frame, of the line in a window whose nearest places are i and j; None if empty.

    ``places`` are coordinates in an orthonormal frame; ``square`` maps coordinates of the frame to it.
    """
    middle, across = (places[i] + places[j]) / 2, places[j] - places[i]
    along = np.array([-across[1], across[0]])
    back = np.linalg.inv(square)
    start, way = middle @ back, along @ back
    low, high = -np.inf, np.inf
    left, right, bottom, top = window
    limits = [
        (way[0], right - start[0]),
        (-way[0], start[0] - left),
        (way[1], top - start[1]),
        (-way[1], start[1] - bottom),
    ]
    for k in range(len(places)):
        if k not in (i, j):  # nearer to i than to k
            away = places[k] - places[i]
            limits.append((float(along @ away), float((places[k] + places[i]) / 2 @ away - middle @ away)))
    for slope, room in limits:  # slope * t <= room
        if slope > 0:
            high = min(high, room / slope)
        elif slope < 0:
            low = max(low, room / slope)
        elif room < 0:
            return None
    return np.stack([start + low * way, start + high * way]) if low < high else None
