"""Losses and errors on a grid of a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sublevel.display import Shown
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.estimate import join_reasons
from sublevel.geometry.planes.frames import Frame
from sublevel.geometry.planes.seams import Seam


@dataclass(frozen=True, eq=False, repr=False)
class Plane(Shown):
    """Loss and error on a grid of a plane: arrays [ny, nx] at (``xs``, ``ys``).

    ``points`` holds the coordinates of named points as (x, y, residual distance). ``policy`` is the rule of the
    buffers, ``evaluations`` the effort. ``reason`` names losses that are not finite or jump at ``seams``; it is empty
    if there are none.
    """

    frame: Frame
    xs: np.ndarray
    ys: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    points: Mapping[str, tuple[float, float, float]]
    policy: str
    evaluations: int
    reason: str = ""
    seams: tuple[Seam, ...] = ()

    def _facts(self) -> dict[str, object]:
        return {
            "": f"{len(self.xs)} x {len(self.ys)} points {self.frame.words}",
            "loss": f"{np.nanmin(self.loss):.4g} to {np.nanmax(self.loss):.4g}",
            "points:": list(self.points),
            "statistics:": self.policy if self.policy != "none" else "",
            "caution:": self.reason,
        }


def scan(
    field: Field,
    frame: Frame,
    xs: Sequence[float] | np.ndarray,
    ys: Sequence[float] | np.ndarray,
    *,
    points: Mapping[str, PointLike] | None = None,
) -> Plane:
    """Evaluate a field on the grid ``xs`` times ``ys`` of a plane, and project the named ``points`` onto it.

    BatchNorm's statistics are recomputed at every point unless the frame has another rule.

    Raises TypeError for a stochastic field, ValueError for a side of the grid that does not ascend.
    """
    require_field(field, "a plane")
    x, y = ascending(xs, "xs"), ascending(ys, "ys")
    field = frame.seen_by(field)
    seen = field.evaluations(frame.point(float(u), float(v)) for v in y for u in x)
    loss, error = (np.array([getattr(e, of) for e in seen]).reshape(len(y), len(x)) for of in ("loss", "error"))
    seams = frame.seams(field, x, y)
    reason, policy = doubts(loss, seams), policy_of(field, frame)
    return Plane(frame, x, y, loss, error, places(frame, points), policy, loss.size, reason, seams)


def places(frame: Frame, points: Mapping[str, PointLike] | None) -> dict[str, tuple[float, float, float]]:
    """The coordinates of named points on a frame: (x, y, residual)."""
    named = dict(points or {})
    seen = frame.project(list(named.values()))
    return {
        name: (float(x), float(y), float(r)) for name, x, y, r in zip(named, seen.x, seen.y, seen.residual, strict=True)
    }


def policy_of(field: Field, frame: Frame) -> str:
    """The buffer policy on a plane: the frame's rule if the field reads stored buffers, else the field's policy."""
    seen = frame.seen_by(field)
    return frame.buffers if seen.policy == "stored" else seen.policy


def doubts(loss: np.ndarray, seams: Sequence[Seam] = ()) -> str:
    """The reasons not to trust a plane: losses that are not finite, seams of the statistics."""
    bad = int((~np.isfinite(loss)).sum())
    lines = "a line" if len(seams) == 1 else f"{len(seams)} lines"
    jump = max((seam.jump for seam in seams), default=0.0)
    return join_reasons(
        {
            f"the loss is not finite at {bad} of {loss.size} points": bad,
            f"BatchNorm's statistics are those of the nearest solution and change at {lines}, where the loss jumps by "
            f"up to {jump:.3g}": seams,
        }
    )


def ascending(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """The values of one side of a grid; requires at least two, strictly ascending."""
    out = np.asarray(values, dtype=float)
    if out.ndim != 1 or len(out) < 2 or not (np.diff(out) > 0).all():
        raise ValueError(f"{name} must be at least 2 ascending numbers, got {out.tolist()}")
    return out
