"""Volumes of ellipsoids against closed forms, and what is said where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled import unchecked

from cases import QUADRATICS, named, spread
from sublevel.errors import ConfigError
from sublevel.field import EveryExample, Quadratic
from sublevel.geometry.volume import METHODS, ellipsoid, log_unit_ball, log_volume

F64 = torch.float64
POSITIVE = [s for s in QUADRATICS if min(s.values) > 0]


@pytest.mark.parametrize(("n", "volume"), [(0, 1), (1, 2), (2, math.pi), (3, 4 * math.pi / 3), (4, math.pi**2 / 2)])
def test_unit_balls(n, volume):
    assert log_unit_ball(n) == pytest.approx(math.log(volume), abs=1e-14)


@given(st.integers(2, 200_000))
def test_unit_balls_by_recursion(n):
    """omega_n = omega_(n-2) 2 pi / n."""
    step = math.log(2 * math.pi / n)
    assert log_unit_ball(n) - log_unit_ball(n - 2) == pytest.approx(step, abs=1e-8 * n)


@pytest.mark.parametrize("eps", [1e-3, 0.1, 5.0])
@pytest.mark.parametrize("spec", POSITIVE, ids=str)
def test_the_whole_ellipsoid(spec, eps):
    """k = n: omega_n times the product of the half axes sqrt(2 eps / lambda)."""
    n = len(spec.values)
    field = Quadratic(spec.hessian)
    found = log_volume(field, torch.zeros(n, dtype=F64), eps=eps, k=n, steps=400)
    truth = log_unit_ball(n) + sum(0.5 * math.log(2 * eps / value) for value in spec.values)
    assert found.log_volume == pytest.approx(truth, abs=1e-4 if spec.name == "six-decades" else 1e-6)
    assert (found.n, found.se) == (n, 0.0)
    assert found.reason == ""
    assert found.effective_radius == pytest.approx(math.exp((truth - log_unit_ball(n)) / n), rel=1e-6)


def test_against_the_count_of_points_on_a_grid():
    values, eps = torch.tensor([2.0, 0.5], dtype=F64), 0.3
    found = log_volume(Quadratic(values), torch.zeros(2, dtype=F64), eps=eps, k=2)
    h = 0.002
    grid = torch.arange(-1.5, 1.5, h, dtype=F64)
    inside = (0.5 * (values[0] * grid[:, None] ** 2 + values[1] * grid[None] ** 2) <= eps).sum()
    assert math.exp(found.log_volume) == pytest.approx(float(inside) * h * h, rel=1e-3)


def test_a_section_of_the_k_steepest():
    field = Quadratic(torch.tensor([8.0, 4.0, 2.0, 1e-3, -1.0], dtype=F64))
    found = log_volume(field, torch.zeros(5, dtype=F64), eps=0.1, k=3)
    truth = log_unit_ball(3) + 1.5 * math.log(0.2) - 0.5 * math.log(64)
    assert found.log_volume == pytest.approx(truth)
    assert found.n == 3


@pytest.mark.parametrize("lowest", [-1.0, 0.0])
def test_undefined_where_the_last_eigenvalue_is_not_positive(lowest):
    field = Quadratic(torch.tensor([3.0, 1.0, lowest], dtype=F64))
    found = log_volume(field, torch.zeros(3, dtype=F64), k=3)
    assert math.isnan(found.log_volume)
    assert math.isnan(found.effective_radius)
    assert "eigenvalue 3" in found.reason
    assert "not positive" in found.reason
    assert not math.isnan(log_volume(field, torch.zeros(3, dtype=F64), k=2).log_volume)


@pytest.mark.parametrize("seed", range(6))
def test_the_rounding_of_a_zero_is_not_a_dimension(seed):
    """A rank-deficient Hessian has values of +-1e-17: their sign is not known and their logarithm means nothing."""
    rng = torch.Generator().manual_seed(seed)
    factor = torch.randn(12, 3, generator=rng, dtype=F64)
    found = log_volume(Quadratic(factor @ factor.T), torch.zeros(12, dtype=F64), k=5)
    assert math.isnan(found.log_volume)
    assert "eigenvalue 5" in found.reason


def test_a_step_off_the_minimum_is_completed_to_the_square():
    """At theta* + d the quadratic's minimum lies 1/2 d^T H d deeper: the set is the larger ellipsoid, exactly."""
    h = next(s for s in POSITIVE if s.name == "six-decades").hessian
    n, eps = len(h), 0.2
    d = 0.05 * torch.randn(n, dtype=F64)
    depth = float(0.5 * d @ h @ d)
    found = log_volume(Quadratic(h), d, eps=eps, k=n, steps=400)
    at_minimum = log_volume(Quadratic(h), 0 * d, eps=eps + depth, k=n, steps=400)
    assert found.diagnostics["nonstationarity"] == pytest.approx(depth, rel=1e-6)
    assert found.log_volume == pytest.approx(at_minimum.log_volume, abs=1e-6)
    assert found.eps == eps


