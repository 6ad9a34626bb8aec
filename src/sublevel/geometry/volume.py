"""Volumes of basins.

A basin is S = {theta : L(theta) - L(theta*) <= eps} as far as rays from theta* reach it. Its volume spans thousands of
orders of magnitude, so everything is in nats, and volumes of different dimension are compared by the effective radius
(V / omega_n)^(1/n), never by V: log V_n - log V_k contains (n-k)/2 log 2 eps and changes its sign with eps.
omega_n = pi^(n/2) / Gamma(n/2 + 1) is the unit ball's volume.

| method | what it gives | source |
|---|---|---|
| ``top-k`` | the ellipsoid of the k steepest directions | |
| ``logdet`` | the ellipsoid of the whole damped curvature | Laplace's method |
| ``radial`` | the star-shaped part in a ball, by rays in random directions | Huang et al. 1906.03291 |
| ``importance`` | the same set, by rays that follow the curvature | Scherlis and Belrose 2501.18812 |
| ``thermodynamic`` | the partition function under a Gaussian prior | Gelman and Meng 1998 |
| ``llc`` | no volume: how it scales with eps, the local learning coefficient | Lau et al. 2308.12108 |

>>> sorted(METHODS)
['importance', 'llc', 'logdet', 'radial', 'thermodynamic', 'top-k']
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log, nan, sqrt

from sublevel._types import Bool, Tensor
from sublevel.field import At, Field, require_field
from sublevel.geometry.basin import METHODS, Estimator, Volume, estimator, log_unit_ball, prepared
from sublevel.geometry.ellipsoids import ellipsoid, logdet, top_k
from sublevel.geometry.estimate import Estimate
from sublevel.geometry.learning import LearningCoefficient, learning_coefficient, llc
from sublevel.geometry.preconditioners import Preconditioner
from sublevel.geometry.radial import importance, radial
from sublevel.geometry.thermodynamic import thermodynamic
from sublevel.precision import ieee_functions

__all__ = [
    "METHODS",
    "Estimator",
    "LearningCoefficient",
    "Preconditioner",
    "Volume",
    "dimension_slope",
    "ellipsoid",
    "estimator",
    "importance",
    "learning_coefficient",
    "llc",
    "log_unit_ball",
    "log_volume",
    "logdet",
    "radial",
    "sweep",
    "thermodynamic",
    "top_k",
]


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

    In a ``mask``'s subspace the basin is cut by it and has its dimension. ``options`` are those of the estimator.

    Raises TypeError for what is no field, ConfigError for a method or an option that is not known, ValueError unless
    eps is positive.

    >>> import torch
    >>> from math import exp, pi
    >>> from sublevel.field import Quadratic
    >>> disc = Quadratic(torch.tensor([1.0, 1.0], dtype=torch.float64))
    >>> v = log_volume(disc, torch.zeros(2, dtype=torch.float64), eps=0.5, k=2)
    >>> round(exp(v.log_volume) / pi, 6), round(v.effective_radius, 6)
    (1.0, 1.0)
    """
    return sweep(field, theta, method=method, eps=[eps], mask=mask, **options)[0]


def sweep(
    field: Field,
    theta: At,
    *,
    method: str = "top-k",
    eps: Sequence[float],
    mask: Bool[Tensor, "D"] | None = None,
    **options,
) -> list[Volume]:
    """The volumes at several heights; what does not depend on eps (spectra, directions, chains) is done once.

    Volumes of one sweep share their draws: their errors are not independent.

    Raises what `log_volume` raises.
    """
    require_field(field, "log_volume")
    for height in eps:
        if not height > 0:
            raise ValueError(f"eps is a height above the minimum and must be positive, got {height}")
    at = prepared(field, theta, method, {"mask": mask, **options})
    return [at(height) for height in eps]


def dimension_slope(volumes: Sequence[Volume]) -> Estimate:
    """``d log V / d log eps`` by least squares over a sweep: n/2 on a quadratic, whatever the estimator.

    It checks one estimator against another without a common constant. Below n/2, theta is not stationary, rays are
    capped, or the loss grows faster than a quadratic; above it, more slowly. ``se`` is that of independent volumes; a
    sweep's share their draws, which makes it an upper limit in practice. ``diagnostics``: ``expected`` = n/2, and
    ``local``, the slopes between neighbours.

    Raises ValueError for fewer than two different heights, or volumes of different dimension.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> ball = Quadratic(torch.ones(6, dtype=torch.float64))
    >>> round(dimension_slope(sweep(ball, torch.zeros(6, dtype=torch.float64), eps=[0.1, 0.2, 0.4], k=6)).value, 9)
    3.0
    """
    if len({v.eps for v in volumes}) < 2:
        raise ValueError(f"a slope needs volumes at two heights at least, got {len({v.eps for v in volumes})}")
    if len({v.n for v in volumes}) > 1:
        raise ValueError(f"volumes of dimensions {sorted({v.n for v in volumes})} lie on no common line")
    x = [log(v.eps) for v in volumes]
    mean = sum(x) / len(x)
    spread = sum((one - mean) ** 2 for one in x)
    shares = [(one - mean) / spread for one in x]
    value = sum(share * v.log_volume for share, v in zip(shares, volumes, strict=True))
    se = sqrt(sum((share * v.se) ** 2 for share, v in zip(shares, volumes, strict=True)))
    reason = next((v.reason for v in volumes if v.reason), "")
    diagnostics = {"expected": volumes[0].n / 2, "local": _local_slopes(volumes)}
    return Estimate(value, se, len(volumes), reason=reason, diagnostics=diagnostics)


def _local_slopes(volumes: Sequence[Volume]) -> list[float]:
    ordered = sorted(volumes, key=lambda v: v.eps)
    return [(b.log_volume - a.log_volume) / log(b.eps / a.eps) if b.eps > a.eps else nan for a, b in pairwise(ordered)]


ieee_functions(globals())
