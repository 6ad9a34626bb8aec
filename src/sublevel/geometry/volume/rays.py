"""Volumes by rays: how far one comes from theta in a direction before the loss has risen by eps.

In polar coordinates the star-shaped part of the basin has the volume omega_n E_u[r(u)^n], for u uniform on the unit
sphere and r(u) the first exit (Huang et al. 1906.03291); with a linear map of determinant 1, rays P u and r in units of
u, it has the same (Scherlis and Belrose 2501.18812). In n dimensions r^n is a weight of enormous range: everything is
in logarithms, r is found to 0.01 / n, and the effective sample size decides whether the mean is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, log, nan, sqrt

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, subspace_operator
from sublevel.geometry.volume.estimators import (
    Volume,
    VolumeAtHeight,
    ball_radius,
    because,
    estimator,
    log_unit_ball,
    positive,
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
"""How far n log r may be off, in nats: the exit lies in a bracket of the relative width TIGHT / n."""

AMPLE = 50
"""The effective sample size below which a mean of weights is flagged."""

HOPELESS = 5.0
"""The spread of n log r in nats from which no number of rays would do: e^(5^2) of them."""


@estimator("radial")
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

    The measure is stated and not free: the loss of a ReLU or a normalised network can be rescaled, so the Lebesgue
    volume of its basin is infinite. The share of rays that end at the ball is reported; ``log_share`` is log V less the
    ball's own, the share of the ball that the basin fills. With anisotropy the mean collapses: a few directions carry
    everything, none of a thousand is among them, and log V is too low by tens to hundreds of nats. It is then flagged,
    and remains a lower bound: by Markov's inequality log V >= estimate - log(1/d) with probability 1 - d, for d =
    ``failure``, whatever the distribution (``lower_bound``).

    Exits are found by going out in steps of ``growth``, then to 0.01 / n: a barrier narrower than a step is jumped.

    Raises ValueError for a radius or counts that are not positive, a growth not above 1, a failure outside (0, 1).
    """
    require_field(field, "radial")
    search = Search(radius, samples, failure, growth, seed)
    return Rays.around(field, theta, mask, search, lambda of: identity(of.dimension)).volume