def test_a_slope_moves_the_minimum_as_a_shift_does():
    h, g = torch.tensor([4.0, 1.0], dtype=F64), torch.tensor([0.8, -0.3], dtype=F64)
    found = log_volume(Quadratic(h, slope=g), torch.zeros(2, dtype=F64), eps=0.1, k=2)
    assert found.diagnostics["nonstationarity"] == pytest.approx(float((g**2 / h).sum() / 2))


def test_a_point_that_is_no_minimum_is_flagged():
    h = torch.tensor([2.0, 1.0], dtype=F64)
    near = log_volume(Quadratic(h), torch.tensor([0.1, 0.1], dtype=F64), eps=0.1, k=2)
    far = log_volume(Quadratic(h), torch.tensor([1.0, 1.0], dtype=F64), eps=0.1, k=2)
    assert near.reason == ""
    assert near.diagnostics["stationary"] is True
    assert "not stationary" in far.reason
    assert "1.5" in far.reason
    assert far.diagnostics["stationary"] is False
    assert not math.isnan(far.log_volume)


def test_only_the_gradient_in_the_subspace_counts():
    h, theta = torch.tensor([2.0, 1.0, 4.0], dtype=F64), torch.tensor([0.1, 5.0, 0.0], dtype=F64)
    mask = torch.tensor([True, False, True])
    found = log_volume(Quadratic(h), theta, eps=0.1, k=2, mask=mask)
    assert found.diagnostics["nonstationarity"] == pytest.approx(0.01)


