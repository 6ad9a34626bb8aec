"""The learning coefficient and the partition function against closed forms and quadrature at the same temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampled import F64, Examples, bowl, crossing, number, rank_regression, unchecked

from cases import named, spread
from sublevel.field import EveryExample, Quadratic
from sublevel.geometry.volume import log_volume
from sublevel.geometry.volume.local_learning_coefficient import learning_coefficient
from sublevel.geometry.volume.thermodynamic_integration import ladder, ladder_errors


def zeros(n):
    return torch.zeros(n, dtype=F64)


def coefficient(stochastic, start, **options):
    with unchecked():
        return learning_coefficient(stochastic, start, **options)


# --- Learning coefficients.


def test_a_quadratic_whatever_the_step():
    """1/2 sum N beta h / a within 2%, where an uncorrected chain of this step is 6% off."""
    h, n_beta, gamma, eta = np.array(spread(-0.7, 0, 80)), 100.0, 5.0, 4e-3
    a = n_beta * h + gamma
    truth, uncorrected = (n_beta * h / a).sum() / 2, (n_beta * h / (a * (1 - eta * a / 4))).sum() / 2
    options = {"n_beta": n_beta, "gamma": gamma, "step_size": eta, "burn_in": 200, "draws": 3000}
    found = coefficient(bowl(h), zeros(80), **options)
    assert found.value == pytest.approx(truth, rel=0.02)
    assert abs(found.value - truth) < 3 * found.se < 0.03 * truth
    assert abs(found.value - uncorrected) > 0.04 * truth
    assert (found.reason, found.chains, found.draws) == ("", 4, 3000)
    assert found.diagnostics["stability"] == pytest.approx(eta * a.max(), rel=1e-6)


def test_a_flat_direction_counts_for_nothing():
    """Two of four dimensions: lambda = 1 and not 2."""
    found = coefficient(
        bowl([1.0, 1.0, 0.0, 0.0]), zeros(4), n_beta=1000.0, gamma=10.0, step_size=2e-4, burn_in=50, draws=1500
    )
    assert found.value == pytest.approx(1.0 / 1.01, abs=3 * found.se)
    assert 3 * found.se < 0.25


def tempered_energy(energy, gamma, n_beta, reach=9.0, points=3001):
    """N beta E[L] under exp(-N beta L - gamma/2 |w|^2) in the plane, by quadrature over one quadrant."""
    x = (np.arange(points) + 0.5) * reach / points / math.sqrt(gamma)
    loss = energy(x[:, None], x[None])
    weight = np.exp(-n_beta * loss - gamma / 2 * (x[:, None] ** 2 + x**2))
    return n_beta * float((weight * loss).sum() / weight.sum())


@pytest.mark.parametrize(("p", "q"), [(2, 2), (2, 4)])
def test_a_normal_crossing_against_quadrature_at_the_same_temperature(p, q):
    """x^2 y^2 (lambda 1/2 with multiplicity 2) and x^2 y^4 (1/4): far from both at this N beta, hence quadrature."""
    truth = tempered_energy(lambda x, y: x**p * y**q, 1.0, 20.0)
    options = {"n_beta": 20.0, "gamma": 1.0, "step_size": 1e-3, "burn_in": 4000, "draws": 200, "seed": 1}
    found = coefficient(crossing(p, q, 2000), zeros(4000), chains=1, **options)
    assert found.value / 2000 == pytest.approx(truth, rel=0.05)


def aoyagi_watanabe(inputs, outputs, hidden, rank=0):
    """lambda and multiplicity of reduced-rank regression (Aoyagi and Watanabe 2005, main theorem)."""
    m, n, h, r = inputs, outputs, hidden, rank
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        odd = (m + h + n + r) % 2
        return (-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd) / 8, 1 + odd
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2, 1
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2, 1
    return m * n / 2, 1


def test_reduced_rank_regression_of_multiplicity_one():
    """Two inputs, six outputs, one hidden unit: lambda = 1, where its eight dimensions would give 4."""
    truth, multiplicity = aoyagi_watanabe(2, 6, 1)
    assert (truth, multiplicity) == (1.0, 1)
    options = {"n_beta": 30.0, "gamma": 1.0, "step_size": 1e-3, "burn_in": 2000, "draws": 250}
    found = coefficient(rank_regression(2, 6, 1, 30), zeros(240), **options)
    assert found.value / 30 == pytest.approx(truth, rel=0.1)


@pytest.mark.full
def test_reduced_rank_regression_at_its_singular_point():
    """Two by two by two from the origin: lambda = 3/2, between the strata of 2 and the dimension's 4."""
    truth, multiplicity = aoyagi_watanabe(2, 2, 2)
    assert (truth, multiplicity) == (1.5, 1)
    options = {"n_beta": 300.0, "gamma": 1.0, "step_size": 1e-4, "burn_in": 40_000, "draws": 20_000, "chains": 2}
    found = coefficient(rank_regression(2, 2, 2, 50), zeros(400), **options)
    assert found.value / 50 == pytest.approx(truth, rel=0.1)
    assert found.value / 50 == pytest.approx(_singular_energy(300.0), rel=0.03)


