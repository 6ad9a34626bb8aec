"""Volumes of the quadratic model: the ellipsoid of the k steepest directions, and that of the whole damped curvature.

A trained network is not stationary. With a gradient g the minimum of the quadratic model lies 1/2 g^T H^-1 g below
theta, so the set {q <= q(theta) + eps} is an ellipsoid of height eps + 1/2 g^T H^-1 g. Volumes are those of this
height. The term is reported, and flagged if it exceeds eps: theta is then not a minimum at this resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, log, nan
from typing import Any

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature import log_determinant_of, spectral_density, top_eigenvalues
from sublevel.geometry.curvature.batched_lanczos import Tridiagonal, batched_lanczos
from sublevel.geometry.curvature.log_determinants import check_damping
from sublevel.geometry.curvature.operators import Operator, curvature_operator
from sublevel.geometry.curvature.tridiagonal import eigenpairs
from sublevel.geometry.estimate import Estimate, join_reasons
from sublevel.geometry.volume.estimators import (
    Option,
    Volume,
    VolumeAtHeight,
    ball_radius,
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

    Negative eigenvalues that the search finds anywhere in the spectrum are a ``reason``: theta is a saddle.
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

    ``values`` are the k largest eigenvalues, ``slopes`` the gradient's components along their eigenvectors. The volume
    is undefined if lambda_k is at most ``error``, the largest residual: its sign is then unknown. The height is eps +
    1/2 g^T H^-1 g over the span. At fixed k, eps only adds a constant. ``negative`` counts the eigenvalues below 0
    beyond rounding, and ``lowest`` is the lowest of them: a section through a saddle is not a basin, which is a
    ``reason``.
    """
    k = len(values)
    about = {"measure": f"Lebesgue, in the span of the {k} steepest eigenvectors", "assumes": MODEL}
    if values[-1] <= error:
        within = f", known to {error:.1g}" if values[-1] > 0 else ""
        return undefined(k, eps, f"eigenvalue {k} is {values[-1]:.3g}{within}: not positive", **about)
    excess = 0.5 * sum(slope**2 / value for slope, value in zip(slopes, values, strict=True))
    log_v = log_unit_ball(k) + k / 2 * log(2 * (eps + excess)) - 0.5 * sum(map(log, values))
    reasons = {saddle(negative, lowest): negative > 0, "eigenvalues not converged": not converged}
    reason = join_reasons(reasons | {_unstationary(excess): excess > eps})
    diagnostics = about | {"nonstationarity": excess, "stationary": excess <= eps}
    return Volume(log_v, ball_radius(log_v, k), k, eps, 0.0, reason, diagnostics)


@dataclass(frozen=True, kw_only=True)
class Quadrature:
    """How `logdet` and `logdets` compute determinants."""

    probes: int = 10
    steps: int = 100
    operator: str = "hessian"
    exact: int | None = None
    seed: int = 0


@estimator(
    "logdet",
    forwards=Quadrature,
    options={"damping": Option(1e-3), "probes": Option(8, least=1), "steps": Option(60, least=2)},
    fixed={"operator": "ggn"},  # a third of a network's Hessian eigenvalues are negative
    derived=lambda options, n, examples: {"exact": options["probes"] * options["steps"]},
    cost=lambda options, heights: 3 * (options["probes"] + 1) * options["steps"],
)
def logdet(
    field: Field,
    theta: PointLike,
    *,
    damping: float,
    mask: Bool[Tensor, "D"] | None = None,
    **quadrature: Any,
) -> VolumeAtHeight:
    """The ellipsoid of the whole damped curvature A + damping, by stochastic Lanczos quadrature:

    log V = log omega_n + (n/2) log 2 (eps + 1/2 g^T (A + damping)^-1 g) - 1/2 sum log(max(lambda, 0) + damping).

    ``quadrature`` are the fields of `Quadrature`. ``damping`` decides the value and has no default. If it is a prior
    precision divided by N, the determinant is that of the Laplace evidence. Negative eigenvalues count as 0; their
    share of n is reported and flagged. ``operator`` is ``hessian`` or ``ggn``. The gradient term comes from its own
    Krylov space of at most ``steps`` products, where it equals the value of conjugate gradients. In at most ``exact``
    dimensions (default ``steps``) the matrix is formed and nothing is drawn: n products, where quadrature takes
    ``probes`` * ``steps``. ``se`` is half that of the log-determinant.

    Raises the errors of `log_determinant`.
    """
    return logdets(field, theta, dampings=[damping], mask=mask, how=Quadrature(**quadrature))[0]


