"""Two-dimensional slices of the landscape: through three points, or along random or Hessian directions.

A `Frame` is a plane in R^D with the rule that gives its points their buffers. What lies on no plane (a trajectory, a
fourth solution) is projected onto it, and the distance that the picture does not show is always given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import unknown
from sublevel.field import At, Field, require_field
from sublevel.rng import generator
from sublevel.space import Point, Space, as_point

RULES = ("nearest", "first")
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

    ``kind`` says how the axes came about. The buffers of a point of the plane are, by the rule ``buffers``, those of
    the ``nearest`` of the ``anchors`` (a piecewise constant choice, with a jump half-way between two of them) or of
    the ``first``; a field that recomputes statistics does not read them.
    """

    origin: Point
    axes: Float[Tensor, "2 D"]
    kind: str
    anchors: tuple[Point, ...]
    buffers: str = "first"

    def point(self, x: float, y: float) -> Point:
        """The point of the plane, with its buffers."""
        theta = self.origin.theta.double() + x * self.axes[0] + y * self.axes[1]
        return Point(theta.to(self.origin.theta.dtype), self._anchor(x, y).buffers)

    def project(self, points: Sequence[At]) -> Projection:
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

    def _coordinates(self, theta: Tensor) -> tuple[float, float, float]:
        if len(theta) != self.axes.shape[1]:
            raise ValueError(f"a point of dimension {len(theta)} has no place beside a plane in {self.axes.shape[1]}")
        d = theta.to(self.axes) - self.origin.theta.double()
        place = torch.linalg.solve(self.axes @ self.axes.T, self.axes @ d)
        return float(place[0]), float(place[1]), float((d - place @ self.axes).norm())

    def _anchor(self, x: float, y: float) -> Point:
        if self.buffers == "first" or len(self.anchors) == 1:
            return self.anchors[0]
        seen = self.project(self.anchors)
        away = torch.tensor(np.stack([x - seen.x, y - seen.y]), dtype=torch.float64).to(self.axes)
        return self.anchors[int((away.T @ self.axes).norm(dim=1).argmin())]


def plane_through(a: At, b: At, c: At, *, buffers: str = "nearest") -> Frame:
    """The plane through three points, in an orthonormal frame by Gram-Schmidt: a at (0, 0), b at (|b - a|, 0).

    Raises ValueError where the points lie on a line or have different dimensions, ConfigError for a rule of buffers
    that is none.

    >>> frame = plane_through(torch.zeros(3), torch.tensor([3.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0]))
    >>> seen = frame.project([torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 5.0])])
    >>> seen.x.tolist(), seen.y.tolist(), seen.residual.tolist()
    ([1.0, 0.0], [2.0, 1.0], [0.0, 5.0])
    """
    if buffers not in RULES:
        raise unknown("buffers of a plane", buffers, RULES)
    anchors = as_point(a), as_point(b), as_point(c)
    sizes = [len(p.theta) for p in anchors]
    if len(set(sizes)) > 1:
        raise ValueError(f"no plane goes through points of dimensions {', '.join(map(str, sizes))}")
    origin = anchors[0].theta.double()
    spread = torch.stack([p.theta.double() - origin for p in anchors[1:]])
    return Frame(anchors[0], _gram_schmidt(spread, "the three points lie on one line"), "points", anchors, buffers)


def eigen_plane(point: At, vectors: Float[Tensor, "k D"]) -> Frame:
    """The plane at a point along two directions, two eigenvectors of the Hessian say, made orthonormal.

    Raises ValueError unless two independent vectors are given.
    """
    at = as_point(point)
    if vectors.shape != (2, len(at.theta)):
        raise ValueError(f"a plane has 2 directions of length {len(at.theta)}, got {list(vectors.shape)}")
    axes = _gram_schmidt(vectors.to(at.theta.device).double(), "the two directions are one line")
    return Frame(at, axes, "directions", (at,))


def random_plane(space: Space, theta: At, seed: int = 0, *, mask: Bool[Tensor, "D"] | None = None) -> Frame:
    """The plane at a point along two random filter-normalised directions (Li et al. 1712.09913, section 4).

    Each direction is normal, scaled in every filter (row of a weight with two axes or more) to the norm of that filter
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
    ``evaluations`` the effort, ``reason`` says where losses are not finite and is empty otherwise.
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


def scan(
    field: Field,
    frame: Frame,
    xs: Sequence[float] | np.ndarray,
    ys: Sequence[float] | np.ndarray,
    *,
    points: Mapping[str, At] | None = None,
) -> Plane:
    """Evaluate a field on the grid ``xs`` times ``ys`` of a plane, and place the named ``points`` on it.

    Raises TypeError where the field is stochastic, ValueError where a side of the grid does not ascend.
    """
    require_field(field, "a plane")
    x, y = ascending(xs, "xs"), ascending(ys, "ys")
    seen = field.evaluations(frame.point(float(u), float(v)) for v in y for u in x)
    loss, error = (np.array([getattr(e, of) for e in seen]).reshape(len(y), len(x)) for of in ("loss", "error"))
    return Plane(frame, x, y, loss, error, places(frame, points), policy_of(field, frame), loss.size, not_finite(loss))


def places(frame: Frame, points: Mapping[str, At] | None) -> dict[str, tuple[float, float, float]]:
    """The place of named points on a frame: (x, y, residual)."""
    named = dict(points or {})
    seen = frame.project(list(named.values()))
    return {
        name: (float(x), float(y), float(r)) for name, x, y, r in zip(named, seen.x, seen.y, seen.residual, strict=True)
    }


def policy_of(field: Field, frame: Frame) -> str:
    """What the buffers on a plane are: the frame's rule where the field reads them, else the field's policy."""
    return frame.buffers if field.policy == "stored" else field.policy


def not_finite(loss: np.ndarray) -> str:
    """The reason that losses give not to trust a plane."""
    bad = int((~np.isfinite(loss)).sum())
    return f"the loss is not finite at {bad} of {loss.size} points" if bad else ""


def ascending(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """The values of one side of a grid, at least two and strictly ascending."""
    out = np.asarray(values, dtype=float)
    if out.ndim != 1 or len(out) < 2 or not (np.diff(out) > 0).all():
        raise ValueError(f"{name} must be at least 2 ascending numbers, got {out.tolist()}")
    return out


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
            d = drawn[layer.coordinates].view(layer.shape[0], -1)
            w = theta[layer.coordinates].double().view(layer.shape[0], -1)
            scale = w.norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True).clamp_min(1e-30)
            out[layer.coordinates] = (d * scale).reshape(-1)
    return out


def _spread(seen: np.ndarray, n: int, margin: float) -> np.ndarray:
    low, high = float(seen.min()), float(seen.max())
    room = margin * (high - low) if high > low else 1.0
    return np.linspace(low - room, high + room, n)
