"""Volumes by rays: the distance from theta in random directions at which the loss has risen by eps.

In polar coordinates the star-shaped part of the basin has the volume omega_n E_u[r(u)^n], with u uniform on the unit
sphere and r(u) the first exit (Huang et al. 1906.03291). Rays P u, with a linear map P of determinant 1 and r in units
of u, have the same mean (Scherlis and Belrose 2501.18812). In n dimensions r^n is a weight of enormous range. So all
weights are logarithms, r is found to 0.01 / n, and the effective sample size flags a mean that few rays dominate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, log, nan, sqrt
from typing import Any

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, subspace_operator
from sublevel.geometry.estimate import join_reasons
from sublevel.geometry.volume.estimators import (
    Option,
    Volume,
    VolumeAtHeight,
    ball_radius,
    check_positive,
    estimator,
    log_unit_ball,
)
from sublevel.geometry.volume.preconditioners import (
    CurvatureSource,
    Preconditioner,
    identity,
    preconditioner_of,
    steepest_span,
)
from sublevel.geometry.volume.ray_exits import Exit, first_exit
from sublevel.rng import generator
from sublevel.space import Point, as_point

TIGHT = 0.01
"""Tolerance of n log r, in nats: the bracket of an exit has the relative width TIGHT / n."""

AMPLE = 50
"""A mean of weights with a smaller effective sample size is flagged."""

HOPELESS = 5.0
"""Largest spread of n log r, in nats, at which a number of rays could suffice: e^(5^2) of them."""


def _cost(options: Mapping[str, Any], heights: int) -> float:
    """A search along each ray at each height, and the products of a preconditioner."""
    return heights * options["samples"] * (6 + 4 * log(max(heights, 2))) / 3 + 3 * 60


RAYS = {"radius": Option(100.0), "rays": Option(64, least=2, argument="samples")}
"""Options of rays in a study."""


@estimator("radial", options=RAYS, cost=_cost)
def radial(
    field: Field,
    theta: PointLike,
    *,
    radius: float,
    mask: Bool[Tensor, "D"] | None = None,
    samples: int = 1000,
    failure: float = 0.05,
    growth: float = 1.25,
    seed: int = 0,
) -> VolumeAtHeight:
    """``V = omega_n E_u[r(u)^n]`` over ``samples`` uniform directions, within the ball of ``radius`` around theta.

    The measure needs a radius: rescaling a ReLU or normalised network makes the Lebesgue volume of its basin infinite.
    ``capped`` is the share of rays that end at the ball; ``log_share`` is log V minus the log-volume of the ball, the
    share of the ball that the basin fills. Anisotropy makes the mean collapse: a few directions carry it, a thousand
    rays miss them, and log V is too low by tens to hundreds of nats. It is then flagged, and remains a lower bound: by
    Markov's inequality log V >= estimate - log(1/d) with probability 1 - d for d = ``failure``, for any distribution
    (``lower_bound``).

    An exit is searched outwards in steps of the factor ``growth``, then refined to 0.01 / n. The search can jump a
    barrier that is narrower than a step.

    Raises ValueError for a radius or counts that are not positive, a growth not above 1, a failure outside (0, 1).
    """
    require_field(field, "radial")
    search = RaySearch(radius, samples, failure, growth, seed)
    return Rays.around(field, theta, mask, search, lambda of: identity(of.dimension)).volume


@estimator(
    "importance",
    options={**RAYS, "k": Option(10, least=1)},
    fixed={"span": True},  # rays in thousands of dimensions have no mean that could be estimated
    derived=lambda options, n, examples: {"k": min(options["k"], n)},
    cost=_cost,
)
def importance(
    field: Field,
    theta: PointLike,
    *,
    radius: float,
    mask: Bool[Tensor, "D"] | None = None,
    preconditioner: str | Tensor | Preconditioner = "low-rank",
    operator: str = "hessian",
    k: int = 20,
    probes: int = 20,
    floor: float = 1e-3,
    span: bool = False,
    samples: int = 100,
    failure: float = 0.05,
    growth: float = 1.25,
    seed: int = 0,
) -> VolumeAtHeight:
    """``V = omega_n E_u[r(u)^n]`` along P u, r in units of u and det P = 1: the volume of `radial`, with less variance.

    With P proportional to H^(-1/2) all rays of a quadratic have one length, and a single ray gives the volume.
    ``preconditioner`` is ``low-rank`` (the ``k`` steepest eigenvectors, one scale for the rest), ``diagonal`` (from
    ``probes`` products), ``identity``, a tensor [n] or [n, n] over the subspace, or a `Preconditioner`. Curvature below
    ``floor`` times the largest is raised to it. The ball of ``radius`` lies in R^D, as in `radial`, not in units of u.

    In n dimensions log r must not vary by more than about 1/n. The loss of a network is not quadratic at a finite
    height, and no preconditioner achieves this in more than some tens of dimensions. With ``span`` the rays lie in the
    span of the ``k`` steepest eigenvectors, with P from their eigenvalues. They give the k-dimensional slice of the
    basin (n = k) by the loss itself, to compare with the ellipsoid of `top_k` in the same span.

    The interval ``log_volume`` +- t(samples - 1) ``se`` covers at its level (see `mean_weight`).

    Raises the errors of `radial` and of the preconditioner.
    """
    require_field(field, "importance")
    check_counts(probes=probes, k=k)
    search = RaySearch(radius, samples, failure, growth, seed)
    source = CurvatureSource(field, theta, mask, operator, probes, k, floor, seed)
    if span:
        frame, along = steepest_span(source)
        return replace(Rays.around(field, theta, None, search, lambda of: along), frame=frame).volume
    return Rays.around(field, theta, mask, search, lambda of: preconditioner_of(preconditioner, source)).volume


@dataclass(frozen=True)
class RaySearch:
    """The number of rays, their radius, and the step of the search along them.

    Raises ValueError for a radius or counts that are not positive, a growth not above 1, a failure outside (0, 1).
    """

    radius: float
    samples: int
    failure: float
    growth: float
    seed: int

    def __post_init__(self) -> None:
        check_positive(radius=self.radius)
        check_counts(samples=self.samples)
        if not 0 < self.failure < 1:
            raise ValueError(f"failure is a probability between 0 and 1, got {self.failure}")
        if not (isfinite(self.growth) and self.growth > 1):
            raise ValueError(f"growth is the factor between steps along a ray and must be above 1, got {self.growth}")


@dataclass(frozen=True, eq=False)
class Rays:
    """Directions from a point, the same for every eps; in the span of the rows of ``frame`` if given."""

    field: Field
    point: Point
    of: Operator
    precondition: Preconditioner
    base: float
    search: RaySearch
    frame: Float[Tensor, "k D"] | None = None

    @property
    def dimension(self) -> int:
        """The dimension of the space of the rays."""
        return self.of.dimension if self.frame is None else len(self.frame)

    @classmethod
    def around(
        cls,
        field: Field,
        theta: PointLike,
        mask: Bool[Tensor, "D"] | None,
        search: RaySearch,
        make: Callable[[Operator], Preconditioner],
    ) -> Rays:
        """The rays of a subspace.

        Raises FloatingPointError if the loss at theta is not finite.
        """
        point = as_point(theta)
        of = subspace_operator(lambda v: v, point.theta, mask, "set of rays")
        base = field.loss(point)
        if not isfinite(base):
            raise FloatingPointError(f"the loss at theta is {base}: a basin needs a finite minimum")
        return cls(field, point, of, make(of), base, search)

    def volume(self, eps: float) -> Volume:
        """The volume at one height, from the mean over the rays."""
        return self.volume_of(self.exits(eps), eps)

    def volume_of(self, exits: Sequence[Exit], eps: float) -> Volume:
        """The volume at one height, from the exits of the rays there."""
        n = self.dimension
        found = mean_weight(n * np.array([e.log_radius for e in exits]))
        log_v = log_unit_ball(n) + found.log_mean
        capped = sum(e.capped for e in exits) / len(exits)
        hopeless = f"n log r varies by {found.spread:.3g} nats, too much for any number of rays: a lower bound"
        reason = join_reasons(
            {
                f"effective sample size {found.ess:.3g} of {len(exits)} rays is below {AMPLE}": found.ess < AMPLE,
                hopeless: found.spread > HOPELESS,
                f"{capped:.2%} of the rays reach the radius {self.search.radius:g}": capped > 0,
            }
        )
        return Volume(log_v, ball_radius(log_v, n), n, eps, found.se, reason, self._about(log_v, found, exits, capped))

    def exits(self, eps: float) -> list[Exit]:
        """The first exit of every ray."""
        found: list[Exit] = []
        guess = inf
        for i in range(self.search.samples):
            found.append(self._exit(i, eps, guess))
            guess = exp(found[-1].log_radius)
        return found

    def _exit(self, i: int, eps: float, guess: float) -> Exit:
        v = self._direction(i)
        cap = self.search.radius / float(v.double().norm())

        def rise(t: float) -> float:
            return (self.field.loss(Point(self.point.theta + t * v, self.point.buffers)) - self.base) / eps

        return first_exit(rise, cap=cap, guess=guess, growth=self.search.growth, tolerance=TIGHT / self.dimension)

    def _direction(self, i: int) -> Float[Tensor, "D"]:
        if self.frame is None:
            u = self.of.draw(self.search.seed, i, stream="probe:ray")
            return self.of.embed(self.precondition(u / float(u.double().norm())))
        rng = generator(self.search.seed, "probe:ray", i)
        u = torch.randn(len(self.frame), generator=rng, dtype=torch.float64).to(self.frame)
        return self.precondition(u / float(u.double().norm())) @ self.frame

    def _about(self, log_v: float, found: MeanWeight, exits: Sequence[Exit], capped: float) -> dict[str, object]:
        n, search = self.dimension, self.search
        within = "" if self.frame is None else f", in the span of the {n} steepest eigenvectors"
        return {
            "measure": f"Lebesgue{within}, within the ball of radius {search.radius:g} around theta",
            "assumes": f"the basin is star-shaped; exits are searched in steps of the factor {search.growth:g}",
            "preconditioner": self.precondition.name,
            "clipped": self.precondition.clipped,
            "products": self.precondition.products,
            "log_share": log_v - log_unit_ball(n) - n * log(search.radius),
            "samples": search.samples,
            "ess": found.ess,
            "spread": found.spread,
            "delta_se": found.delta_se,
            "capped": capped,
            "failure": search.failure,
            "lower_bound": log_v - log(1 / search.failure),
            "tolerance": TIGHT,
            "evaluations": sum(e.evaluations for e in exits) + 1,
        }


@dataclass(frozen=True)
class MeanWeight:
    """The logarithm of a mean of weights, its standard errors in nats, and the effective sample size.

    ``spread`` is the deviation of the log-weights above their median, in nats.
    """

    log_mean: float
    se: float
    delta_se: float
    ess: float
    spread: float


def mean_weight(log_weights: np.ndarray) -> MeanWeight:
    """``log mean exp(l)`` with a standard error that also covers for heavy tails.

    The error of the delta method, the relative deviation of the weights over sqrt(m), depends on a tail that the sample
    lacks. For log-normal weights with the log-variance 4, its "95%" interval of a thousand draws misses the truth 12
    times in 100, that of a hundred draws 20 times. The spread s of the log-weights above their median does not depend
    on the tail. A log-normal law with that spread has the error sqrt((e^(s^2) - 1) / m), or s^2 / 2 if that is smaller
    (the distance of its mean from its median), and the effective sample size m e^(-s^2). ``se`` is the larger of the
    two errors, ``ess`` the smaller of this size and (sum w)^2 / sum w^2. With m - 1 degrees of freedom the interval
    then covers at its level in those cases, and more often for thinner tails. Rays below the median hardly count.

    >>> mean_weight(np.zeros(4))
    MeanWeight(log_mean=0.0, se=0.0, delta_se=0.0, ess=4.0, spread=0.0)
    """
    m = len(log_weights)
    highest = log_weights.max()
    w = np.exp(log_weights - highest)
    log_mean = float(highest + np.log(w.mean()))
    ess = float(w.sum() ** 2 / (w**2).sum())
    if m < 2:
        return MeanWeight(log_mean, nan, nan, ess, nan)
    delta = float(w.std(ddof=1) / w.mean()) / sqrt(m)
    above = log_weights - np.quantile(log_weights, 0.5, method="higher")
    spread = float((above[above > 0] ** 2).sum()) / (m / 2)
    log_normal = min(sqrt(np.expm1(min(spread, 700.0)) / m), spread / 2)
    return MeanWeight(log_mean, max(delta, log_normal), delta, min(ess, m * exp(-spread)), sqrt(spread))
