"""Volumes at one or several heights, and their slope over the height."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log, nan, sqrt

from sublevel._types import Bool, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.estimate import Estimate
from sublevel.geometry.volume.estimators import Volume, prepared


def log_volume(
    field: Field,
    theta: PointLike,
    *,
    method: str = "top-k",
    eps: float = 0.1,
    mask: Bool[Tensor, "D"] | None = None,
    **options,
) -> Volume:
    """The log-volume of the basin of ``theta`` at the height ``eps`` above its loss, by a named estimator.

    ``mask`` restricts the basin to its subspace. ``options`` are those of the estimator.

    Raises TypeError if ``field`` is not a field, ConfigError for an unknown method or option, ValueError unless eps is
    positive.

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
    theta: PointLike,
    *,
    method: str = "top-k",
    eps: Sequence[float],
    mask: Bool[Tensor, "D"] | None = None,
    **options,
) -> list[Volume]:
    """The volumes at several heights; computations independent of eps (spectra, directions, chains) are done
    once.

    Volumes of one sweep share their draws, so their errors are not independent. Raises the errors of `log_volume`.
    """
    require_field(field, "log_volume")
    for height in eps:
        if not height > 0:
            raise ValueError(f"eps is a height above the minimum and must be positive, got {height}")
    at = prepared(field, theta, method, {"mask": mask, **options})
    return [at(height) for height in eps]


def dimension_slope(volumes: Sequence[Volume]) -> Estimate:
    """``d log V / d log eps`` by least squares over a sweep: n/2 on a quadratic, whatever the estimator.

    The slope compares estimators that differ by a constant. Below n/2, theta is not stationary, rays are capped, or the
    loss grows faster than a quadratic; above n/2 it grows more slowly. ``se`` assumes independent volumes; those of a
    sweep share their draws, so it is an upper limit in practice. ``diagnostics``: ``expected`` = n/2, and ``local``,
    the slopes between neighbouring heights.

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
    steps = pairwise(sorted(volumes, key=lambda v: v.eps))
    local = [(b.log_volume - a.log_volume) / log(b.eps / a.eps) if b.eps > a.eps else nan for a, b in steps]
    diagnostics = {"expected": volumes[0].n / 2, "local": local}
    return Estimate(value, se, len(volumes), reason=reason, diagnostics=diagnostics)
