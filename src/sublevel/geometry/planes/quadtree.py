"""An adaptive scan of a plane: a quadtree that refines a base grid where the loss changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sublevel.display import Shown
from sublevel.field import Evaluation, Field, PointLike, require_field
from sublevel.geometry.planes.frames import Frame
from sublevel.geometry.planes.scans import Plane, ascending, doubts, places, policy_of
from sublevel.geometry.planes.seams import Seam

Corner = tuple[int, int]
"""(column, row) on the finest lattice."""
Cell = tuple[int, int, int]
"""(column, row, side) on the finest lattice."""


@dataclass(frozen=True, eq=False, repr=False)
class Mesh(Shown):
    """Loss and error at scattered points of a plane: arrays [n], with the refinement ``level`` that added each point.

    ``cells`` [cells, 3] are the leaves (column, row, side) on the lattice ``xs`` times ``ys`` of the finest level.
    Their corners are among the points: ``corners`` [cells, 4] are their indices (low-low, high-low, low-high,
    high-high).
    """

    frame: Frame
    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    level: np.ndarray
    cells: np.ndarray
    corners: np.ndarray
    xs: np.ndarray
    ys: np.ndarray
    points: Mapping[str, tuple[float, float, float]]
    policy: str
    reason: str = ""
    seams: tuple[Seam, ...] = ()

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the field."""
        return len(self.loss)

    def rows(self) -> list[tuple[float, float, float, float, int]]:
        """(x, y, loss, error, level) of every point, in the order of evaluation."""
        columns = (self.x, self.y, self.loss, self.error, self.level)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def plane(self, xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray) -> Plane:
        """Interpolate to a regular grid, bilinearly in each leaf; exact at the points of the mesh.

        Raises ValueError for a side that does not ascend or leaves the mesh.
        """
        x, y = ascending(xs, "xs"), ascending(ys, "ys")
        for name, got, have in (("xs", x, self.xs), ("ys", y, self.ys)):
            if got[0] < have[0] or got[-1] > have[-1]:
                raise ValueError(
                    f"{name} reach from {got[0]:g} to {got[-1]:g}, the mesh from {have[0]:g} to {have[-1]:g}"
                )
        loss, error = self._interpolate(self.loss, x, y), self._interpolate(self.error, x, y)
        reason = doubts(loss, self.seams)
        return Plane(self.frame, x, y, loss, error, self.points, self.policy, self.evaluations, reason, self.seams)

    def _interpolate(self, values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u = np.interp(x, self.xs, np.arange(len(self.xs)))[None, :]
        v = np.interp(y, self.ys, np.arange(len(self.ys)))[:, None]
        owner = np.zeros((len(self.ys) - 1, len(self.xs) - 1), dtype=int)
        for number, (i, j, side) in enumerate(self.cells):
            owner[j : j + side, i : i + side] = number
        leaf = owner[np.minimum(v.astype(int), len(self.ys) - 2), np.minimum(u.astype(int), len(self.xs) - 2)]
        i, j, side = np.moveaxis(self.cells[leaf], -1, 0)
        s, t = (u - i) / side, (v - j) / side
        shares = np.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t])
        corners = np.moveaxis(values[self.corners[leaf]], -1, 0)
        with np.errstate(invalid="ignore"):  # a corner without a share may be inf
            return np.where(shares > 0, shares * corners, 0.0).sum(axis=0)

    def _facts(self) -> dict[str, object]:
        return {
            "": f"{len(self.loss):,} points, refined {int(self.level.max())} times, {self.frame.words}",
            "loss": f"{np.nanmin(self.loss):.4g} to {np.nanmax(self.loss):.4g}",
            "points:": list(self.points),
            "statistics:": self.policy if self.policy != "none" else "",
            "caution:": self.reason,
        }


def adaptive_scan(
    field: Field,
    frame: Frame,
    xs: Sequence[float] | np.ndarray,
    ys: Sequence[float] | np.ndarray,
    *,
    tolerance: float,
    levels: int = 3,
    points: Mapping[str, PointLike] | None = None,
) -> Mesh:
    """Evaluate a field on a base grid, then split the cells whose corners differ by more than ``tolerance`` in loss.

    Each of at most ``levels`` rounds halves such cells in both directions, and cells with a corner that is not finite.
    Features inside a cell whose corners agree are missed, so the base grid must be fine enough.

    Raises TypeError for a stochastic field, ValueError for a tolerance that is not positive, negative levels, or a side
    of the grid that does not ascend.
    """
    require_field(field, "a plane")
    if not tolerance > 0 or levels < 0:
        raise ValueError(f"refinement needs a tolerance > 0 and levels >= 0, got {tolerance} and {levels}")
    field = frame.seen_by(field)
    side = 2**levels
    fine_x, fine_y = _lattice(ascending(xs, "xs"), side), _lattice(ascending(ys, "ys"), side)
    seen: dict[Corner, tuple[Evaluation, int]] = {}

    def look(cells: list[Cell], level: int) -> None:
        corners = dict.fromkeys(node for cell in cells for node in _corners(cell))
        new = [node for node in corners if node not in seen]
        found = field.evaluations(frame.point(float(fine_x[i]), float(fine_y[j])) for i, j in new)
        seen.update((node, (here, level)) for node, here in zip(new, found, strict=True))

    rows, columns = range(0, len(fine_y) - 1, side), range(0, len(fine_x) - 1, side)
    active: list[Cell] = [(i, j, side) for j in rows for i in columns]
    leaves: list[Cell] = []
    look(active, 0)
    for level in range(1, levels + 1):
        steep = [cell for cell in active if not _range(cell, seen) <= tolerance]
        leaves += [cell for cell in active if _range(cell, seen) <= tolerance]
        half = side // 2**level
        active = [(i + di, j + dj, half) for i, j, _ in steep for dj in (0, half) for di in (0, half)]
        look(active, level)
    leaves += active
    order = {node: number for number, node in enumerate(seen)}
    loss = np.array([e.loss for e, _ in seen.values()])
    seams = frame.seams(field, fine_x, fine_y)
    return Mesh(
        frame=frame,
        x=np.array([fine_x[i] for i, _ in seen]),
        y=np.array([fine_y[j] for _, j in seen]),
        loss=loss,
        error=np.array([e.error for e, _ in seen.values()]),
        level=np.array([level for _, level in seen.values()]),
        cells=np.array(leaves),
        corners=np.array([[order[node] for node in _corners(cell)] for cell in leaves]),
        xs=fine_x,
        ys=fine_y,
        points=places(frame, points),
        policy=policy_of(field, frame),
        reason=doubts(loss, seams),
        seams=seams,
    )


def _lattice(values: np.ndarray, side: int) -> np.ndarray:
    return np.interp(np.arange((len(values) - 1) * side + 1) / side, np.arange(len(values)), values)


def _corners(cell: Cell) -> tuple[Corner, Corner, Corner, Corner]:
    i, j, side = cell
    return (i, j), (i + side, j), (i, j + side), (i + side, j + side)


def _range(cell: Cell, seen: dict[Corner, tuple[Evaluation, int]]) -> float:
    losses = [seen[node][0].loss for node in _corners(cell)]
    if not np.isfinite(losses).all():
        return float("inf")
    return max(losses) - min(losses)
