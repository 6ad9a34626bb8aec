"""Log-determinants and traces from few probes: their 95% intervals cover, whatever carries the error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hard_spectra import LOG_DETERMINANTS, covered
from scipy import stats

from cases import Spec
from sublevel.field import Quadratic
from sublevel.geometry.curvature import spectral_density, trace
from sublevel.geometry.volume.ellipsoids import logdet

F64 = torch.float64


@pytest.mark.parametrize("name", LOG_DETERMINANTS)
def test_intervals_of_four_probes_cover(name):
    """Forty seeds: from a coverage of 95% fewer than 33 have a chance of one in a thousand."""
    found = [covered(name, seed) for seed in range(40)]
    assert sum(inside for inside, _ in found) >= 33
    assert not any(reason for _, reason in found)


@pytest.mark.full
@pytest.mark.parametrize("name", LOG_DETERMINANTS)
def test_intervals_of_four_probes_cover_over_a_thousand_seeds(name):
    assert np.mean([covered(name, seed)[0] for seed in range(1000)]) >= 0.93


def test_two_outliers_are_exact_for_each_probe():
    """Each is found by the other probes, and none of its weight is left to chance."""
    h = torch.cat([torch.full((998,), 1e-2), torch.tensor([1e4, 3e4])]).double()
    spectrum = spectral_density(Quadratic(h), torch.zeros_like(h), probes=4, steps=30)
    exact = float((h + 1e-3).log().sum())
    values = spectrum.deflated(lambda x: np.log(x + 1e-3))
    np.testing.assert_allclose(values, exact, rtol=1e-9)
    assert spectrum.per_probe(lambda x: np.log(x + 1e-3)).std() > 5


@pytest.mark.parametrize("copies", [2, 9])
def test_more_copies_than_probes_can_know_widen_the_interval(copies):
    """Three others know three of nine copies: the rest carries the error, and is not normal."""
    h = torch.cat([torch.full((1000 - copies,), 1e-2), torch.full((copies,), 1e4)]).double()
    exact, inside = float((h + 1e-3).log().sum()), 0
    for seed in range(100):
        spectrum = spectral_density(Quadratic(h), torch.zeros_like(h), probes=4, steps=10, seed=seed)
        found = spectrum.integrate(lambda x: np.log(x + 1e-3))
        inside += abs(found.value - exact) <= stats.t.ppf(0.975, 3) * found.se + 1e-9 * abs(exact)
    assert inside >= 91


def test_deflation_takes_no_products_and_leaves_the_mean():
    h = torch.cat([torch.linspace(0, 1, 200), torch.tensor([50.0, 20.0])]).double()
    spectra = [spectral_density(Quadratic(h), torch.zeros_like(h), probes=4, steps=20, seed=s) for s in range(60)]
    assert {one.products for one in spectra} == {80}
    values = np.array([one.integrate(lambda x: x).value for one in spectra])
    assert abs(values.mean() - float(h.sum())) <= 3 * values.std(ddof=1) / 60**0.5
    plain = np.array([one.per_probe(lambda x: x).mean() for one in spectra])
    assert values.std() < 0.2 * plain.std()


def test_traces_of_four_probes_and_two_outliers_cover():
    field = Quadratic(Spec("", (100.0, 90.0, *([0.1] * 58))).hessian)
    found = [trace(field, torch.zeros(60, dtype=F64), probes=4, seed=seed) for seed in range(200)]
    inside = [abs(one.value - 195.8) <= stats.t.ppf(0.975, 3) * one.se for one in found]
    plain = [abs(one.value - 195.8) <= stats.t.ppf(0.975, 3) * one.diagnostics["sampling_se"] for one in found]
    assert np.mean(plain) < 0.92
    assert np.mean(inside) >= 0.93
    spread_out = Quadratic(Spec("", tuple(np.linspace(0.5, 1.5, 60))).hessian)
    assert trace(spread_out, torch.zeros(60, dtype=F64), probes=4).diagnostics["implied_se"] == 0.0


def test_the_volume_uses_it():
    h = torch.cat([torch.full((998,), 1e-2), torch.full((2,), 1e4)]).double()
    v = logdet(Quadratic(h), torch.zeros_like(h), damping=1e-3, probes=4, steps=40, exact=0)(0.1)
    assert v.se <= 1e-6
    assert v.reason == ""
