"""The landscape along one direction at finite scale: profiles and widths.

A Hessian sees an infinitesimal neighbourhood; a width is measured at a height. Along a unit vector v of a quadratic
with curvature v^T H v they agree: the width at the rise r is sqrt(2 r / v^T H v) on either side of the minimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.display import Shown
from sublevel.field import Field, PointLike, require_field
from sublevel.rng import generator
from sublevel.space import Point, as_point


def random_direction(coordinates: Tensor, dim: int, *, seed: int = 0, draw: int = 0) -> Float[Tensor, "D"]:
    """A random unit vector of R^D, zero outside a set of coordinates and uniform on the sphere inside it.

    ``coordinates`` is a mask [D] or a list of indices, such as the sets of `sublevel.geometry.curvature.matched_sets`.
    Float64, on the CPU, drawn from (``seed``, "probe:direction", ``draw``).

    Raises ValueError for an empty set, or one that does not fit R^D.

    >>> v = random_direction(torch.tensor([True, False, True]), 3)
    >>> float(v[1]), round(float(v.norm()), 12)
    (0.0, 1.0)
    """
    index = coordinates.cpu()
    if index.dtype == torch.bool:
        if len(index) != dim:
            raise ValueError(f"a mask of length {len(index)} chooses no coordinates in dimension {dim}")
        index = index.nonzero().squeeze(1)
    if not len(index) or int(index.min()) < 0 or int(index.max()) >= dim:
        raise ValueError(f"a direction needs at least one coordinate in 0..{dim - 1}, got {len(index)}")
    v = torch.randn(len(index), generator=generator(seed, "probe:direction", draw), dtype=torch.float64)
    out = torch.zeros(dim, dtype=torch.float64)
    out[index] = v / v.norm()
    return out


@dataclass(frozen=True, eq=False, repr=False)
class Line(Shown):
    """Loss and error at the signed distances ``radii`` from a point along a unit vector: arrays [radii].

    ``rise`` is the loss minus that of the point itself. ``reason`` names losses that are not finite.
    """

    radii: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    rise: np.ndarray
    policy: str
    reason: str = ""

    def _facts(self) -> dict[str, object]:
        return {
            "": f"{len(self.radii)} distances from {self.radii.min():.4g} to {self.radii.max():.4g}",
            "largest rise": float(np.nanmax(self.rise)),
            "statistics:": self.policy if self.policy != "none" else "",
            "caution:": self.reason,
        }


def profile(field: Field, theta: PointLike, direction: Float[Tensor, "D"], radii: Sequence[float] | np.ndarray) -> Line:
    """The loss and error of ``theta + r direction / |direction|`` at the given radii, which may be negative.

    Buffers are those of ``theta``, unless the field recomputes them.

    Raises TypeError for a stochastic field, ValueError for a direction of zero or infinite length or another dimension,
    or no radii.

    >>> from sublevel.field import Quadratic
    >>> bowl = Quadratic(torch.tensor([2.0, 8.0], dtype=torch.float64))
    >>> x = torch.zeros(2, dtype=torch.float64)
    >>> profile(bowl, x, torch.tensor([0.0, 3.0], dtype=torch.float64), [-1.0, 0.0, 2.0]).rise.tolist()
    [4.0, 0.0, 16.0]
    """
    require_field(field, "a profile along a direction")
    r = np.asarray(radii, dtype=float)
    if r.ndim != 1 or not len(r) or not np.isfinite(r).all():
        raise ValueError(f"radii must be finite numbers, at least one, got {r.tolist()}")
    step = _stepper(theta, direction)
    seen = field.evaluations(step(float(radius)) for radius in r)
    loss = np.array([e.loss for e in seen])
    with np.errstate(invalid="ignore"):
        rise = loss - field.loss(theta)
    bad = int((~np.isfinite(loss)).sum())
    reason = f"the loss is not finite at {bad} of {len(r)} radii" if bad else ""
    return Line(r, loss, np.array([e.error for e in seen]), rise, field.policy, reason)


@dataclass(frozen=True, repr=False)
class Width(Shown):
    """The distances at which the loss has risen by ``rise``: ``left`` against the direction, ``right`` along it.

    A side is ``capped`` if the loss has not risen within the largest radius, which is then its value: the true width is
    larger. ``reason`` names other problems of a side.
    """

    left: float
    right: float
    left_capped: bool
    right_capped: bool
    rise: float
    evaluations: int
    reason: str = ""

    @property
    def total(self) -> float:
        """The sum of both sides, a lower bound if one is capped."""
        return self.left + self.right

    def _facts(self) -> dict[str, object]:
        sides = [("left", self.left, self.left_capped), ("right", self.right, self.right_capped)]
        shown = {name: f"{'at least ' if capped else ''}{value:.4g}" for name, value, capped in sides}
        return {**shown, "at a rise of": self.rise, "caution:": self.reason}


def width(
    field: Field,
    theta: PointLike,
    direction: Float[Tensor, "D"],
    rise: float,
    *,
    first: float = 0.1,
    largest: float = 1e3,
    tolerance: float = 1e-4,
) -> Width:
    """The distance on either side of ``theta`` at which the loss first lies ``rise`` above that of ``theta``.

    From the radius ``first`` the search halves until the loss has not risen, or doubles until it has, then bisects to
    the relative ``tolerance``. It can miss a wall between two of these radii.

    Raises TypeError for a stochastic field, ValueError for a rise, radius or tolerance that is not positive or a
    direction of zero length, FloatingPointError if the loss at theta is not finite.

    >>> from sublevel.field import Quadratic
    >>> bowl = Quadratic(torch.tensor([8.0], dtype=torch.float64))
    >>> w = width(bowl, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 1.0)
    >>> round(w.left, 3), round(w.right, 3), w.left_capped
    (0.5, 0.5, False)
    """
    require_field(field, "a width")
    if not rise > 0 or not 0 < first <= largest or not 0 < tolerance < 1:
        raise ValueError(
            "a width needs rise > 0, 0 < first <= largest and a tolerance in (0, 1), "
            f"got {rise}, {first}, {largest} and {tolerance}"
        )
    ground = field.loss(theta)
    if not isfinite(ground):
        raise FloatingPointError(f"the loss at the point is {ground}: a width needs a finite loss")
    step = _stepper(theta, direction)
    sides = [_Side(lambda r, sign=sign: field.loss(step(sign * r)) - ground, rise) for sign in (-1, 1)]
    found = [side.search(first, largest, tolerance) for side in sides]
    return Width(
        left=found[0][0],
        right=found[1][0],
        left_capped=found[0][1],
        right_capped=found[1][1],
        rise=rise,
        evaluations=1 + sum(side.evaluations for side in sides),
        reason="; ".join(f"{n}: {s.reason}" for n, s in zip(("left", "right"), sides, strict=True) if s.reason),
    )


class _Side:
    """The search on one side of a width, with its evaluations and its reason."""

    def __init__(self, over: Callable[[float], float], rise: float) -> None:
        self.over, self.rise = over, rise
        self.evaluations, self.reason = 0, ""

    def risen(self, radius: float) -> bool:
        self.evaluations += 1
        height = self.over(radius)
        if not isfinite(height) and not self.reason:
            self.reason = f"the loss is {height} at the radius {radius:.3g}"
        return isnan(height) or height >= self.rise

    def search(self, first: float, largest: float, tolerance: float) -> tuple[float, bool]:
        """(radius, capped)."""
        inside, outside = self._bracket(first, largest)
        if outside is None:
            return largest, True
        while outside - inside > tolerance * outside:
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if self.risen(middle) else (middle, outside)
        return (inside + outside) / 2, False

    def _bracket(self, first: float, largest: float) -> tuple[float, float | None]:
        """A radius at which the loss has not risen and one at which it has (None: not within the largest)."""
        radius = first
        if self.risen(radius):
            while radius > first * 2.0**-60:
                if not self.risen(radius / 2):
                    return radius / 2, radius
                radius /= 2
            self.reason = self.reason or f"the loss has risen at the radius {radius:.1e} already"
            return radius, radius
        while radius < largest:
            further = min(2 * radius, largest)
            if self.risen(further):
                return radius, further
            radius = further
        return radius, None


def _stepper(theta: PointLike, direction: Tensor) -> Callable[[float], Point]:
    point = as_point(theta)
    if direction.shape != point.theta.shape:
        raise ValueError(f"a direction of shape {list(direction.shape)} does not fit theta {list(point.theta.shape)}")
    v = direction.to(point.theta.device).double()
    length = float(v.norm())
    if not 0 < length < float("inf"):
        raise ValueError(f"a direction must have a finite length above 0, got {length}")
    base, unit = point.theta.double(), v / length
    return lambda radius: Point((base + radius * unit).to(point.theta.dtype), point.buffers)
