"""Planes through weight space: through three points, or along random or Hessian directions.

A `Frame` is a plane in R^D with a rule for the buffers of its points. Points outside the plane (a trajectory, a fourth
solution) are projected onto it, and their distance from it is always given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, PointLike
from sublevel.geometry.planes.seams import Seam, bisector, differ
from sublevel.rng import generator
from sublevel.space import Point, Space, as_point

RULES = ("recomputed", "nearest", "first")
ALONG = 9
"""Points of a seam at which the jump of the loss is evaluated."""
LINE = 1e-6
"""Two directions with a smaller sine of their angle lie on one line."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates ``x`` [n] and ``y`` [n] of points on a plane, and their ``residual`` [n] distances from it."""

    x: np.ndarray
    y: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True, eq=False)
class Frame:
    """The plane origin + x axes[0] + y axes[1] in R^D; ``axes`` [2, D] in float64.

    ``kind`` says how the axes were made. ``buffers`` is the rule for BatchNorm's statistics at a point of the plane:
    ``recomputed`` there (see `Field.recomputed`), or, for a field with stored statistics, those of the ``nearest`` of
    the ``anchors`` or of the ``first``. The nearest anchor is a piecewise constant choice: the loss jumps at the
    `seams` half-way between two anchors. Any other buffer is that of the nearest anchor.
    """

    origin: Point
    axes: Float[Tensor, "2 D"]
    kind: str
    anchors: tuple[Point, ...]
    buffers: str = "recomputed"

    def __post_init__(self) -> None:
        if self.buffers not in RULES:
            raise unknown("buffers of a plane", self.buffers, RULES)

    @property
    def words(self) -> str:
        """How the axes were made, for a reader."""
        of = {"points": "through three points", "directions": "along two directions"}
        return of.get(self.kind, f"along two {self.kind} directions")

    def seen_by(self, field: Field) -> Field:
        """The field with the frame's rule for statistics."""
        return field.recomputed() if self.buffers == "recomputed" else field

    def point(self, x: float, y: float) -> Point:
        """The point of the plane, with its buffers."""
        theta = self.origin.theta.double() + x * self.axes[0] + y * self.axes[1]
        first = self.buffers == "first" or len(self.anchors) == 1
        anchor = self.anchors[0 if first else self.nearest(x, y)]
        return Point(theta.to(self.origin.theta.dtype), anchor.buffers)

    def project(self, points: Sequence[PointLike]) -> Projection:
        """Project points (such as the checkpoints of a trajectory) onto the plane by least squares.

        Raises ValueError for a point of another dimension.
        """
        found = [self._coordinates(as_point(at).theta) for at in points]
        x, y, residual = np.array(found, dtype=float).reshape(-1, 3).T
        return Projection(x, y, residual)

    def window(self, n: int = 21, margin: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
        """``n`` values of x and of y that cover the anchors with a margin; [-1, 1] around a single anchor."""
        if n < 2:
            raise ValueError(f"a grid needs at least 2 values per side, got {n}")
        seen = self.project(self.anchors)
        return _spread(seen.x, n, margin), _spread(seen.y, n, margin)

    def seams(self, field: Field, xs: np.ndarray, ys: np.ndarray) -> tuple[Seam, ...]:
        """The lines in the window at which the statistics change between anchors, and the jump of the loss there.

        Empty unless the rule is ``nearest``, the field reads stored statistics, and those of two anchors differ.
        """
        if self.buffers != "nearest" or self.seen_by(field).policy != "stored":
            return ()
        found = []
        for i, j in combinations(range(len(self.anchors)), 2):
            ends = bisector(self._places, i, j, (xs[0], xs[-1], ys[0], ys[-1]), self._square)
            if ends is not None and differ(self.anchors[i], self.anchors[j]):
                x0, y0, x1, y1 = map(float, ends.reshape(-1))
                found.append(Seam(x0, y0, x1, y1, self._jump(field, ends, i, j)))
        return tuple(found)

    def _jump(self, field: Field, ends: np.ndarray, i: int, j: int) -> float:
        """The largest difference of the loss along a seam between the statistics of two anchors."""
        places = [ends[0] + share * (ends[1] - ends[0]) for share in np.linspace(0, 1, ALONG)]
        thetas = [self.point(float(x), float(y)).theta for x, y in places]
        sides = [field.evaluations(Point(theta, self.anchors[k].buffers) for theta in thetas) for k in (i, j)]
        return max(abs(a.loss - b.loss) for a, b in zip(*sides, strict=True))

    def _coordinates(self, theta: Tensor) -> tuple[float, float, float]:
        if len(theta) != self.axes.shape[1]:
            raise ValueError(
                f"a point of dimension {len(theta)} does not fit a plane in dimension {self.axes.shape[1]}"
            )
        d = theta.to(self.axes) - self.origin.theta.double()
        place = torch.linalg.solve(self.axes @ self.axes.T, self.axes @ d)
        return float(place[0]), float(place[1]), float((d - place @ self.axes).norm())

    def nearest(self, x: float, y: float) -> int:
        """The index of the anchor nearest to a point of the plane; of equally near ones the first."""
        away = np.array([x, y]) @ self._square - self._places
        return int((away**2).sum(axis=1).argmin())

    @cached_property
    def _square(self) -> np.ndarray:
        """A matrix that maps coordinates to those of an orthonormal frame, in which distances are Euclidean."""
        return np.linalg.cholesky((self.axes @ self.axes.T).cpu().numpy())

    @cached_property
    def _places(self) -> np.ndarray:
        """The anchors in the orthonormal frame [anchors, 2]."""
        seen = self.project(self.anchors)
        return np.stack([seen.x, seen.y], axis=1) @ self._square


def plane_through(a: PointLike, b: PointLike, c: PointLike, *, buffers: str = "recomputed") -> Frame:
    """The plane through three points, in an orthonormal frame by Gram-Schmidt: a at (0, 0), b at (|b - a|, 0).

    ``buffers`` is the rule for BatchNorm's statistics on the plane (see `Frame`).

    Raises ValueError for points on a line or of different dimensions, ConfigError for an unknown rule of buffers.

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
    """The plane at a point along two orthonormalised directions, such as two eigenvectors of the Hessian.

    Raises ValueError unless two independent vectors are given.
    """
    at = as_point(point)
    if vectors.shape != (2, len(at.theta)):
        raise ValueError(f"a plane has 2 directions of length {len(at.theta)}, got {list(vectors.shape)}")
    axes = _gram_schmidt(vectors.to(at.theta.device).double(), "the two directions are one line")
    return Frame(at, axes, "directions", (at,))


def random_plane(space: Space, theta: PointLike, seed: int = 0, *, mask: Bool[Tensor, "D"] | None = None) -> Frame:
    """The plane at a point along two random filter-normalised directions (Li et al. 1712.09913, section 4).

    Each direction is drawn from a normal distribution, scaled in every filter of a weight with two axes or more to the
    norm of that filter of theta, and 0 in biases and the affine of BatchNorm. x and y are thus in units of the norms of
    the filters; the axes are only nearly orthogonal. With ``mask`` the directions lie in its subspace.

    Raises ValueError for a theta or mask that does not fit the space, or if every filter is zero.
    """
    at = as_point(theta)
    keep = space.full_mask() if mask is None else mask.cpu()
    if len(at.theta) != space.dim or len(keep) != space.dim:
        got = f"{len(at.theta)} and a mask of {len(keep)}"
        raise ValueError(f"a space of dimension {space.dim} does not hold a theta of dimension {got}")
    axes = torch.stack([_filter_normalised(space, at.theta, keep, seed, i) for i in range(2)])
    _gram_schmidt(axes, "the filters leave no room for two directions")
    return Frame(at, axes, "filter-normalised", (at,))


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
