"""The volume of the whole damped quadratic model: determinants, gradients, damping, and what is said of them."""

from __future__ import annotations

import math

import pytest
import torch
from sampled import unchecked

from cases import QUADRATICS, named, spread
from sublevel.field import Quadratic
from sublevel.geometry.curvature.operators import Likelihood
from sublevel.geometry.volume import ellipsoid, log_unit_ball, log_volume
from sublevel.risk import EmpiricalRisk

F64 = torch.float64
POSITIVE = [s for s in QUADRATICS if min(s.values) > 0]


def closed(values, eps, damping=0.0):
    return log_unit_ball(len(values)) + sum(0.5 * math.log(2 * eps / (v + damping)) for v in values)


def volume(hessian, theta=None, **options):
    theta = torch.zeros(hessian.shape[-1], dtype=F64) if theta is None else theta
    return log_volume(Quadratic(hessian), theta, method="logdet", **options)


@pytest.mark.parametrize("spec", POSITIVE, ids=str)
def test_without_damping_it_is_the_ellipsoid(spec):
    found = volume(spec.hessian, eps=0.3, damping=0.0, steps=400)
    assert found.log_volume == pytest.approx(closed(spec.values, 0.3), abs=1e-7)
    assert (found.n, found.se, found.reason) == (len(spec.values), 0.0, "")


@pytest.mark.parametrize("spec", QUADRATICS, ids=str)
def test_damping_is_added_to_what_is_clipped_at_zero(spec):
    found = volume(spec.hessian, eps=0.3, damping=1e-2, steps=400)
    assert found.log_volume == pytest.approx(closed([max(v, 0.0) for v in spec.values], 0.3, 1e-2), abs=1e-6)
    negative = sum(v < -1e-9 for v in spec.values) / len(spec.values)
    assert found.diagnostics["clipped_mass"] == pytest.approx(negative)
    assert ("negative eigenvalues" in found.reason) == (negative > 0)


def test_quadrature_covers_the_closed_form():
    """Ten probes of a third of the dimension's steps: t intervals at 9 degrees of freedom, over seeds."""
    values, inside = spread(-1, 1, 120), 0
    for seed in range(25):
        with unchecked():
            found = volume(torch.tensor(values, dtype=F64), eps=0.1, damping=1e-3, steps=40, seed=seed)
        inside += abs(found.log_volume - closed(values, 0.1, 1e-3)) <= 2.262 * found.se
        assert 0.5 < found.se < 10
    assert inside >= 21  # 23.75 of 25 on average


def test_too_few_steps_for_the_damping_are_said():
    values = torch.tensor(spread(-9, 1, 1500), dtype=F64)
    short = volume(values, damping=1e-9, steps=10, probes=4)
    assert "quadrature" in short.reason
    assert volume(values, damping=1.0, steps=30, probes=4).reason == ""


def test_the_damping_decides_the_answer():
    """It must be given, and is repeated: at a spectrum with a bulk at 0 every decade is worth over a thousand nats."""
    values = torch.cat([torch.logspace(-6, -3, 2950, dtype=F64), torch.logspace(-2, 1, 50, dtype=F64)])
    one, two = (volume(values, damping=d, steps=40, probes=2) for d in (1e-1, 1e-3))
    assert two.log_volume - one.log_volume > 2000
    assert (one.diagnostics["damping"], two.diagnostics["damping"]) == (1e-1, 1e-3)
    assert "0.001" in two.diagnostics["assumes"]


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_shifted_quadratic_is_completed_to_the_square(damping):
    """Exact with the damping in the model: g^T (H + damping)^-1 g / 2 is added to eps."""
    spec = next(s for s in POSITIVE if s.name == "six-decades")
    n, h = len(spec.values), spec.hessian
    d = 0.05 * torch.randn(n, dtype=F64)
    g = h @ d
    depth = float(g @ torch.linalg.solve(h + damping * torch.eye(n, dtype=F64), g)) / 2
    found = volume(h, d, eps=0.2, damping=damping, steps=400)
    assert found.diagnostics["nonstationarity"] == pytest.approx(depth, rel=1e-6)
    assert found.log_volume == pytest.approx(closed(spec.values, 0.2 + depth, damping), abs=1e-5)


