"""Two-dimensional slices of the landscape: through three points, or along random or Hessian directions.

A `Frame` is a plane in R^D with the rule that gives its points their buffers. What lies on no plane (a trajectory, a
fourth solution) is projected onto it, and the distance that the picture does not show is always given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, PointLike, require_field
from sublevel.rng import generator
from sublevel.space import Point, Space, as_point

RULES = ("recomputed", "nearest", "first")
ALONG = 9
"""Points of a seam at which the jump of the loss is looked at."""
LINE = 1e-6
"""The sine of the angle below which two directions are one line."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates ``x`` [n] and ``y`` [n] of points on a plane, and their ``residual`` [n] distances from it."""

    x: np.ndarray
    y: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True, eq=False)
class Frame:
    """The plane origin + x axes[0] + y axes[1] in R^D; ``axes`` [2, D] in float64.

    ``kind`` says how the axes came about. BatchNorm's statistics at a point of the plane are, by the rule ``buffers``,
    ``recomputed`` there (see `Field.recomputed`), or by a field under stored statistics those of the ``nearest`` of the
    ``anchors`` (a piecewise constant choice: the loss jumps at the `seams` half-way between two of them) or of the
    ``first``. Any other buffer is that of the nearest anchor.
    """

    origin: Point
    axes: Float[Tensor, "2 D"]
    kind: str
    anchors: tuple[Point, ...]
    buffers: str = "recomputed"

    def __post_init__(self) -> None:
        if self.buffers not in RULES:
            raise unknown("buffers of a plane", self.buffers, RULES)

    def seen_by(self, field: Field) -> Field:
        """The field as the frame's rule has it."""
        return field.recomputed() if self.buffers == "recomputed" else field

    def point(self, x: float, y: float) -> Point:
        """The point of the plane, with its buffers."""
        theta = self.origin.theta.double() + x * self.axes[0] + y * self.axes[1]
        return Point(theta.to(self.origin.theta.dtype), self._anchor(x, y).buffers)

    def project(self, points: Sequence[PointLike]) -> Projection:
        """Where points (the checkpoints of a trajectory) lie on the plane, by least squares, and how far from it.

        Raises ValueError for a point of another dimension.
        """
        found = [self._coordinates(as_point(at).theta) for at in points]
        x, y, residual = np.array(found, dtype=float).reshape(-1, 3).T
        return Projection(x, y, residual)

    def window(self, n: int = 21, margin: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
        """``n`` values of x and of y that hold the anchors with a margin, or [-1, 1] around a single one."""
        if n < 2:
            raise ValueError(f"a grid needs at least 2 values to a side, got {n}")
        seen = self.project(self.anchors)
        return _spread(seen.x, n, margin), _spread(seen.y, n, margin)

    def seams(self, field: Field, xs: np.ndarray, ys: np.ndarray) -> tuple[Seam, ...]:
        """Where on the window the statistics change from one anchor's to another's, and how far the loss jumps there.

        None unless the rule is ``nearest``, the field reads stored statistics, and those of two anchors differ.
        """
        if self.buffers != "nearest" or self.seen_by(field).policy != "stored":
            return ()
        found = []
        for i, j in combinations(range(len(self.anchors)), 2):
            ends = _bisector(self._places, i, j, (xs[0], xs[-1], ys[0], ys[-1]), self._square)
            if ends is not None and _differ(self.anchors[i], self.anchors[j]):
                x0, y0, x1, y1 = map(float, ends.reshape(-1))
                found.append(Seam(x0, y0, x1, y1, self._jump(field, ends, i, j)))
        return tuple(found)

    def _jump(self, field: Field, ends: np.ndarray, i: int, j: int) -> float:
        """The largest difference that the choice between two anchors makes to the loss along a seam."""
        places = [ends[0] + share * (ends[1] - ends[0]) for share in np.linspace(0, 1, ALONG)]
        thetas = [self.point(float(x), float(y)).theta for x, y in places]
        sides = [field.evaluations(Point(theta, self.anchors[k].buffers) for theta in thetas) for k in (i, j)]
        return max(abs(a.loss - b.loss) for a, b in zip(*sides, strict=True))

    def _coordinates(self, theta: Tensor) -> tuple[float, float, float]:
        if len(theta) != self.axes.shape[1]:
            raise ValueError(f"a point of dimension {len(theta)} has no place beside a plane in {self.axes.shape[1]}")
        d = theta.to(self.axes) - self.origin.theta.double()
        place = torch.linalg.solve(self.axes @ self.axes.T, self.axes @ d)
        return float(place[0]), float(place[1]), float((d - place @ self.axes).norm())

    def nearest(self, x: float, y: float) -> int:
        """Which of the anchors lies nearest to a point of the plane, of those that lie equally near the first."""
        away = np.array([x, y]) @ self._square - self._places
        return int((away**2).sum(axis=1).argmin())

    def _anchor(self, x: float, y: float) -> Point:
        first = self.buffers == "first" or len(self.anchors) == 1
        return self.anchors[0 if first else self.nearest(x, y)]

    @cached_property
    def _square(self) -> np.ndarray:
        """A matrix that turns coordinates into those of an orthonormal frame: distances on the plane are theirs."""
        return np.linalg.cholesky((self.axes @ self.axes.T).cpu().numpy())

    @cached_property
    def _places(self) -> np.ndarray:
        """The anchors in that frame [anchors, 2]."""
        seen = self.project(self.anchors)
        return np.stack([seen.x, seen.y], axis=1) @ self._square


@dataclass(frozen=True)
class Seam:
    """A line of a plane, from (x0, y0) to (x1, y1), on whose sides statistics are those of different solutions.

    ``jump`` is the largest difference of the losses on its two sides, in nats, at `ALONG` points.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    jump: float


def plane_through(a: PointLike, b: PointLike, c: PointLike, *, buffers: str = "recomputed") -> Frame:
    """The plane through three points, in an orthonormal frame by Gram-Schmidt: a at (0, 0), b at (|b - a|, 0).

    ``buffers`` is the rule of BatchNorm's statistics on the plane (see `Frame`).

    Raises ValueError where the points lie on a line or have different dimensions, ConfigError for a rule of buffers
    that is none.

    >>> frame = plane_through(torch.zeros(3), torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0]))
    >>> seen = frame.project([torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 5.0])])
    >>> seen.x.tolist(), seen.y.tolist(), seen.residual.tolist()
    ([1.0, 0.0], [2.0, 1.0], [0.0, 5.0])
    """
    anchors = as_point(a), as_point(b), as_point(c)
    sizes = [len(p.theta) for p in anchors]
    if len(set(sizes)) > 1:
        raise ValueError(f"no plane goes through points of dimensions {', '.join(map(str, sizes))}")
    origin = anchors[0].theta.double()
    spread = torch.stack([p.theta.double() - origin for p in anchors[1:]])
    return Frame(anchors[0], _gram_schmidt(spread, "the three points lie on one line"), "points", anchors, buffers)


def eigen_plane(point: PointLike, vectors: Float[Tensor, "k D"]) -> Frame:
    """The plane at a point along two directions, two eigenvectors of the Hessian say, made orthonormal.

    Raises ValueError unless two independent vectors are given.
    """
    at = as_point(point)
    if vectors.shape != (2, len(at.theta)):
        raise ValueError(f"a plane has 2 directions of length {len(at.theta)}, got {list(vectors.shape)}")
    axes = _gram_schmidt(vectors.to(at.theta.device).double(), "the two directions are one line")
    return Frame(at, axes, "directions", (at,))


def random_plane(space: Space, theta: PointLike, seed: int = 0, *, mask: Bool[Tensor, "D"] | None = None) -> Frame:
    """The plane at a point along two random filter-normalised directions (Li et al. 1712.09913, section 4).

    Each direction is normal, scaled in every filter of a weight with two axes or more to the norm of that filter
    of theta, and 0 in biases and the affine of BatchNorm. x and y are thus in units of the filters' norms; the axes
    are nearly orthogonal but are not made so. With ``mask`` the directions lie in its subspace.

    Raises ValueError for a theta or mask that does not fit the space, or where every filter is zero.
    """
    at = as_point(theta)
    keep = space.full_mask() if mask is None else mask.cpu()
    if len(at.theta) != space.dim or len(keep) != space.dim:
        got = f"{len(at.theta)} and a mask of {len(keep)}"
        raise ValueError(f"a space of dimension {space.dim} does not hold a theta of dimension {got}")
    axes = torch.stack([_filter_normalised(space, at.theta, keep, seed, i) for i in range(2)])
    _gram_schmidt(axes, "the filters leave no room for two directions")
    return Frame(at, axes, "filter-normalised", (at,))


@dataclass(frozen=True, eq=False)
class Plane:
    """Loss and error on a grid of a plane: arrays [ny, nx] at (``xs``, ``ys``).

    ``points`` gives the place of named points as (x, y, residual distance). ``policy`` is the rule of the buffers,
    ``evaluations`` the effort, ``reason`` says where losses are not finite or jump at ``seams`` of the statistics, and
    is empty otherwise.
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


