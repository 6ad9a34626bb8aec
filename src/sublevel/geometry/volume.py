"""Volumes of basins.

A basin is S = {theta : L(theta) - L(theta*) <= eps} as far as rays from theta* reach it. Its volume spans thousands of
orders of magnitude, so everything is in nats, and volumes of different dimension are compared by the effective radius
(V / omega_n)^(1/n), never by V. omega_n = pi^(n/2) / Gamma(n/2 + 1) is the unit ball's volume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, lgamma, log, nan, pi

from sublevel._types import Bool, Tensor
from sublevel.errors import unknown
from sublevel.field import At, Field
from sublevel.geometry.curvature import top_eigenvalues


def log_unit_ball(n: int) -> float:
    """Log omega_n, the volume of the unit ball in R^n.

    >>> round(exp(log_unit_ball(3)) / pi, 6)
    1.333333
    """
    return n / 2 * log(pi) - lgamma(n / 2 + 1)


@dataclass(frozen=True)
class Volume:
    """A volume in nats with what is needed to trust it.

    ``log_volume`` is nan where the estimator is undefined, and ``reason`` then says why; ``reason`` also warns of a
    value that is defined but not to be trusted. ``n`` is the dimension that the volume is measured in (k for the
    top-k estimator). ``effective_radius`` = (V / omega_n)^(1/n). ``se`` is a standard error in nats (0 where the
    estimator draws nothing).
    """

    log_volume: float
    effective_radius: float
    n: int
    eps: float
    se: float = 0.0
    reason: str = ""
    diagnostics: Mapping[str, object] = field(default_factory=dict)


Estimator = Callable[..., Volume]
METHODS: dict[str, Estimator] = {}


def estimator(name: str) -> Callable[[Estimator], Estimator]:
    """Register a volume estimator ``f(field, theta, *, eps, mask, **options) -> Volume``."""

    def register(function: Estimator) -> Estimator:
        METHODS[name] = function
        return function

    return register


def log_volume(
    field: Field,
    theta: At,
    *,
    method: str = "top-k",
    eps: float = 0.1,
    mask: Bool[Tensor, "D"] | None = None,
    **options,
) -> Volume:
    """The log-volume of the basin of ``theta`` at the height ``eps`` above its loss, by a named estimator.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> disc = Quadratic(torch.tensor([1.0, 1.0], dtype=torch.float64))
    >>> v = log_volume(disc, torch.zeros(2, dtype=torch.float64), eps=0.5, k=2)
    >>> round(exp(v.log_volume) / pi, 6), round(v.effective_radius, 6)
    (1.0, 1.0)
    """
    if method not in METHODS:
        raise unknown("volume estimator", method, METHODS)
    if not eps > 0:
        raise ValueError(f"eps is a height above the minimum and must be positive, got {eps}")
    return METHODS[method](field, theta, eps=eps, mask=mask, **options)


@estimator("top-k")
def top_k(
    field: Field, theta: At, *, eps: float, mask: Bool[Tensor, "D"] | None = None, k: int = 10, **options
) -> Volume:
    """The ellipsoid of the k largest Hessian eigenvalues (see `ellipsoid`)."""
    spectrum = top_eigenvalues(field, theta, k=k, mask=mask, **options)
    slopes = spectrum.vectors.double() @ field.grad(theta).to(spectrum.vectors).double()
    error = max(spectrum.residuals.tolist())
    return ellipsoid(spectrum.values.tolist(), slopes.tolist(), eps=eps, converged=spectrum.converged, error=error)


def ellipsoid(
    values: Sequence[float], slopes: Sequence[float], *, eps: float, converged: bool = True, error: float = 0.0
) -> Volume:
    """The k-dimensional ellipsoid {1/2 d^T H d <= eps} in the span of the k eigenvectors:

    log V_(k) = log omega_k + (k/2) log 2 eps - 1/2 sum_{i <= k} log lambda_i.

    ``values`` are the k largest eigenvalues, ``slopes`` the gradient's components along their eigenvectors. Undefined
    if lambda_k <= 0, or so small that its ``error`` (the largest residual) leaves the sign open. At fixed k, eps only
    adds a constant: a sweep of it shows nothing. A trained network is not stationary: with a gradient g the
    quadratic's own minimum lies 1/2 g^T H^-1 g deeper, so the set {q <= q(theta) + eps} has the height
    eps + 1/2 g^T H^-1 g over the span. The volume is given at that height, the term is reported, and it is flagged
    where it exceeds eps (the solution is then no minimum at this resolution).
    """
    k = len(values)
    if values[-1] <= error:
        within = f", known to {error:.1g}" if values[-1] > 0 else ""
        return Volume(nan, nan, k, eps, nan, f"eigenvalue {k} is {values[-1]:.3g}{within}: not positive")
    excess = 0.5 * sum(slope**2 / value for slope, value in zip(slopes, values, strict=True))
    log_v = log_unit_ball(k) + k / 2 * log(2 * (eps + excess)) - 0.5 * sum(map(log, values))
    reasons = [] if converged else ["eigenvalues not converged"]
    if excess > eps:
        reasons.append(f"not stationary: 1/2 g^T H^-1 g = {excess:.3g} exceeds eps")
    diagnostics = {"nonstationarity": excess, "stationary": excess <= eps}
    return Volume(log_v, exp((log_v - log_unit_ball(k)) / k), k, eps, 0.0, "; ".join(reasons), diagnostics)