def _singular_energy(t):
    """N beta E[L] with B integrated out: over the two singular values of A, whose density has |s1^2 - s2^2|."""
    s = np.exp(np.linspace(-7, math.log(8), 1200))
    one, two = s[:, None] ** 2, s[None] ** 2
    weight = np.sqrt(one * two) * abs(one - two) / ((1 + t * one) * (1 + t * two)) * np.exp(-(one + two) / 2)
    energy = t * one / (1 + t * one) + t * two / (1 + t * two)
    return float((weight * energy).sum() / weight.sum())


def test_batches_follow_another_gradient_and_the_field_judges():
    """Regression in batches of an epoch: lambda of the field is that of full batches, to a few percent."""
    batches = regression(50, independent=False)
    field, best = batches.field()
    options = {"n_beta": 40.0, "gamma": 1.0, "step_size": 0.01, "burn_in": 100, "draws": 1500, "chains": 2}
    found = coefficient(batches, best, field=field, **options)
    a = 40.0 * torch.linalg.eigvalsh(field.hessian) + 1
    assert found.value == pytest.approx(float(((a - 1) / a / (1 - 0.01 * a / 4)).sum() / 2), abs=3 * found.se)
    assert found.diagnostics["source"] == "field"
    assert found.diagnostics["stability"] == pytest.approx(0.01 * float(a.max()), rel=1e-5)


def test_the_loss_is_the_fields_whatever_the_chains_follow():
    """Full batches of another loss drive the chains: the field's rise along them is what is counted."""
    options = {"n_beta": 10.0, "gamma": 1.0, "step_size": 0.03, "burn_in": 10, "draws": 40}
    one, ten = (
        log_volume(
            Quadratic(scale * torch.ones(2, dtype=F64)), zeros(2), method="llc", stochastic=bowl([2.0, 2.0]), **options
        )
        for scale in (1.0, 10.0)
    )
    assert number(ten, "learning_coefficient") == pytest.approx(10 * number(one, "learning_coefficient"))


def test_a_step_that_diverges_is_refused():
    with pytest.raises(ValueError, match=r"step_size 0.1 is unstable: .* it is 10.1, and must be below 4"):
        learning_coefficient(bowl([1.0]), zeros(1), n_beta=100.0, gamma=1.0, step_size=0.1)


def test_a_coarse_step_is_corrected_where_every_batch_is_the_whole_set():
    """Without the correction the value would be twice the true one."""
    found = coefficient(bowl([1.0] * 4), zeros(4), n_beta=99.0, gamma=1.0, step_size=0.02, burn_in=10, draws=2000)
    assert (found.reason, found.diagnostics["step_bias"]) == ("", 0.0)
    assert found.value == pytest.approx(4 * 0.99 / 2, abs=3 * found.se)
    assert 3 * found.se < 0.5