def test_the_gradients_term_is_that_of_conjugate_gradients():
    """Twelve steps: the same number as CG gives after twelve, below the solution by what is said."""
    values = torch.tensor(spread(-2, 1, 200), dtype=F64)
    theta = torch.randn(200, dtype=F64)
    g = values * theta
    x, r = torch.zeros_like(g), g.clone()
    p = r.clone()
    for _ in range(12):
        ap = values * p + 1e-3 * p
        step = (r @ r) / (p @ ap)
        x, new = x + step * p, r - step * ap
        p, r = new + (new @ new) / (r @ r) * p, new
    found = volume(values, theta, eps=10.0, damping=1e-3, steps=12)
    truth = float((g**2 / (values + 1e-3)).sum() / 2)
    assert found.diagnostics["nonstationarity"] == pytest.approx(float(g @ x) / 2, rel=1e-9)
    missed = truth - found.diagnostics["nonstationarity"]
    assert 0 < missed <= found.diagnostics["nonstationarity_error"]
    assert "take more steps" in found.reason


def test_a_point_that_is_no_minimum_is_flagged():
    near = volume(torch.tensor([2.0, 1.0], dtype=F64), torch.tensor([0.1, 0.1], dtype=F64), eps=0.1, damping=0.0)
    far = volume(torch.tensor([2.0, 1.0], dtype=F64), torch.tensor([1.0, 1.0], dtype=F64), eps=0.1, damping=0.0)
    assert (near.reason, near.diagnostics["stationary"]) == ("", True)
    assert "not stationary: 1/2 g^T H^-1 g = 1.5 exceeds eps" in far.reason
    assert far.diagnostics["stationary"] is False
    assert math.isfinite(far.log_volume)


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_without_damping_a_flat_direction_has_no_volume(lowest):
    found = volume(torch.tensor([3.0, 1.0, lowest], dtype=F64), damping=0.0)
    assert math.isnan(found.log_volume)
    assert "lowest Ritz value" in found.reason
    assert found.diagnostics["measure"] == "Lebesgue"


def test_a_network_against_its_dense_hessian():
    case, mask = named("perceptron"), named("perceptron").masks()["random"]
    field, index = case.field(), mask.nonzero().squeeze(1)
    h = field.hvp(case.point, torch.eye(case.space.dim, dtype=F64))[index][:, index]
    g = field.grad(case.point)[index]
    values, vectors = torch.linalg.eigh((h + h.T) / 2)
    damped = values.clamp_min(0) + 0.1
    depth = float((vectors.T @ g).square() @ (1 / damped)) / 2
    truth = ellipsoid(sorted(damped.tolist(), reverse=True), [0.0] * len(index), eps=0.05 + depth).log_volume
    found = log_volume(field, case.point, method="logdet", eps=0.05, damping=0.1, mask=mask, steps=500)
    assert found.log_volume == pytest.approx(truth, abs=1e-8)
    assert found.n == len(index)


@pytest.mark.skipif(not issubclass(EmpiricalRisk, Likelihood), reason="no field has Gauss-Newton products")
def test_a_gauss_newton_matrix_clips_nothing():
    case = named("perceptron")
    found = log_volume(case.field(), case.point, method="logdet", eps=10.0, damping=0.1, operator="ggn", steps=500)
    assert "negative" not in found.reason
    assert found.diagnostics["clipped_mass"] == 0
    assert "ggn" in found.diagnostics["assumes"]


@pytest.mark.parametrize("damping", [-1.0, math.nan, math.inf])
def test_an_impossible_damping_is_refused(damping):
    with pytest.raises(ValueError, match="damping must be finite and not negative"):
        volume(torch.ones(2, dtype=F64), damping=damping)