def logdets(
    field: Field,
    theta: PointLike,
    *,
    dampings: Sequence[float],
    mask: Bool[Tensor, "D"] | None = None,
    how: Quadrature | None = None,
) -> list[VolumeAtHeight]:
    """`logdet` at several dampings with the products of one: they share the spectrum and the gradient's Krylov space.

    Raises the errors of `log_determinant`.
    """
    require_field(field, "logdet")
    for damping in dampings:
        check_damping(damping)
    how = how or Quadrature()
    of = curvature_operator(field, theta, mask, operator=how.operator)
    spectrum = spectral_density(
        field,
        theta,
        probes=how.probes,
        steps=how.steps,
        mask=mask,
        operator=how.operator,
        method="exact" if of.dimension <= (how.steps if how.exact is None else how.exact) else "lanczos",
        seed=how.seed,
    )
    heights = solve(of, of.restrict(field.grad(theta)), dampings=dampings, steps=how.steps)
    found = [log_determinant_of(spectrum, damping) for damping in dampings]
    pairs = zip(dampings, found, heights, strict=True)
    return [partial(_damped, of.dimension, how.operator, damping, each, height) for damping, each, height in pairs]


def _damped(n: int, operator: str, damping: float, found: Estimate, height: Height, eps: float) -> Volume:
    """The ellipsoid of a damped determinant at one height."""
    clipped = float(found.diagnostics["clipped_mass"])  # pyright: ignore[reportArgumentType]
    about = {
        **found.diagnostics,
        "nonstationarity_error": height.error,
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
    reason = join_reasons(
        {
            found.reason: True,
            f"negative eigenvalues, {clipped:.2g} of the spectrum, are counted as 0": clipped > 0,
            f"1/2 g^T H^-1 g may be off by {height.error:.2g}, {unsure:.2g} nats: take more steps": unsure > 0.1,
            _unstationary(height.value): height.value > eps,
        }
    )
    return Volume(log_v, ball_radius(log_v, n), n, eps, found.se / 2, reason, about)


@dataclass(frozen=True)
class Height:
    """1/2 g^T (max(A, 0) + damping)^-1 g, an upper bound on the error of the Krylov space, and the products it took."""

    value: float
    error: float
    products: int


def solve(of: Operator, g: Tensor, *, dampings: Sequence[float], steps: int) -> list[Height]:
    """Half the quadratic form of the inverse at g for every damping, by the Gauss rule of g's own spectral measure.

    For a positive definite operator the rule of m steps equals m steps of conjugate gradients (Golub and Meurant 1994).
    It grows to the value and misses r^T (A + damping)^-1 r of the residual r, which is at most |r|^2 over the lowest
    damped Ritz value (itself an estimate of the lowest eigenvalue).
    """
    norm = float(g.double().norm())
    if norm == 0:
        return [Height(0.0, 0.0, 0) for _ in dampings]
    run = batched_lanczos(of, g[None], steps=steps)[0]
    return [_height(run, norm, damping) for damping in dampings]


def _height(run: Tridiagonal, norm: float, damping: float) -> Height:
    nodes, s = eigenpairs(run.diagonal, run.side)
    damped = np.maximum(nodes, 0) + damping
    if damped[0] <= 0:
        return Height(nan, nan, len(nodes))
    residual = float(run.side[-1] * abs((s[-1] * s[0]) @ (1 / damped)))  # of (A + damping) x = e with |e| = 1
    missed = 0.0 if run.exhausted else (norm * residual) ** 2 / damped[0]
    return Height(0.5 * norm**2 * float(s[0] ** 2 @ (1 / damped)), 0.5 * missed, len(nodes))


def saddle(negative: int, lowest: float) -> str:
    """Why a point with negative eigenvalues has no basin to measure.

    >>> saddle(2, -0.5)
    'a saddle: 2 negative eigenvalues or more, the lowest -0.5'
    """
    return f"a saddle: {negative} negative eigenvalue{'s' * (negative != 1)} or more, the lowest {lowest:.3g}"


def _unstationary(excess: float) -> str:
    return f"not stationary: 1/2 g^T H^-1 g = {excess:.3g} exceeds eps"