def regression(size, independent=True):
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(200, 3, generator=rng, dtype=F64)
    y = x @ torch.ones(3, dtype=F64) + 0.3 * torch.randn(200, generator=rng, dtype=F64)
    return Examples(x, y, size, independent=independent)


def test_a_coarse_step_on_batches_is_flagged_and_its_bias_is_in_the_error():
    batches = regression(200, independent=False)
    field, best = batches.field()
    a = 40.0 * torch.linalg.eigvalsh(field.hessian) + 1
    eta = 1.6 / float(a.max())
    options = {"n_beta": 40.0, "gamma": 1.0, "burn_in": 100, "draws": 800}
    found = coefficient(batches, best, field=field, step_size=eta, **options)
    assert found.reason == "step size: the steepest variance is 67% too large"
    bias = float(((a - 1) / a * eta * a / 4 / (1 - eta * a / 4)).sum() / 2)
    assert found.diagnostics["step_bias"] == pytest.approx(bias, rel=0.1)
    assert abs(found.value - float(((a - 1) / a).sum() / 2)) < 2 * found.se


def test_the_noise_of_small_batches_is_in_the_error():
    """Batches of two heat the chain: the value is far above the law's, and the error says so."""
    batches = regression(2)
    field, best = batches.field()
    a = 40.0 * torch.linalg.eigvalsh(field.hessian) + 1
    options = {"n_beta": 40.0, "gamma": 1.0, "burn_in": 100, "draws": 800, "step_size": 0.01}
    found = coefficient(batches, best, field=field, **options)
    truth = float(((a - 1) / a).sum() / 2)
    step_alone = float(((a - 1) / a / (1 - 0.01 * a / 4)).sum() / 2)
    assert found.value - step_alone > 0.1 * truth
    assert abs(found.value - truth) < 2 * found.se


def test_chains_that_have_not_mixed_are_flagged():
    found = coefficient(bowl(spread(-3, 0, 10)), zeros(10), n_beta=1e4, gamma=1.0, step_size=1e-5, burn_in=0, draws=60)
    assert "chains have not mixed: split R-hat" in found.reason
    assert "effective sample size" in found.reason
    assert found.r_hat > 1.05


def test_losses_below_the_start_are_flagged():
    found = coefficient(
        bowl([1.0, 1.0]), torch.full((2,), 3.0, dtype=F64), n_beta=50.0, gamma=1.0, step_size=4e-3, draws=100
    )
    assert found.value < 0
    assert "negative: the chains find losses below the start's" in found.reason


def test_as_a_volume_it_is_none():
    options = {"n_beta": 50.0, "gamma": 1.0, "step_size": 4e-3, "burn_in": 4, "draws": 12}
    found = log_volume(Quadratic(torch.ones(2, dtype=F64)), zeros(2), method="llc", **options)
    assert math.isnan(found.log_volume)
    assert math.isnan(found.effective_radius)
    assert found.reason.startswith("a scaling exponent (V ~ eps^lambda as eps -> 0) and not a volume")
    assert {"learning_coefficient", "se", "r_hat", "ess", "measure", "assumes"} <= set(found.diagnostics)


# --- The partition function.


def laplace(h, examples, gamma):
    """-1/2 sum log(1 + N h / gamma), the partition function of a quadratic."""
    return -0.5 * float(np.log1p(examples * np.asarray(h) / gamma).sum())


def partition(h, draws, **options):
    with unchecked():
        return log_volume(
            Quadratic(torch.as_tensor(h, dtype=F64)),
            zeros(len(h)),
            method="thermodynamic",
            stochastic=EveryExample(Quadratic(torch.as_tensor(h, dtype=F64)))
            if options.pop("slow", False)
            else bowl(h),
            draws=draws,
            **options,
        )


def test_thermodynamic_integration_whatever_the_step():
    """-1/2 sum log(1 + N h / gamma) within 3 standard errors, where an uncorrected step would be 7% off."""
    h = np.array(spread(-0.6, 0, 100))
    options = {"examples": 50, "gamma": 2.0, "stability": 0.4, "rungs": 6, "burn_in": 60, "chains": 2}
    found = partition(h, 500, **options)
    truth = laplace(h, 50, 2.0)
    assert abs(found.log_volume - truth) < 3 * found.se
    assert found.se < 0.02 * abs(truth)
    assert number(found, "ladder_error") < 0.01
    assert "normalised" in str(found.diagnostics["measure"])


