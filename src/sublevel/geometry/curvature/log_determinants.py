"""Damped log-determinants of the curvature, from its spectral density."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, nan
from typing import Any

import numpy as np

from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.density import SpectralDensity, spectral_density
from sublevel.geometry.estimate import Estimate, join_reasons


def log_determinant(field: Field, theta: PointLike, *, damping: float, **options: Any) -> Estimate:
    """``sum_i log(max(lambda_i, 0) + damping)`` over all n eigenvalues, in nats, by stochastic Lanczos quadrature.

    ``damping`` decides the value and has no default. If it is a prior precision divided by N, this is the determinant
    of the Laplace evidence. ``options`` are those of `spectral_density`. Negative eigenvalues are clipped to 0;
    ``diagnostics["clipped_mass"]`` is their share of n. ``diagnostics["quadrature_error"]`` bounds the error of the
    rules: Gauss's rule lies above the limit of many steps, Gauss-Radau's with a node at 0 below it (see
    `SpectralDensity.radau_error`; with negative eigenvalues it is a warning and not a bound). ``reason`` is set if it
    exceeds the standard error. With ``damping`` 0 the value is nan unless every Ritz value is positive.

    Raises ValueError for a damping that is negative or not finite, and the errors of `spectral_density`.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64))
    >>> found = log_determinant(field, torch.zeros(3, dtype=torch.float64), damping=1.0, method="exact")
    >>> round(found.value / float(np.log(2.0)), 6)
    3.0
    """
    check_damping(damping)
    require_field(field, "log_determinant")
    return log_determinant_of(spectral_density(field, theta, **options), damping)


def check_damping(damping: float) -> None:
    """Raise ValueError for a damping that is negative or not finite."""
    if not (isfinite(damping) and damping >= 0):
        raise ValueError(f"damping must be finite and not negative, got {damping}")


def log_determinant_of(spectrum: SpectralDensity, damping: float) -> Estimate:
    """The damped log-determinant of a spectral density (see `log_determinant`); takes no products."""
    clipped = spectrum.negative_mass
    diagnostics: dict[str, object] = {
        "damping": damping,
        "dimension": spectrum.dimension,
        "steps": spectrum.steps,
        "lowest": spectrum.lowest,
        "highest": spectrum.highest,
        "clipped_mass": clipped.value,
        "clipped_mass_se": clipped.se,
    }
    if not damping and spectrum.lowest <= spectrum.bound:
        reason = f"the lowest Ritz value is {spectrum.lowest:.3g}: without damping the determinant has no logarithm"
        reasons = join_reasons({spectrum.reason: True, reason: True})
        return Estimate(nan, nan, clipped.draws, spectrum.products, reasons, diagnostics)

    def damped_log(x: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(x, 0) + damping)

    found = spectrum.bracketed(
        damped_log, unit="nats", error=None if damping else spectrum.quadrature_error(damped_log)
    )
    return replace(found, diagnostics={**diagnostics, **found.diagnostics})
