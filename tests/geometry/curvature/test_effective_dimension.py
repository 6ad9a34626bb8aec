"""The effective dimension, and the fewest weights that it predicts, against closed forms and counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sublevel.field import Quadratic
from sublevel.geometry.curvature import effective_dimension, fewest_weights, spectral_density
from sublevel.rng import generator

F64 = torch.float64


@pytest.mark.parametrize("alpha", [1e-2, 0.1, 10.0])
def test_the_sum_is_that_of_the_eigenvalues_within_its_error(alpha: float) -> None:
    values = torch.logspace(-4, 1, 400, dtype=F64)
    field, at = Quadratic(values), torch.zeros(400, dtype=F64)
    true = float((values / (values + alpha)).sum())
    assert effective_dimension(field, at, alpha=alpha, method="exact").value == pytest.approx(true)
    found = effective_dimension(field, at, alpha=alpha, probes=12, steps=80)
    assert not found.reason
    assert abs(found.value - true) < 4 * found.se
    assert found.se < 0.1 * true


def test_negative_eigenvalues_count_as_none_and_too_few_steps_are_flagged() -> None:
    values = torch.cat([torch.logspace(-6, 2, 300, dtype=F64), -torch.ones(100, dtype=F64)])
    at = torch.zeros(400, dtype=F64)
    true = float((values[:300] / (values[:300] + 1e-5)).sum())
    assert effective_dimension(Quadratic(values), at, alpha=1e-5, method="exact").value == pytest.approx(true)
    assert "not converged" in effective_dimension(Quadratic(values), at, alpha=1e-5, probes=4, steps=10).reason
    with pytest.raises(ValueError, match="alpha is a curvature"):
        effective_dimension(Quadratic(values), at, alpha=0.0)


def test_the_crossing_is_that_of_a_count_by_hand() -> None:
    rng = generator(0, "fewest")
    n = 200
    theta = torch.randn(n, generator=rng, dtype=F64)
    values = torch.logspace(-3, 1, n, dtype=F64)
    prunable = torch.arange(n) % 5 != 0  # 40 coordinates always stay
    spectrum = spectral_density(Quadratic(values, theta), theta, method="exact")
    for eps in (0.01, 0.3, 3.0):
        found = fewest_weights(spectrum, theta, prunable, eps)
        squares = np.cumsum(np.sort(theta[prunable].numpy() ** 2))
        fits = [
            m for m in range(1, len(squares) + 1)
            if (values / (values + 2 * eps / squares[m - 1])).sum() <= n - m
        ]  # fmt: skip
        assert found.weights == n - max(fits, default=0)
        assert found.low == found.high == found.weights
        assert found.distance == pytest.approx(math.sqrt(squares[max(fits) - 1]))


def test_errors_of_the_spectrum_widen_the_prediction() -> None:
    values = torch.logspace(-3, 1, 500, dtype=F64)
    theta = torch.randn(500, generator=generator(1, "fewest"), dtype=F64)
    true = fewest_weights(spectral_density(Quadratic(values), theta, method="exact"), theta, theta != 0, 0.1)
    found = fewest_weights(spectral_density(Quadratic(values), theta, probes=6, steps=80), theta, theta != 0, 0.1)
    assert found.low < found.weights < found.high
    assert abs(found.weights - true.weights) <= found.high - found.low, "four standard errors"


def test_weights_of_zero_go_for_nothing_and_flat_basins_lose_everything() -> None:
    theta = torch.cat([torch.zeros(30, dtype=F64), torch.full((10,), 1e6, dtype=F64)])
    steep = spectral_density(Quadratic(torch.full((40,), 1e6, dtype=F64)), theta, method="exact")
    assert fewest_weights(steep, theta, torch.ones(40, dtype=torch.bool), 1e-3).weights == 10
    flat = spectral_density(Quadratic(torch.zeros(40, dtype=F64)), theta, method="exact")
    assert fewest_weights(flat, theta, torch.ones(40, dtype=torch.bool), 1e-3).weights == 0


def test_what_does_not_fit_is_refused() -> None:
    theta = torch.ones(4, dtype=F64)
    spectrum = spectral_density(Quadratic(torch.ones(4, dtype=F64)), theta, method="exact")
    with pytest.raises(ValueError, match="eps is a height"):
        fewest_weights(spectrum, theta, theta > 0, 0.0)
    with pytest.raises(ValueError, match="dimension 4 does not fit a point of dimension 3"):
        fewest_weights(spectrum, theta[:3], theta[:3] > 0, 0.1)
