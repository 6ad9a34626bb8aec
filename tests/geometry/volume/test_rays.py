"""Volumes by rays: exits, collapse, preconditioning, and intervals that hold."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from sampled import unchecked
from scipy import stats

from cases import named, spread
from sublevel.errors import ConfigError
from sublevel.field import Autograd, Quadratic
from sublevel.geometry.volume import log_unit_ball, log_volume
from sublevel.geometry.volume.preconditioners import CurvatureSource, Preconditioner, preconditioner_of
from sublevel.geometry.volume.ray_exits import first_exit
from sublevel.geometry.volume.rays import AMPLE, TIGHT, Rays, RaySearch, mean_weight

F64 = torch.float64


def closed(values, eps):
    return log_unit_ball(len(values)) + sum(0.5 * math.log(2 * eps / v) for v in values)


def zeros(n):
    return torch.zeros(n, dtype=F64)


# --- The exit of one ray.

EXITS = {
    "power": (lambda t: t**2 / 9, 3.0),
    "quartic": (lambda t: (t / 0.2) ** 4, 0.2),
    "linear with a dip": (lambda t: t * t - 2 * t, 1 + math.sqrt(2)),
    "exponential": (lambda t: math.expm1(min(5 * t, 700.0)), math.log(2) / 5),
    "step": (lambda t: 0.0 if t <= 0.7 else 9.0, 0.7),
    "infinite wall": (lambda t: 0.1 if t <= 0.7 else math.inf, 0.7),
    "flat, then steep": (lambda t: 1e-9 * t if t < 5 else 1e9 * (t - 5) + 5e-9, 5 + 1e-9),
    "falling first": (lambda t: -math.sin(t) + t * t, 1.4096240040025963),
}


@pytest.mark.parametrize("guess", [1e-6, 1.0, math.inf])
@pytest.mark.parametrize("name", EXITS)
def test_the_exit_is_found_to_its_tolerance(name, guess):
    rise, truth = EXITS[name]
    found = first_exit(rise, cap=1e3, guess=guess, growth=1.25, tolerance=1e-6)
    assert found.log_radius == pytest.approx(math.log(truth), abs=1e-6)
    assert not found.capped


def test_powers_cost_a_few_evaluations_however_tight():
    exits = [first_exit(lambda t: t * t, cap=10.0, guess=1.1, growth=1.25, tolerance=tol) for tol in (1e-3, 1e-12)]
    assert all(e.evaluations <= 16 for e in exits), "four of them look for walls nearer by"
    assert exits[1].log_radius == pytest.approx(0.0, abs=1e-12)


def test_it_is_the_first_exit_and_not_the_last():
    """A wall from 1 to 1.5, and low ground behind it: bisection from the far end would land beyond."""
    wall = lambda t: 5.0 if 1 <= t <= 1.5 or t > 8 else 0.5  # noqa: E731
    assert first_exit(wall, cap=100.0, guess=3.0, growth=1.25, tolerance=1e-6).log_radius == pytest.approx(
        0.0, abs=1e-6
    )


def test_a_ray_that_never_leaves_ends_at_the_cap():
    found = first_exit(lambda t: 0.5, cap=7.0, guess=1.0, growth=1.25, tolerance=1e-6)
    assert (found.log_radius, found.capped) == (math.log(7.0), True)


def test_what_is_not_a_number_is_no_exit():
    """Far outside it is an overflow, and does no harm; at the exit it decides nothing."""
    overflow = lambda t: math.nan if t > 2 else t  # noqa: E731
    found = first_exit(overflow, cap=1e6, guess=math.inf, growth=1.25, tolerance=1e-6)
    assert found.log_radius == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(FloatingPointError, match=r"not a number from 0.5 on along a ray"):
        first_exit(lambda t: math.nan if t > 0.5 else t, cap=10.0, guess=1.0, growth=1.25, tolerance=1e-6)


def test_every_exit_is_that_of_the_quadratic():
    """r(u) = sqrt(2 eps / (P u)^T H (P u)) for the very directions that were drawn: n log r to 0.01."""
    h, scales = torch.tensor(spread(-1, 1, 40), dtype=F64), torch.tensor(spread(0.5, -0.5, 40), dtype=F64)
    rays = _rays(Quadratic(h), 40, preconditioner_of(scales, _curvature(h)), samples=20)
    for i, found in enumerate(rays.exits(0.1)):
        u = rays.of.draw(0, i, stream="probe:ray")
        v = rays.precondition(u / u.norm())
        assert 40 * abs(found.log_radius - 0.5 * math.log(0.2 / float(h @ v**2))) < TIGHT


def _rays(field, n, precondition, samples):
    search = RaySearch(radius=1e4, samples=samples, failure=0.05, growth=1.25, seed=0)
    return Rays.around(field, zeros(n), None, search, lambda of: precondition)


def _curvature(h, **options):
    defaults = {"mask": None, "operator": "hessian", "probes": 4, "k": 5, "floor": 1e-3, "seed": 0}
    return CurvatureSource(Quadratic(h), zeros(h.shape[-1]), **(defaults | options))


# --- Round rays.


def test_a_round_basin_needs_one_ray():
    found = log_volume(Quadratic(torch.full((50,), 3.0, dtype=F64)), zeros(50), method="radial", radius=9.0, samples=1)
    assert found.log_volume == pytest.approx(closed([3.0] * 50, 0.1), abs=TIGHT)
    assert math.isnan(found.se)


@pytest.mark.parametrize("method", ["radial", "importance"])
def test_a_loose_exit_would_cost_a_thousand_nats(method):
    """At D = 270,000 a tolerance of 1e-2 on the loss is n/2 * 1e-2 = 1,350 nats; ours is 0.01."""
    n = 270_000
    options = {"radius": 1e6, "samples": 2} | (
        {"preconditioner": "diagonal", "probes": 1} if method != "radial" else {}
    )
    found = log_volume(Quadratic(torch.full((n,), 0.01, dtype=F64)), zeros(n), method=method, **options)
    truth = log_unit_ball(n) + n / 2 * math.log(0.2 / 0.01)
    assert found.log_volume == pytest.approx(truth, abs=0.011)


def test_an_ellipse_within_its_error():
    field = Quadratic(torch.tensor([2.0, 0.5], dtype=F64))
    with unchecked():
        found = log_volume(field, zeros(2), method="radial", radius=10.0, samples=200)
    assert abs(found.log_volume - closed([2.0, 0.5], 0.1)) < 3 * found.se < 0.25
    assert found.reason == ""
    assert found.diagnostics["ess"] > 100


def test_rays_from_off_the_centre_see_the_same_ellipse():
    """Its height is eps + 1/2 g^T H^-1 g above the minimum, as with every other estimator."""
    h, theta = torch.tensor([2.0, 0.5], dtype=F64), torch.tensor([0.1, -0.3], dtype=F64)
    depth = float(h @ theta**2) / 2
    with unchecked():
        found = log_volume(Quadratic(h), theta, method="radial", radius=10.0, samples=200)
    assert abs(found.log_volume - closed([2.0, 0.5], 0.1 + depth)) < 3 * found.se < 0.25


@pytest.mark.parametrize("method", ["radial", "importance"])
def test_the_ball_cuts_what_is_longer(method):
    """The ellipse x^2 + y^2 / 100 <= 1 in a disc of radius 2, against points on a grid; both methods mean one set."""
    h, radius = torch.tensor([2.0, 0.02], dtype=F64), 2.0
    x = np.arange(-2, 2, 0.002)
    inside = (x[:, None] ** 2 + x**2 / 100 <= 1) & (x[:, None] ** 2 + x**2 <= radius**2)
    options = {"k": 2, "floor": 1e-6} if method == "importance" else {}
    with unchecked():
        found = log_volume(Quadratic(h), zeros(2), method=method, eps=1.0, radius=radius, samples=250, **options)
    truth = math.log(inside.sum() * 0.002**2)
    assert abs(found.log_volume - truth) < 3 * found.se < 1
    assert 0.05 < found.diagnostics["capped"] < 0.99
    assert f"{found.diagnostics['capped']:.2%} of the rays reach the radius 2" in found.reason
    assert found.diagnostics["log_share"] == pytest.approx(found.log_volume - math.log(4 * math.pi))
    assert "within the ball of radius 2" in found.diagnostics["measure"]


def test_a_loss_without_walls_fills_the_ball():
    found = log_volume(Autograd(lambda w: 0 * w.sum(), 3), zeros(3), method="radial", radius=2.0, samples=10)
    assert found.log_volume == pytest.approx(math.log(4 / 3 * math.pi * 8))
    assert found.diagnostics["log_share"] == pytest.approx(0.0, abs=1e-12)
    assert "100.00% of the rays" in found.reason


def test_anisotropy_collapses_the_mean_and_is_said():
    """Three decades at n = 100, 400 rays: tens of nats too low. Flagged, a lower bound, and within its error."""
    values = spread(-3, 0, 100)
    with unchecked():
        found = log_volume(
            Quadratic(torch.tensor(values, dtype=F64)), zeros(100), method="radial", radius=1e4, samples=400
        )
    short = closed(values, 0.1) - found.log_volume
    assert 30 < short < 70
    assert "effective sample size" in found.reason
    assert found.diagnostics["ess"] < 1
    assert found.diagnostics["delta_se"] < 1.1  # what the sample itself believes
    assert short < 2 * found.se
    assert found.diagnostics["lower_bound"] == pytest.approx(found.log_volume - math.log(20))


# --- The statistics, over exact radii of a mis-specified P.


@cache
def log_weights(n, variance, draws, seeds):
    """n log r over directions of a quadratic with det P^T H P = 1, so that the mean weight is 1: [seeds, draws]."""
    half = math.sqrt(6 * variance / n)
    a = np.exp(np.linspace(-half, half, n))
    rng = np.random.default_rng(n)
    out = np.empty((seeds, draws))
    for row in out:
        squares = rng.standard_normal((draws, n)) ** 2
        row[:] = -n / 2 * np.log(squares @ a / squares.sum(axis=1))
    return out


CASES = [(n, v, m) for n in (30, 100) for m in (64, 200) for v in (0.3, 1.0, 2.5, 4.0)]


@pytest.mark.parametrize(("n", "variance", "draws"), CASES)
def test_the_interval_holds_with_a_mis_specified_preconditioner(n, variance, draws):
    """log_volume +- t(m - 1) se at 95%: in no case below 92 of 100, and seldom wrong without a flag."""
    t = stats.t.ppf(0.975, draws - 1)
    found = [mean_weight(row) for row in log_weights(n, variance, draws, 500)]
    missed = np.array([abs(f.log_mean) > t * f.se for f in found])
    assert missed.mean() < 0.08
    assert np.mean([wrong and f.ess >= AMPLE for wrong, f in zip(missed, found, strict=True)]) < 0.07


@pytest.mark.parametrize("n", [30, 100])
def test_the_delta_methods_interval_does_not(n):
    """The trap: the error is estimated from the tail that the sample lacks."""
    found = [mean_weight(row) for row in log_weights(n, 4.0, 64, 500)]
    t = stats.t.ppf(0.975, 63)
    assert np.mean([abs(f.log_mean) > t * f.delta_se for f in found]) > 0.18


@pytest.mark.parametrize("n", [30, 100])
def test_a_mean_of_few_heavy_weights_is_low_and_flagged(n):
    found = [mean_weight(row) for row in log_weights(n, 9.0, 64, 200)]
    assert np.mean([f.log_mean for f in found]) < -0.5
    assert all(f.ess < AMPLE for f in found)


@pytest.mark.parametrize("failure", [0.3, 0.05])
def test_the_lower_bound_fails_as_seldom_as_it_says(failure):
    for n, variance in ((30, 0.3), (30, 4.0), (100, 9.0)):
        above = [
            mean_weight(row[:16]).log_mean - math.log(1 / failure) > 0 for row in log_weights(n, variance, 64, 200)
        ]
        assert np.mean(above) <= failure


def test_short_rays_weigh_nothing():
    """Half of the weights vanish: a spread below the median, which is no reason to doubt the mean."""
    found = mean_weight(np.array([0.0, -1000.0] * 200))
    assert found.ess == pytest.approx(200)
    assert found.se == pytest.approx(found.delta_se)
    assert found.se == pytest.approx(1 / 20, rel=0.01)
    assert found.log_mean == pytest.approx(-math.log(2))


# --- Rays that follow the curvature.


def test_no_variance_at_ten_thousand_dimensions():
    """P proportional to H^(-1/2), over four decades: each of three rays gives the volume."""
    values = spread(-3, 1, 10_000)
    field = Quadratic(torch.tensor(values, dtype=F64))
    options = {"preconditioner": "diagonal", "probes": 1, "floor": 0.0, "radius": 1e6, "samples": 3}
    found = log_volume(field, zeros(10_000), method="importance", **options)
    assert found.log_volume == pytest.approx(closed(values, 0.1), abs=TIGHT)
    assert found.se < TIGHT
    assert found.diagnostics["clipped"] == 0


@pytest.mark.parametrize("given", ["vector", "matrix", "object", "eigenvectors"])
def test_no_variance_with_every_way_to_say_it(given):
    q, _ = torch.linalg.qr(torch.randn(30, 30, dtype=F64))
    values = torch.tensor(spread(-2, 1, 30), dtype=F64)
    h = values if given == "vector" else (q * values) @ q.T
    root = (q * values**-0.5) @ q.T
    ways = {
        "vector": 7 * values**-0.5,
        "matrix": -3 * root,
        "object": Preconditioner(lambda u: root @ u, float(torch.logdet(root)), 30),
        "eigenvectors": "low-rank",
    }
    options = {"radius": 1e4, "samples": 3, "k": 30, "preconditioner": ways[given]}
    found = log_volume(Quadratic((h + h.T) / 2 if h.ndim == 2 else h), zeros(30), method="importance", **options)
    assert found.log_volume == pytest.approx(closed(values.tolist(), 0.1), abs=TIGHT)
    assert found.se < TIGHT


def test_a_low_rank_map_sees_the_steep_and_levels_the_rest():
    """20 steep directions over a flat floor: k = 20 leaves no variance, k = 0 would leave hundreds of nats."""
    q, _ = torch.linalg.qr(torch.randn(60, 60, dtype=F64))
    values = torch.cat([torch.logspace(0, 2, 20, dtype=F64), torch.full((40,), 0.05, dtype=F64)])
    h = (q * values) @ q.T
    found = log_volume(
        Quadratic((h + h.T) / 2), zeros(60), method="importance", radius=1e4, k=20, floor=1e-6, samples=3
    )
    assert found.log_volume == pytest.approx(closed(values.tolist(), 0.1), abs=0.02)
    assert found.se < 0.02


@pytest.mark.parametrize("name", ["identity", "diagonal", "low-rank"])
def test_every_map_has_determinant_one(name):
    a = torch.randn(12, 12, dtype=F64)
    p = preconditioner_of(name, _curvature(a @ a.T))
    matrix = torch.stack([p(row) for row in torch.eye(12, dtype=F64)])
    assert float(torch.linalg.slogdet(matrix)[1]) == pytest.approx(0.0, abs=1e-9)


def test_any_map_gives_the_same_volume():
    h = torch.tensor([3.0, 1.0, 0.4], dtype=F64)
    skew = torch.tensor([[1.0, 0.8, 0.0], [0.0, 1.0, -0.5], [0.3, 0.0, 1.0]], dtype=F64)
    with unchecked():
        found = log_volume(Quadratic(h), zeros(3), method="importance", preconditioner=skew, radius=1e3, samples=250)
    assert abs(found.log_volume - closed(h.tolist(), 0.1)) < 3 * found.se < 0.7


def test_low_and_negative_curvature_is_raised_to_the_floor():
    p = preconditioner_of("diagonal", _curvature(torch.tensor([4.0, 1e-9, -2.0], dtype=F64), floor=0.25))
    u = p(torch.ones(3, dtype=F64))
    assert (u / u[0]).tolist() == pytest.approx([1.0, 2.0, 2.0])
    assert p.clipped == 2


def test_on_a_network_both_kinds_of_rays_agree():
    """Two biases and a weight of a perceptron's last layer: a set that is no ellipsoid."""
    case = named("perceptron")
    mask = torch.zeros(case.space.dim, dtype=torch.bool)
    mask[[-2, -1, -12]] = True
    options = {"eps": 0.1, "radius": 50.0, "mask": mask}
    with unchecked():
        round_ = log_volume(case.field(), case.point, method="radial", samples=50, **options)
        along = log_volume(
            case.field(), case.point, method="importance", operator="hessian", k=3, samples=50, **options
        )
    assert (round_.n, along.n) == (3, 3)
    assert abs(round_.log_volume - along.log_volume) < 3 * math.hypot(round_.se, along.se) < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "radius must be positive and finite, got 0.0"),
        ({"radius": math.inf}, "radius must be positive and finite, got inf"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"failure": 1.0}, "failure is a probability between 0 and 1, got 1.0"),
        ({"growth": 1.0}, "growth is the factor .* above 1, got 1.0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        log_volume(Quadratic(torch.ones(2, dtype=F64)), zeros(2), method="radial", **({"radius": 1.0} | options))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.ones(3, dtype=F64), ValueError, "dimension 3 does not fit a subspace of dimension 2"),
        (torch.tensor([1.0, 0.0], dtype=F64), ValueError, "finite and nowhere 0"),
        (torch.ones(2, 2, dtype=F64), ValueError, "singular"),
        ("diagnal", ConfigError, "unknown preconditioner 'diagnal'; did you mean 'diagonal'"),
    ],
)
def test_maps_that_are_refused(given, error, message):
    field = Quadratic(torch.ones(2, dtype=F64))
    with pytest.raises(error, match=message):
        log_volume(field, zeros(2), method="importance", radius=1.0, preconditioner=given)


def test_no_positive_curvature_is_nothing_to_follow():
    with pytest.raises(ValueError, match="no positive curvature to precondition with: the largest is -1"):
        log_volume(Quadratic(-torch.ones(4, dtype=F64)), zeros(4), method="importance", radius=1.0)


def test_a_basin_has_a_bottom():
    with pytest.raises(FloatingPointError, match="the loss at theta is inf"):
        log_volume(Autograd(lambda w: w.sum() * math.inf + math.inf, 1), torch.ones(1), method="radial", radius=1.0)


def test_low_ground_behind_a_wall_is_no_part_of_the_basin():
    """A wall at 0.5 in a ball of radius 100: whatever is low beyond it, the first ray too must stop at the wall."""

    def shell(t):
        return 2.0 if 0.5 < t < 1.0 else 0.0 if t < 40 else 3.0

    first = first_exit(shell, cap=100.0, guess=math.inf, growth=1.25, tolerance=1e-6)
    assert math.exp(first.log_radius) == pytest.approx(0.5, rel=1e-5)
    later = first_exit(shell, cap=100.0, guess=12.0, growth=1.25, tolerance=1e-6)
    assert math.exp(later.log_radius) == pytest.approx(0.5, rel=1e-5), "the ray before it went twenty times as far"
