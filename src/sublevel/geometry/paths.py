"""Segments between points, and the barriers on them.

A maximum over a grid of alphas is a lower bound on the maximum of the segment; the grid is therefore refined around
its maxima, and what the refinement added is reported as the margin. Three heights are in use and all are given
(Frankle et al. 1912.05671; Entezari et al. 2110.06296): over the higher end, over the chord, over the mean of the ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sublevel.errors import unknown
from sublevel.field import At, Evaluation, Field
from sublevel.space import Point, as_point, lerp

BUFFERS = ("averaged", "stored")


@dataclass(frozen=True)
class Barrier:
    """The maximum of one quantity along a path, and its height in every definition in use.

    ``maximum`` at ``alpha``; ``height`` = max - max(start, end); ``barrier`` = max over alpha of
    q(alpha) - (1 - alpha) start - alpha end; ``rise`` = max - (start + end) / 2; ``margin`` is what refining the first
    grid added to the maximum. All in the quantity's own unit: nats for a loss, shares for an error.
    """

    start: float
    end: float
    maximum: float
    alpha: float
    height: float
    barrier: float
    rise: float
    margin: float


@dataclass(frozen=True, eq=False)
class Profile:
    """Loss and error along a path: arrays of shape [points], sorted by alpha in [0, 1]."""

    alphas: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    coarse: np.ndarray
    """Which of the alphas belong to the first, even grid."""
    policy: str

    def barrier(self, of: str = "loss") -> Barrier:
        """The barrier of ``loss`` or ``error``."""
        q = {"loss": self.loss, "error": self.error}[of]
        start, end, top = q[0], q[-1], q.max()
        with np.errstate(invalid="ignore"):  # an infinite end has no height: nan
            chord = (1 - self.alphas) * start + self.alphas * end
            return Barrier(
                start=float(start),
                end=float(end),
                maximum=float(top),
                alpha=float(self.alphas[q.argmax()]),
                height=float(top - max(start, end)),
                barrier=float((q - chord).max()),
                rise=float(top - (start + end) / 2),
                margin=float(top - q[self.coarse].max()),
            )


def segment(field: Field, a: At, b: At, *, points: int = 21, refine: int = 2, buffers: str = "averaged") -> Profile:
    """Loss and error on the segment from a to b.

    ``points`` alphas on an even grid with both ends, then ``refine`` rounds that halve the two intervals beside
    the maximum of the loss and of the error. ``buffers`` says what the statistics are between the ends:
    ``averaged`` lerps them with theta, ``stored`` keeps those of a (and of b at b itself only if they are the same).
    Under a field whose policy is ``recomputed`` or ``batch`` they are computed at every alpha and this is moot.
    """
    if points < 3:
        raise ValueError(f"a segment needs at least 3 points, got {points}")
    if buffers not in BUFFERS:
        raise unknown("buffers of a path", buffers, BUFFERS)
    start, end = as_point(a), as_point(b)
    if buffers == "stored":
        end = Point(end.theta, start.buffers)
    seen: dict[float, Evaluation] = {}

    def look(alphas: list[float]) -> None:
        for alpha in alphas:
            if alpha not in seen:
                seen[alpha] = field.evaluate(lerp(start, end, alpha))

    grid = [i / (points - 1) for i in range(points)]
    look(grid)
    for _ in range(refine):
        look(_beside(seen, [e.loss for _, e in sorted(seen.items())]))
        look(_beside(seen, [e.error for _, e in sorted(seen.items())]))
    alphas = sorted(seen)
    policy = buffers if field.policy == "stored" else field.policy
    return Profile(
        alphas=np.array(alphas),
        loss=np.array([seen[alpha].loss for alpha in alphas]),
        error=np.array([seen[alpha].error for alpha in alphas]),
        coarse=np.isin(alphas, grid),
        policy=policy,
    )


def barrier(field: Field, a: At, b: At, *, of: str = "loss", points: int = 21, refine: int = 2) -> Barrier:
    """The barrier between a and b on the straight segment, statistics averaged unless the field recomputes them.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> hill = Quadratic(torch.tensor([-2.0]))
    >>> barrier(hill, torch.tensor([-1.0]), torch.tensor([1.0])).height
    1.0
    """
    return segment(field, a, b, points=points, refine=refine).barrier(of)


def _beside(seen: dict[float, Evaluation], values: list[float]) -> list[float]:
    """The midpoints of the intervals beside the largest value."""
    if not np.isfinite(values).all():
        return []
    alphas = sorted(seen)
    top = int(np.argmax(values))
    neighbours = [i for i in (top - 1, top + 1) if 0 <= i < len(alphas)]
    return [(alphas[top] + alphas[i]) / 2 for i in neighbours]