@estimator("importance")
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

    For P proportional to H^(-1/2) every ray of a quadratic has one length, and a single one gives the volume.
    ``preconditioner``: ``low-rank`` (the ``k`` steepest eigenvectors, one scale for the rest), ``diagonal`` (from
    ``probes`` products), ``identity``, a tensor [n] or [n, n] over the subspace, or a `Preconditioner`. Curvature below
    ``floor`` times the largest is raised to it. The ball of ``radius`` is that of `radial`, in R^D and not in units of
    u.

    In n dimensions log r must not vary by more than about 1/n. No preconditioner does that for a network, whose loss is
    no quadratic at a finite height, in more than some tens of dimensions. With ``span`` the rays lie in the span of the
    ``k`` steepest eigenvectors, with P from their eigenvalues: the basin's k-dimensional slice, n = k, by the loss
    itself, beside the ellipsoid that `top_k` makes of the same span.

    ``log_volume`` +- t(samples - 1) ``se`` covers the truth at its level: see `weigh` for the standard error.

    Raises what `radial` raises, and what the preconditioner does.
    """
    require_field(field, "importance")
    check_counts(probes=probes, k=k)
    search = Search(radius, samples, failure, growth, seed)
    source = CurvatureSource(field, theta, mask, operator, probes, k, floor, seed)
    if span:
        frame, along = steepest_span(source)
        return replace(Rays.around(field, theta, None, search, lambda of: along), frame=frame).volume
    return Rays.around(field, theta, mask, search, lambda of: preconditioner_of(preconditioner, source)).volume


@dataclass(frozen=True)
class Search:
    """How many rays, how far, and how finely.

    Raises ValueError for a radius or counts that are not positive, a growth not above 1, a failure outside (0, 1).
    """

    radius: float
    samples: int
    failure: float
    growth: float
    seed: int

    def __post_init__(self) -> None:
        positive(radius=self.radius)
        check_counts(samples=self.samples)
        if not 0 < self.failure < 1:
            raise ValueError(f"failure is a probability between 0 and 1, got {self.failure}")
        if not (isfinite(self.growth) and self.growth > 1):
            raise ValueError(
                f"growth is the factor between the points of a search outwards, above 1, got {self.growth}"
            )


@dataclass(frozen=True, eq=False)
class Rays:
    """Directions from a point, the same for every eps; in the span of the rows of ``frame`` where there are any."""

    field: Field
    point: Point
    of: Operator
    precondition: Preconditioner
    base: float
    search: Search
    frame: Float[Tensor, "k D"] | None = None

    @property
    def dimension(self) -> int:
        """Of the space that the rays fill."""
        return self.of.dimension if self.frame is None else len(self.frame)

    @classmethod
    def around(
        cls,
        field: Field,
        theta: PointLike,
        mask: Bool[Tensor, "D"] | None,
        search: Search,
        make: Callable[[Operator], Preconditioner],
    ) -> Rays:
        """The rays of a subspace.

        Raises FloatingPointError where the loss at theta is not finite.
        """
        point = as_point(theta)
        of = subspace_operator(lambda v: v, point.theta, mask, "set of rays")
        base = field.loss(point)
        if not isfinite(base):
            raise FloatingPointError(f"the loss at theta is {base}: a basin has a bottom")
        return cls(field, point, of, make(of), base, search)

    def volume(self, eps: float) -> Volume:
        """The mean over the rays at one height."""
        exits = self.exits(eps)
        n = self.dimension
        found = weigh(n * np.array([e.log_radius for e in exits]))
        log_v = log_unit_ball(n) + found.log_mean
        capped = sum(e.capped for e in exits) / len(exits)
        hopeless = f"n log r varies by {found.spread:.3g} nats, no number of rays has its mean: a lower bound"
        reason = because(
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

    def _about(self, log_v: float, found: Weighed, exits: list[Exit], capped: float) -> dict[str, object]:
        n, search = self.dimension, self.search
        within = "" if self.frame is None else f", in the span of the {n} steepest eigenvectors"
        return {
            "measure": f"Lebesgue{within}, within the ball of radius {search.radius:g} around theta",
            "assumes": f"the basin is what rays reach, to their first exit among steps of a factor {search.growth:g}",
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
class Weighed:
    """The logarithm of a mean of weights, its standard errors in nats, and the effective sample size.

    ``spread``: the deviation of the weights' logarithms above their median, in nats.
    """

    log_mean: float
    se: float
    delta_se: float
    ess: float
    spread: float


def weigh(log_weights: np.ndarray) -> Weighed:
    """``log mean exp(l)`` with an honest error.

    The delta method's error, the weights' relative deviation over sqrt(m), comes from the very tail that a sample
    lacks: of log-normal weights with the log-variance 4 a thousand draws miss the truth 12 times in 100 at "95%", a
    hundred draws 20 times. The logarithms' spread above their median is seen by every draw. A log-normal law of that
    spread s^2 has the error sqrt((e^(s^2) - 1) / m), or s^2 / 2 where that is less (how far its mean lies above its
    median), and the effective sample size m e^(-s^2). ``se`` is the larger of the two errors, ``ess`` the smaller of
    this size and (sum w)^2 / sum w^2. With m - 1 degrees of freedom the interval then covers at its level in those
    cases too; of weights with a thinner tail it covers more than that. Short rays, below the median, weigh nothing.

    >>> weigh(np.zeros(4))
    Weighed(log_mean=0.0, se=0.0, delta_se=0.0, ess=4.0, spread=0.0)
    """
    m = len(log_weights)
    highest = log_weights.max()
    w = np.exp(log_weights - highest)
    log_mean = float(highest + np.log(w.mean()))
    ess = float(w.sum() ** 2 / (w**2).sum())
    if m < 2:
        return Weighed(log_mean, nan, nan, ess, nan)
    delta = float(w.std(ddof=1) / w.mean()) / sqrt(m)
    above = log_weights - np.quantile(log_weights, 0.5, method="higher")
    spread = float((above[above > 0] ** 2).sum()) / (m / 2)
    log_normal = min(sqrt(np.expm1(min(spread, 700.0)) / m), spread / 2)
    return Weighed(log_mean, max(delta, log_normal), delta, min(ess, m * exp(-spread)), sqrt(spread))
