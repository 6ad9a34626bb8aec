"""The effective dimension of a quadratic basin, and the fewest weights that can still reach it.

In a basin with the Hessian H the set {loss - minimum <= eps} is an ellipsoid with the half axes r_i = sqrt(2 eps /
lambda_i). Seen from a point at the distance R, it meets a random subspace of dimension d with high probability once

    d > sum_i R^2 / (R^2 + r_i^2) = sum_i lambda_i / (lambda_i + alpha),    alpha = 2 eps / R^2

(Larsen et al. 2107.05802, by Gordon's theorem). The right-hand side is the effective dimension of Bayesian inference
(MacKay 1992) with the prior precision alpha. Pruning the m weights of smallest magnitude moves theta by R = (sum of
their squares)^(1/2), and what is left spans a subspace. So pruning predicts its own limit: the fewest weights d with
d >= N_eff(2 eps / R(d)^2), as R grows while d falls (Paul et al. 2210.03044, section 3.3; Zhang et al. 2306.05857).

Where this fails: the kept coordinates are no random subspace; the loss is not quadratic at the distance R; negative
eigenvalues count as 0. It is a prediction to hold against retrained networks, not a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.density import SpectralDensity, spectral_density
from sublevel.geometry.estimate import Estimate


def effective_dimension(field: Field, theta: PointLike, *, alpha: float, **options: Any) -> Estimate:
    """``sum_i max(lambda_i, 0) / (max(lambda_i, 0) + alpha)`` by stochastic Lanczos quadrature, between 0 and n.

    ``options`` are those of `spectral_density`. Negative eigenvalues count as 0. ``reason`` is set if the error of the
    rules (`SpectralDensity.bracketed`) exceeds the standard error.

    Raises ValueError for an ``alpha`` that is not positive and finite, and the errors of `spectral_density`.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([3.0, 1.0, 0.0, -2.0], dtype=torch.float64))
    >>> found = effective_dimension(field, torch.zeros(4, dtype=torch.float64), alpha=1.0, method="exact")
    >>> round(found.value, 6)
    1.25
    """
    require_field(field, "effective_dimension")
    return effective_dimension_of(spectral_density(field, theta, **options), alpha)


def effective_dimension_of(spectrum: SpectralDensity, alpha: float) -> Estimate:
    """The effective dimension of a spectral density (see `effective_dimension`); takes no products."""
    if not (isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha is a curvature and must be positive and finite, got {alpha}")

    def share(x: np.ndarray) -> np.ndarray:
        above = np.maximum(x, 0)
        return above / (above + alpha)

    return spectrum.bracketed(share, unit="dimensions")


@dataclass(frozen=True)
class FewestWeights:
    """The predicted fewest weights whose subspace still reaches the sublevel set at ``eps`` above the minimum.

    ``weights`` counts all coordinates left, the ones that are never pruned included; ``low`` and ``high`` are the
    crossings at two standard errors of the effective dimension. ``distance`` is the norm of what is pruned there,
    ``dimension`` the effective dimension there.
    """

    weights: int
    low: int
    high: int
    distance: float
    dimension: float
    reason: str


def fewest_weights(spectrum: SpectralDensity, theta: Tensor, prunable: Bool[Tensor, "D"], eps: float) -> FewestWeights:
    """Predict how far the magnitude criterion can prune ``theta`` [D] (see this module).

    ``spectrum`` is that of the Hessian in the space of theta; ``prunable`` [D] the coordinates that may be pruned.

    Raises ValueError unless ``eps`` is positive and ``spectrum`` has the dimension of theta.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> theta = torch.ones(100, dtype=torch.float64)
    >>> field = Quadratic(torch.ones(100, dtype=torch.float64), theta)
    >>> found = fewest_weights(spectral_density(field, theta, method="exact"), theta, theta > 0, eps=12.5)
    >>> found.weights  # m = 39 go: 100 - m = 100 m / (m + 2 eps) has the root (sqrt(10625) - 25) / 2 = 39.04
    61
    """
    if not (isfinite(eps) and eps > 0):
        raise ValueError(f"eps is a height above the minimum and must be positive, got {eps}")
    total = len(theta)
    if spectrum.dimension != total:
        raise ValueError(f"a spectrum of dimension {spectrum.dimension} does not fit a point of dimension {total}")
    squares = (
        theta[prunable.to(theta.device)].double().square().sort().values.cpu().cumsum(0).numpy()
    )  # a GPU adds in no order

    def needed(gone: int) -> Estimate:
        return effective_dimension_of(spectrum, 2 * eps / float(squares[gone - 1]))

    def most(errors: float) -> int:
        """The most weights that can go with ``errors`` standard errors added to the effective dimension."""
        low, high = 0, len(squares)
        while low < high:
            gone = (low + high + 1) // 2
            free = not squares[gone - 1]
            found = None if free else needed(gone)
            fits = found is None or found.value + errors * (found.se if isfinite(found.se) else 0.0) <= total - gone
            low, high = (gone, high) if fits else (low, gone - 1)
        return low

    gone = most(0.0)
    there = needed(gone) if gone and squares[gone - 1] else Estimate(0.0, 0.0, 0)
    distance = float(squares[gone - 1] ** 0.5) if gone else 0.0
    low, high = total - most(-2.0), total - most(2.0)
    return FewestWeights(total - gone, low, high, distance, there.value, there.reason)