def scan(
    field: Field,
    frame: Frame,
    xs: Sequence[float] | np.ndarray,
    ys: Sequence[float] | np.ndarray,
    *,
    points: Mapping[str, PointLike] | None = None,
) -> Plane:
    """Evaluate a field on the grid ``xs`` times ``ys`` of a plane, and place the named ``points`` on it.

    BatchNorm's statistics are recomputed at every point unless the frame names another rule for them.

    Raises TypeError where the field is stochastic, ValueError where a side of the grid does not ascend.
    """
    require_field(field, "a plane")
    x, y = ascending(xs, "xs"), ascending(ys, "ys")
    field = frame.seen_by(field)
    seen = field.evaluations(frame.point(float(u), float(v)) for v in y for u in x)
    loss, error = (np.array([getattr(e, of) for e in seen]).reshape(len(y), len(x)) for of in ("loss", "error"))
    seams = frame.seams(field, x, y)
    doubt, policy = doubts(loss, seams), policy_of(field, frame)
    return Plane(frame, x, y, loss, error, places(frame, points), policy, loss.size, doubt, seams)


def places(frame: Frame, points: Mapping[str, PointLike] | None) -> dict[str, tuple[float, float, float]]:
    """The place of named points on a frame: (x, y, residual)."""
    named = dict(points or {})
    seen = frame.project(list(named.values()))
    return {
        name: (float(x), float(y), float(r)) for name, x, y, r in zip(named, seen.x, seen.y, seen.residual, strict=True)
    }