@pytest.mark.full
def test_thermodynamic_integration_within_one_percent():
    h = np.array(spread(-0.4, 0, 100))
    found = partition(h, 12_000, examples=100, gamma=2.0, stability=0.02, rungs=4, burn_in=600)
    truth = laplace(h, 100, 2.0)
    assert found.log_volume == pytest.approx(truth, rel=0.01)
    assert abs(found.log_volume - truth) < 3 * found.se
    assert found.reason == ""


def test_its_radius_is_that_of_the_damped_ellipsoid():
    """At the height 1 / 2N with the damping gamma / N, both are the geometric mean of (N h + gamma)^(-1/2)."""
    h, n, gamma = torch.tensor(spread(-0.3, 0, 20), dtype=F64), 30, 3.0
    model = log_volume(Quadratic(h), zeros(20), method="logdet", eps=1 / (2 * n), damping=gamma / n)
    found = partition(h.numpy(), 400, examples=n, gamma=gamma, stability=0.2, rungs=5, burn_in=50, chains=2)
    assert model.effective_radius == pytest.approx(float((n * h + gamma).log().mean().mul(-0.5).exp()))
    assert found.effective_radius == pytest.approx(model.effective_radius, rel=4 * found.se / 20 + 0.02)


def ladder_error(betas, weights, steepest):
    """The largest error in nats over all directions up to the steepest."""
    return np.abs(ladder_errors(betas, weights, np.logspace(-6, 0, 200) * steepest)).max()


@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e5])
def test_the_ladder_integrates_every_spectrum(kappa):
    """Up to kappa: eight rungs are within 0.01 nats in a direction, and what they miss is said."""
    betas, weights = ladder(8, kappa)
    assert all(0 < b < 1 for b in betas)
    for share in (1e-6, 1e-3, 0.1, 0.5, 1.0):
        k = share * kappa
        found = sum(w * k / (2 * (1 + b * k)) for b, w in zip(betas, weights, strict=True))
        assert abs(found - math.log1p(k) / 2) <= ladder_error(betas, weights, kappa) + 1e-12
    assert ladder_error(betas, weights, kappa) < 0.01


def test_even_rungs_would_miss_most_of_it():
    """The trap: nearly all of the integral lies near beta = 0."""
    even = [(i + 0.5) / 8 for i in range(8)]
    assert ladder_error(even, [1 / 8] * 8, 1e4) > 1.0


def test_too_few_rungs_are_flagged():
    found = partition(np.array(spread(-4, 0, 40)), 60, examples=10_000, gamma=1.0, rungs=1, burn_in=10)
    assert "1 rungs have an error of up to" in found.reason


def test_rungs_that_have_not_mixed_are_flagged():
    found = partition(np.array(spread(-2, 0, 10)), 40, examples=100, gamma=1.0, rungs=2, burn_in=0)
    assert "2 of 2 rungs, the worst:" in found.reason


def test_the_number_of_examples_is_the_fields():
    """N is that of the data, and not of a batch of 20."""
    case = named("perceptron")
    options = {"gamma": 1e4, "rungs": 1, "burn_in": 0, "draws": 4, "chains": 1}
    found = log_volume(case.field(), case.point, method="thermodynamic", **options)
    assert found.diagnostics["examples"] == case.examples == 37


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma must be positive and finite, got 0.0"),
        ({"stability": 4.0}, "stability is step size times steepest curvature, between 0 and 4, got 4.0"),
        ({"rungs": 0}, "rungs must be at least 1, got 0"),
        ({"chains": 0}, "chains must be at least 1, got 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        log_volume(Quadratic(torch.ones(2, dtype=F64)), zeros(2), method="thermodynamic", **({"gamma": 1.0} | options))
