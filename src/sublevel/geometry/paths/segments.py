"""Profiles along segments and other paths, and their barriers.

The maximum over a grid of alphas is a lower bound on the maximum of the path. The grid is therefore refined around its
maxima, and the increase by refinement is reported as the margin. Three heights are in use, and all are given (Frankle
et al. 1912.05671; Entezari et al. 2110.06296): over the higher end, over the chord, over the mean of the ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np

from sublevel.display import Shown
from sublevel.errors import unknown
from sublevel.field import Evaluation, Field, PointLike, require_field
from sublevel.space import Point, lerp

BUFFERS = ("averaged", "stored")

Path = Callable[[float], Point]
"""Maps alpha in [0, 1] to a point; alpha = 0 and 1 give the end points."""


@dataclass(frozen=True, repr=False)
class Barrier(Shown):
    """The maximum of a quantity q along a path, and its height by every definition in use.

    ``maximum`` is at ``alpha``; ``height`` = max - max(start, end); ``barrier`` = max over alpha of
    q(alpha) - (1 - alpha) start - alpha end, at ``barrier_alpha``; ``rise`` = max - (start + end) / 2. ``margin`` and
    ``barrier_margin`` are the increases of the maximum and the barrier by refining the first grid. All are in the unit
    of q: nats for a loss, shares for an error.
    """

    start: float
    end: float
    maximum: float
    alpha: float
    height: float
    barrier: float
    rise: float
    margin: float
    barrier_alpha: float
    barrier_margin: float

    @property
    def reason(self) -> str:
        """Why the height is undefined: a value on the path is not finite; empty if all are."""
        if isfinite(self.maximum) and isfinite(self.start) and isfinite(self.end):
            return ""
        return f"not finite on the path: {self.start:.3g} at its start, {self.maximum:.3g} at alpha = {self.alpha:.3g}"

    def _facts(self) -> dict[str, object]:
        return {
            "": f"{self.barrier:.4g}",
            "height": self.height,
            "maximum": f"{self.maximum:.4g} at alpha = {self.alpha:.3g}",
            "ends": f"{self.start:.4g} and {self.end:.4g}",
            "gained by refining": self.barrier_margin,
            "caution:": self.reason,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Shown):
    """Loss and error along a path: arrays of shape [points], sorted by alpha in [0, 1]."""

    alphas: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    coarse: np.ndarray
    """True for the alphas of the first, even grid."""
    policy: str
    reason: str = ""
    """Names losses on the path that are not finite; empty if all are."""

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the field."""
        return len(self.alphas)

    def barrier(self, of: str = "loss") -> Barrier:
        """The barrier of ``loss`` or ``error``.

        An inf or nan on the path makes the maximum and the heights inf or nan, and sets `Barrier.reason`.
        """
        q = self._values(of)
        start, end, top = q[0], q[-1], q.max()
        with np.errstate(invalid="ignore"):  # an infinite end has no height: nan
            over = over_chord(self.alphas, q)
            return Barrier(
                start=float(start),
                end=float(end),
                maximum=float(top),
                alpha=float(self.alphas[q.argmax()]),
                height=float(top - max(start, end)),
                barrier=float(over.max()),
                rise=float(top - (start + end) / 2),
                margin=float(top - q[self.coarse].max()),
                barrier_alpha=float(self.alphas[over.argmax()]),
                barrier_margin=float(over.max() - over[self.coarse].max()),
            )

    def excess(self, threshold: float, of: str = "loss") -> float:
        """The excess height over a threshold: the path's maximum - threshold, in the unit of ``of``.

        At or below 0 the path stays in the sublevel set of the threshold, at the grid's resolution. A positive value
        proves nothing about other paths. It is inf or nan if a value on the path is.

        Raises ValueError for a threshold of nan.
        """
        if isnan(threshold):
            raise ValueError("a threshold is a height of the loss or error, got nan")
        return float(self._values(of).max()) - threshold

    def _values(self, of: str) -> np.ndarray:
        """The values, with -inf, which a maximum would ignore, as nan."""
        if of not in ("loss", "error"):
            raise unknown("quantity of a profile", of, ("loss", "error"))
        q = self.loss if of == "loss" else self.error
        return np.where(np.isneginf(q), np.nan, q)

    def _facts(self) -> dict[str, object]:
        over = self.barrier()
        return {
            "": f"{len(self.alphas)} points",
            "loss barrier": over.barrier,
            "error barrier": self.barrier("error").barrier if np.isfinite(self.error).all() else None,
            "maximum": f"{over.maximum:.4g} at alpha = {over.alpha:.3g}",
            "ends": f"{over.start:.4g} and {over.end:.4g}",
            "statistics:": self.policy if self.policy != "none" else "",
            "caution:": self.reason,
        }