def policy_of(field: Field, frame: Frame) -> str:
    """What the buffers on a plane are: the frame's rule where the field reads them, else the field's policy."""
    seen = frame.seen_by(field)
    return frame.buffers if seen.policy == "stored" else seen.policy


def doubts(loss: np.ndarray, seams: Sequence[Seam] = ()) -> str:
    """The reasons not to trust a plane: losses that are not finite, seams of the statistics."""
    bad = int((~np.isfinite(loss)).sum())
    found = [f"the loss is not finite at {bad} of {loss.size} points"] if bad else []
    if seams:
        lines = "a line" if len(seams) == 1 else f"{len(seams)} lines"
        found.append(
            f"BatchNorm's statistics are those of the nearest solution and change at {lines}, where the loss jumps by "
            f"up to {max(seam.jump for seam in seams):.3g}"
        )
    return "; ".join(found)


def ascending(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """The values of one side of a grid, at least two and strictly ascending."""
    out = np.asarray(values, dtype=float)
    if out.ndim != 1 or len(out) < 2 or not (np.diff(out) > 0).all():
        raise ValueError(f"{name} must be at least 2 ascending numbers, got {out.tolist()}")
    return out


def _differ(a: Point, b: Point) -> bool:
    """Whether two points have different statistics."""
    return any(bool((buffer != b.buffers[name]).any()) for name, buffer in a.buffers.items() if name in b.buffers)


def _bisector(
    places: np.ndarray, i: int, j: int, window: tuple[float, float, float, float], square: np.ndarray
) -> np.ndarray | None:
    """The ends, in coordinates of the frame, of the line in a window to whose points i and j are the nearest places.

    ``places`` are in an orthonormal frame, to which ``square`` turns coordinates.
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


def _gram_schmidt(rows: Tensor, refusal: str) -> Tensor:
    first, second = rows
    lengths = first.norm(), second.norm()
    if not (0 < float(lengths[0]) < float("inf") and 0 < float(lengths[1]) < float("inf")):
        raise ValueError(f"{refusal}: a direction has the length {float(min(lengths)):.3g}")
    x = first / lengths[0]
    rest = second - (second @ x) * x
    rest = rest - (rest @ x) * x
    sine = float(rest.norm() / lengths[1])
    if sine < LINE:
        raise ValueError(f"{refusal} (the sine of their angle is {sine:.1e}) and span no plane")
    return torch.stack([x, rest / rest.norm()])


def _filter_normalised(space: Space, theta: Tensor, keep: Tensor, seed: int, i: int) -> Tensor:
    drawn = torch.zeros(space.dim, dtype=torch.float64)
    drawn[keep] = torch.randn(int(keep.sum()), generator=generator(seed, "probe:plane", i), dtype=torch.float64)
    drawn, out = drawn.to(theta.device), torch.zeros_like(theta, dtype=torch.float64)
    for layer in space.layers:
        if len(layer.shape) > 1:
            d = layer.by_filter(drawn[layer.coordinates])
            w = layer.by_filter(theta[layer.coordinates].double())
            scale = w.norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True).clamp_min(1e-30)
            out[layer.coordinates] = layer.from_filters(d * scale)
    return out


def _spread(seen: np.ndarray, n: int, margin: float) -> np.ndarray:
    low, high = float(seen.min()), float(seen.max())
    room = margin * (high - low) if high > low else 1.0
    return np.linspace(low - room, high + room, n)
