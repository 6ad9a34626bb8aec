"""Volumes of the quadratic model: the ellipsoid of the k steepest directions, and the determinant of the whole.

A trained network is not stationary. With a gradient g the quadratic's own minimum lies 1/2 g^T H^-1 g below theta, so
the set {q <= q(theta) + eps} is an ellipsoid of the height eps + 1/2 g^T H^-1 g. Volumes are given at that height, the
term is reported, and it is flagged where it exceeds eps: the solution is then no minimum at this resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, isfinite, log, nan

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.curvature.operators import Operator, curvature_operator
from sublevel.geometry.curvature.quadrature import (
    Tridiagonal,
    batched_lanczos,
    check_damping,
    log_determinant_of,
    spectral_density,
)
from sublevel.geometry.estimate import Estimate
from sublevel.geometry.volume.estimators import (
    Volume,
    VolumeAtHeight,
    ball_radius,
    because,
    estimator,
    log_unit_ball,
    undefined,
)

MODEL = "the loss is its quadratic model at theta up to the height eps, and at its minimum plus eps"


@estimator("top-k")
def top_k(
    field: Field,
    theta: PointLike,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    k: int = 10,
    tolerance: float | None = None,
    steps: int = 200,
    restarts: int = 3,
    negative: int = 1,
    seed: int = 0,
) -> VolumeAtHeight:
    """The ellipsoid of the k largest Hessian eigenvalues (see `ellipsoid`, and `top_eigenvalues` for the options).

    Negative eigenvalues anywhere in the spectrum, as far as the search saw them, are a ``reason``: theta is a saddle.
    """
    require_field(field, "top_k")
    options = {"tolerance": tolerance, "steps": steps, "restarts": restarts, "negative": negative, "seed": seed}
    spectrum = top_eigenvalues(field, theta, k=k, mask=mask, **options)
    slopes = (spectrum.vectors.double() @ field.grad(theta).to(spectrum.vectors).double()).tolist()
    values, error = spectrum.values.tolist(), max(spectrum.residuals.tolist())
    seen = {"negative": spectrum.negative_count, "lowest": float(spectrum.smallest[0])}
    return lambda eps: ellipsoid(values, slopes, eps=eps, converged=spectrum.converged, error=error, **seen)


def ellipsoid(
    values: Sequence[float],
    slopes: Sequence[float],
    *,
    eps: float,
    converged: bool = True,
    error: float = 0.0,
    negative: int = 0,
    lowest: float = nan,
) -> Volume:
    """The k-dimensional ellipsoid {1/2 d^T H d <= eps} in the span of the k eigenvectors:

    log V_(k) = log omega_k + (k/2) log 2 eps - 1/2 sum_{i <= k} log lambda_i.

    ``values`` are the k largest eigenvalues, ``slopes`` the gradient's components along their eigenvectors. Undefined
    if lambda_k <= 0, or so small that its ``error`` (the largest residual) leaves the sign open. At fixed k, eps only
    adds a constant: a sweep of it shows nothing. The height is eps + 1/2 g^T H^-1 g over the span. ``negative`` is how
    many eigenvalues below 0 were seen anywhere, beyond rounding, and ``lowest`` the lowest of them: a section through a
    saddle is no basin, and ``reason`` says so.
    """
    k = len(values)
    about = {"measure": f"Lebesgue, in the span of the {k} steepest eigenvectors", "assumes": MODEL}
    if values[-1] <= error:
        within = f", known to {error:.1g}" if values[-1] > 0 else ""
        return undefined(k, eps, f"eigenvalue {k} is {values[-1]:.3g}{within}: not positive", **about)
    excess = 0.5 * sum(slope**2 / value for slope, value in zip(slopes, values, strict=True))
    log_v = log_unit_ball(k) + k / 2 * log(2 * (eps + excess)) - 0.5 * sum(map(log, values))
    reasons = {saddle(negative, lowest): negative > 0, "eigenvalues not converged": not converged}
    reason = because(reasons | {_unstationary(excess): excess > eps})
    diagnostics = about | {"nonstationarity": excess, "stationary": excess <= eps}
    return Volume(log_v, exp((log_v - log_unit_ball(k)) / k), k, eps, 0.0, reason, diagnostics)


@estimator("logdet")
def logdet(
    field: Field,
    theta: PointLike,
    *,
    damping: float,
    mask: Bool[Tensor, "D"] | None = None,
    probes: int = 10,
    steps: int = 100,
    operator: str = "hessian",
    exact: int | None = None,
    seed: int = 0,
) -> VolumeAtHeight:
    """The ellipsoid of the whole damped curvature A + damping, by stochastic Lanczos quadrature:

    log V = log omega_n + (n/2) log 2 (eps + 1/2 g^T (A + damping)^-1 g) - 1/2 sum log(max(lambda, 0) + damping).

    ``damping`` decides the answer and is always stated: a prior precision over N makes the determinant that of the
    Laplace evidence. Negative eigenvalues count as 0, and their share of n is reported and flagged. ``operator`` is
    ``hessian`` or ``ggn``. The gradient's term comes from its own Krylov space of at most ``steps`` products, where it
    equals conjugate gradients'. In at most ``exact`` dimensions (``steps``, where it is not given) the whole matrix is
    formed, and nothing is drawn: n products, where quadrature takes ``probes`` * ``steps``. ``se`` is half that of the
    log-determinant.

    Raises what `log_determinant` raises.
    """
    options = {"mask": mask, "probes": probes, "steps": steps, "operator": operator, "exact": exact, "seed": seed}
    return logdets(field, theta, dampings=[damping], **options)[0]


def logdets(
    field: Field,
    theta: PointLike,
    *,
    dampings: Sequence[float],
    mask: Bool[Tensor, "D"] | None = None,
    probes: int = 10,
    steps: int = 100,
    operator: str = "hessian",
    exact: int | None = None,
    seed: int = 0,
) -> list[VolumeAtHeight]:
    """`logdet` at several dampings, for the products of one: the spectrum and the gradient's Krylov space are shared.

    Raises what `log_determinant` raises.
    """
    require_field(field, "logdet")
    for damping in dampings:
        check_damping(damping)
    of = curvature_operator(field, theta, mask, operator=operator)
    method = "exact" if of.dimension <= (steps if exact is None else exact) else "lanczos"
    about = {"probes": probes, "steps": steps, "mask": mask, "operator": operator, "method": method, "seed": seed}
    spectrum = spectral_density(field, theta, **about)
    heights = solve(of, of.restrict(field.grad(theta)), dampings=dampings, steps=steps)
    found = [log_determinant_of(spectrum, damping) for damping in dampings]
    pairs = zip(dampings, found, heights, strict=True)
    return [partial(_damped, of.dimension, operator, damping, each, height) for damping, each, height in pairs]


def _damped(n: int, operator: str, damping: float, found: Estimate, height: Height, eps: float) -> Volume:
    """The ellipsoid of a damped determinant at one height."""
    clipped = float(found.diagnostics["clipped_mass"])  # pyright: ignore[reportArgumentType]
    about = {
        **found.diagnostics,
        **height.diagnostics,
        "measure": "Lebesgue",
        "assumes": f"{MODEL}; curvature is the {operator} clipped at 0, plus {damping:g}",
        "nonstationarity": height.value,
        "stationary": height.value <= eps,
        "products": found.products + height.products,
    }
    if not isfinite(found.value):
        return undefined(n, eps, found.reason, **about)
    log_v = log_unit_ball(n) + n / 2 * log(2 * (eps + height.value)) - 0.5 * found.value
    unsure = n / 2 * height.error / (eps + height.value)
    reason = because(
        {
            found.reason: True,
            f"negative eigenvalues, {clipped:.2g} of the spectrum, are counted as 0": clipped > 0,
            f"1/2 g^T H^-1 g is open by {height.error:.2g}, {unsure:.2g} nats: more steps": unsure > 0.1,
            _unstationary(height.value): height.value > eps,
        }
    )
    return Volume(log_v, ball_radius(log_v, n), n, eps, found.se / 2, reason, about)


@dataclass(frozen=True)
class Height:
    """1/2 g^T (max(A, 0) + damping)^-1 g, an upper bound on what the Krylov space misses of it, and its price."""

    value: float
    error: float
    products: int

    @property
    def diagnostics(self) -> dict[str, object]:
        """How far the value is known."""
        return {"nonstationarity_error": self.error}


def solve(of: Operator, g: Tensor, *, dampings: Sequence[float], steps: int) -> list[Height]:
    """Half the quadratic form of the inverse at g for every damping, by the Gauss rule of g's own spectral measure.

    For a positive definite operator the rule of m steps is what m steps of conjugate gradients give (Golub and Meurant
    1994): it grows to the value, and misses r^T (A + damping)^-1 r of the residual r, at most |r|^2 over the lowest
    damped Ritz value (itself an estimate of the lowest eigenvalue).
    """
    norm = float(g.double().norm())
    if norm == 0:
        return [Height(0.0, 0.0, 0) for _ in dampings]
    run = batched_lanczos(of, g[None], steps=steps)[0]
    return [_height(run, norm, damping) for damping in dampings]


def _height(run: Tridiagonal, norm: float, damping: float) -> Height:
    nodes, weights = run.rule()
    damped = np.maximum(nodes, 0) + damping
    if damped[0] <= 0:
        return Height(nan, nan, len(nodes))
    missed = 0.0 if run.exhausted else (norm * _residual(run, damping)) ** 2 / damped[0]
    return Height(0.5 * norm**2 * float(weights @ (1 / damped)), 0.5 * missed, len(nodes))


def _residual(run: Tridiagonal, damping: float) -> float:
    """The residual's norm of (A + damping) x = e with |e| = 1: beta_m |x_m|, x the solution in the Krylov space."""
    a, b = run.diagonal, run.side
    values, s = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return float(b[-1] * abs((s[-1] * s[0]) @ (1 / (np.maximum(values, 0) + damping))))


def saddle(negative: int, lowest: float) -> str:
    """Why a point with negative eigenvalues has no basin to measure.

    >>> saddle(2, -0.5)
    'a saddle: 2 negative eigenvalues or more, the lowest -0.5'
    """
    return f"a saddle: {negative} negative eigenvalue{'s' * (negative != 1)} or more, the lowest {lowest:.3g}"


def _unstationary(excess: float) -> str:
    return f"not stationary: 1/2 g^T H^-1 g = {excess:.3g} exceeds eps"