def over_chord(alphas: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The height of a quantity over the chord between its ends: q(alpha) - (1 - alpha) q(0) - alpha q(1)."""
    return q - ((1 - alphas) * q[0] + alphas * q[-1])


def along(
    field: Field,
    path: Path,
    *,
    points: int = 21,
    refine: int = 2,
    buffers: str = "averaged",
    chord: bool = True,
) -> Profile:
    """Loss and error along any path.

    The first grid has ``points`` even alphas, including both ends. Each of ``refine`` rounds halves the two intervals
    next to the maximum of the loss and of the error, and, with ``chord``, to the maximum of each over its chord: on
    a rising or falling path the maximum is at an end, and the barrier elsewhere. The path gives the buffers;
    ``buffers`` is their name in the result, unless the field's policy computes them at every alpha.

    Raises TypeError for a stochastic field, ValueError for fewer than 3 points or a negative ``refine``.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> def arc(alpha):
    ...     angle = torch.tensor(torch.pi * alpha, dtype=torch.float64)
    ...     return Point(torch.stack([angle.cos(), angle.sin()]))
    >>> round(along(Quadratic(torch.tensor([1.0, 1.0])), arc).barrier().height, 12)
    0.0
    """
    require_field(field, "a profile")
    if points < 3 or refine < 0:
        raise ValueError(f"a path needs at least 3 points, got {points}, and rounds of refinement >= 0, got {refine}")
    seen: dict[float, Evaluation] = {}

    def look(alphas: list[float]) -> None:
        new = [alpha for alpha in dict.fromkeys(alphas) if alpha not in seen]
        seen.update(zip(new, field.evaluations(map(path, new)), strict=True))

    grid = [i / (points - 1) for i in range(points)]
    look(grid)
    for _ in range(refine):
        look([alpha for of in ("loss", "error") for alpha in _beside(seen, of, chord)])
    alphas = sorted(seen)
    loss = np.array([seen[alpha].loss for alpha in alphas])
    bad, reason = np.flatnonzero(~np.isfinite(loss)), ""
    if len(bad):
        first = f"first at alpha = {alphas[bad[0]]:.3g} ({loss[bad[0]]})"
        reason = f"the loss is not finite at {len(bad)} of {len(loss)} points, {first}"
    return Profile(
        alphas=np.array(alphas),
        loss=loss,
        error=np.array([seen[alpha].error for alpha in alphas]),
        coarse=np.isin(alphas, grid),
        policy=buffers if field.policy == "stored" else field.policy,
        reason=reason,
    )


def segment(
    field: Field, a: PointLike, b: PointLike, *, points: int = 21, refine: int = 2, buffers: str = "averaged"
) -> Profile:
    """Loss and error on the segment from a to b, on the grid of `along`.

    ``buffers`` chooses the statistics along the segment: ``averaged`` lerps them with theta, ``stored`` takes those of
    a everywhere, also at b. A field with the policy ``recomputed`` or ``batch`` computes them at every alpha and
    ignores this.

    Raises TypeError for a stochastic field.
    """
    require_field(field, "a segment")
    if buffers not in BUFFERS:
        raise unknown("buffers of a path", buffers, BUFFERS)
    start, end = field.point(a), field.point(b)
    if buffers == "stored":
        end = Point(end.theta, start.buffers)
    return along(field, lambda alpha: lerp(start, end, alpha), points=points, refine=refine, buffers=buffers)


def barrier(
    field: Field, a: PointLike, b: PointLike, *, of: str = "loss", points: int = 21, refine: int = 2
) -> Barrier:
    """The barrier between a and b on the straight segment, with averaged statistics unless the field recomputes them.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> hill = Quadratic(torch.tensor([-2.0]))
    >>> barrier(hill, torch.tensor([-1.0]), torch.tensor([1.0])).height
    1.0
    """
    return segment(field, a, b, points=points, refine=refine).barrier(of)


def _beside(seen: dict[float, Evaluation], of: str, chord: bool) -> list[float]:
    """The midpoints of the intervals next to the largest value, and next to the largest height over the chord."""
    alphas = np.array(sorted(seen))
    values = np.array([getattr(seen[alpha], of) for alpha in alphas])
    if not np.isfinite(values).all():
        return []
    tops = {int(values.argmax()), int(over_chord(alphas, values).argmax())} if chord else {int(values.argmax())}
    pairs = [(top, i) for top in sorted(tops) for i in (top - 1, top + 1) if 0 <= i < len(alphas)]
    return [float((alphas[top] + alphas[i]) / 2) for top, i in pairs]