@given(st.floats(0.1, 10), st.floats(1e-3, 10), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_scaling(scale, eps, values):
    """theta -> s theta divides lambda by s^2 and multiplies V by s^k; d log V / d log eps = k / 2."""
    values = sorted(values, reverse=True)
    k, flat = len(values), [0.0] * len(values)
    one = ellipsoid(values, flat, eps=eps)
    stretched = ellipsoid([v / scale**2 for v in values], flat, eps=eps)
    higher = ellipsoid(values, flat, eps=eps * math.e)
    assert stretched.log_volume - one.log_volume == pytest.approx(k * math.log(scale), abs=1e-9)
    assert stretched.effective_radius == pytest.approx(scale * one.effective_radius)
    assert higher.log_volume - one.log_volume == pytest.approx(k / 2)


def test_masking_cannot_shrink_a_top_k_volume():
    case = named("perceptron")
    mask = case.masks()["random"]
    whole = log_volume(case.field(), case.point, k=3, eps=1e6)
    inside = log_volume(case.field(), case.point, k=3, eps=1e6, mask=mask)
    assert inside.log_volume >= whole.log_volume - 1e-3


def test_a_hundred_thousand_dimensions():
    n = 100_000
    values = np.logspace(3, -6, n).tolist()
    found = ellipsoid(values, [0.0] * n, eps=1e-3)
    assert math.isfinite(found.log_volume)
    truth = log_unit_ball(n) + n / 2 * math.log(2e-3) - 0.5 * math.fsum(map(math.log, values))
    assert found.log_volume == pytest.approx(truth, rel=1e-9)
    assert found.effective_radius == pytest.approx(math.sqrt(2e-3 / 10**-1.5), rel=1e-6)


@pytest.mark.parametrize("value", [1e-300, 1e-30, 1e30, 1e300])
def test_extreme_curvatures(value):
    found = ellipsoid([value] * 5, [0.0] * 5, eps=0.1)
    assert found.effective_radius == pytest.approx(math.sqrt(0.2 / value))


def test_eigenvalues_that_did_not_converge_are_said():
    field = Quadratic(torch.tensor(spread(-3, 1, 300), dtype=F64))
    assert "not converged" in log_volume(field, torch.zeros(300, dtype=F64), k=10, steps=15).reason


def test_more_pairs_than_dimensions_are_refused():
    with pytest.raises(ValueError, match="k = 10 in a subspace of dimension 2"):
        log_volume(Quadratic(torch.tensor([2.0, 1.0], dtype=F64)), torch.zeros(2, dtype=F64), k=10)


def test_what_is_refused():
    field, theta = Quadratic(torch.ones(2, dtype=F64)), torch.zeros(2, dtype=F64)
    with pytest.raises(ConfigError, match="unknown volume estimator 'topk'; did you mean 'top-k'"):
        log_volume(field, theta, method="topk")
    for eps in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be positive"):
            log_volume(field, theta, eps=eps)


def test_options_are_those_of_the_estimator():
    field, theta = Quadratic(torch.ones(2, dtype=F64)), torch.zeros(2, dtype=F64)
    with pytest.raises(
        ConfigError, match=r"unknown option 'radios' \(volume estimator 'radial'\); did you mean 'radius'"
    ):
        log_volume(field, theta, method="radial", radios=1.0)
    with pytest.raises(ConfigError, match="'logdet' needs the option 'damping': the answer depends on it"):
        log_volume(field, theta, method="logdet")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_changes_from_call_to_call_is_refused(method):
    stochastic = EveryExample(Quadratic(torch.ones(2, dtype=F64)))
    with unchecked(), pytest.raises(TypeError, match=r"needs a field .* got EveryExample: its value changes from call"):
        log_volume(stochastic, torch.zeros(2, dtype=F64), method=method)


DISC = math.log(math.pi / 4)
CHAINS = {"gamma": 1.0, "burn_in": 30, "draws": 250, "seed": 3}
ROWS = {
    "top-k": ({"k": 2}, DISC, 0.5),
    "logdet": ({"damping": 0.0}, DISC, 0.5),
    "radial": ({"radius": 10.0, "samples": 60}, DISC, 0.5),
    "importance": ({"radius": 10.0, "samples": 60, "k": 1}, DISC, 0.5),
    # -1/2 sum log(1 + N h / gamma) with N = 1 / 2 eps, and the posterior's width (N + gamma)^(-1/2)
    "thermodynamic": ({"examples": 4, "rungs": 3, "stability": 0.3, **CHAINS}, -math.log(5), 5**-0.5),
    "llc": ({"n_beta": 50.0, "step_size": 4e-3, **CHAINS}, math.nan, math.nan),
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_estimator_knows_an_isotropic_disc(method):
    """A new estimator is one row and must pass here: pi r^2 with r = sqrt(2 eps), or what it gives instead."""
    options, log_v, radius = ROWS[method]
    field, theta = Quadratic(torch.ones(2, dtype=F64)), torch.zeros(2, dtype=F64)
    with unchecked():
        found = log_volume(field, theta, method=method, eps=0.125, **options)
    assert (found.n, found.eps) == (2, 0.125)
    near = 5e-3 if math.isnan(found.se) else max(4 * found.se, 5e-3)
    assert found.log_volume == pytest.approx(log_v, abs=near, nan_ok=True)
    assert found.effective_radius == pytest.approx(radius, abs=near, nan_ok=True)
    assert math.isfinite(found.log_volume) == (found.reason == "")
    assert found.diagnostics["measure"]
    assert found.diagnostics["assumes"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_estimator_lives_in_the_masks_subspace(method):
    """The disc again, beside a coordinate that the mask removes and at which the loss is as steep as can be."""
    options, log_v, _ = ROWS[method]
    field = Quadratic(torch.tensor([1.0, 1e9, 1.0], dtype=F64))
    theta, mask = torch.zeros(3, dtype=F64), torch.tensor([True, False, True])
    with unchecked():
        found = log_volume(field, theta, method=method, eps=0.125, mask=mask, **options)
    assert found.n == 2
    near = 5e-3 if math.isnan(found.se) else max(4 * found.se, 5e-3)
    assert found.log_volume == pytest.approx(log_v, abs=near, nan_ok=True)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_estimator_refuses_a_mask_of_another_length(method):
    field, theta = Quadratic(torch.ones(3, dtype=F64)), torch.zeros(3, dtype=F64)
    with pytest.raises(ValueError, match="a mask of length 2 does not fit a point of dimension 3"):
        log_volume(field, theta, method=method, mask=torch.tensor([True, False]), **ROWS[method][0])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_estimator_draws_the_same_twice_and_another_with_another_seed(method):
    field, theta = Quadratic(torch.tensor([3.0, 1.0, 0.5], dtype=F64)), torch.zeros(3, dtype=F64)
    short = {"draws": 20, "burn_in": 2, "chains": 1, "samples": 5}
    short |= {"steps": 2} if method == "logdet" else {}
    options = {k: v for k, v in (ROWS[method][0] | short).items() if k in METHODS[method].takes}
    ask = lambda seed: log_volume(field, theta, method=method, **options | {"seed": seed})  # noqa: E731
    value = lambda v: v.diagnostics.get("learning_coefficient", v.log_volume)  # noqa: E731
    assert value(ask(1)) == value(ask(1))
    if method != "top-k":
        assert value(ask(1)) != value(ask(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [4, 400])
@pytest.mark.parametrize("lowest", [-3.0, -1e-3])
def test_a_saddle_is_a_reason_wherever_its_negative_eigenvalue_lies(lowest, n, dtype):
    h = torch.cat([torch.tensor([4.0, 2.0, 1.0, lowest]), torch.linspace(0.1, 0.5, n - 4)]).to(dtype)
    found = log_volume(Quadratic(h), torch.zeros_like(h), method="top-k", k=3, eps=0.1)
    assert found.log_volume == pytest.approx(log_unit_ball(3) + 1.5 * math.log(0.2) - 0.5 * math.log(8), abs=1e-4)
    assert found.reason.startswith("a saddle: 1 negative eigenvalue or more, the lowest -")
    assert float(found.reason.split()[-1]) == pytest.approx(lowest, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_minimum_is_no_saddle_by_rounding(dtype):
    """Half of the spectrum is 0: rounding makes many of those Ritz values negative."""
    rng = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(300, 300, generator=rng, dtype=torch.float64))[0]
    values = torch.cat([torch.tensor([4.0, 2.0, 1.0]), torch.logspace(-6, -1, 147), torch.zeros(150)]).double()
    h = ((q * values) @ q.T).to(dtype)
    found = log_volume(Quadratic((h + h.T) / 2), torch.zeros(300, dtype=dtype), method="top-k", k=3, eps=0.1)
    assert found.reason == ""
