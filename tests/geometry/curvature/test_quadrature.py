"""Spectral densities and log-determinants: exact where the rule is, unbiased and with honest errors where it draws."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from scipy import stats

from cases import CASES, CASES_BY_POLICY, QUADRATICS, Spec, dense, even, ids, named, spread
from sublevel.errors import ConfigError
from sublevel.field import EveryExample, Quadratic
from sublevel.geometry.curvature import hessian, log_determinant, log_determinant_of, spectral_density
from sublevel.geometry.curvature.batched_lanczos import batched_lanczos

F64 = torch.float64
MASKS = ("all", "random", "dead")
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))
MILD = Spec("mild", (*even(-0.4, 3, 36), 8.0, 5.0, 5.0, 4.0))


def quadratic(values):
    field = Quadratic(torch.tensor(values, dtype=F64))
    return field, torch.zeros(len(values), dtype=F64)


def inside(matrix, mask):
    return matrix if mask is None else matrix[mask][:, mask]


@pytest.mark.parametrize("kind", MASKS)
@every
def test_rules_hold_the_moments_of_their_probe_on_every_net(case, policy, kind):
    """m steps are exact for polynomials of degree 2m - 1 (Golub and Welsch 1969)."""
    mask, small = case.masks()[kind], inside(dense(case, policy)[2], case.masks()[kind])
    found = spectral_density(case.field(policy), case.point, probes=2, steps=3, mask=mask, seed=5)
    of = hessian(case.field(policy), case.point, mask)
    assert found.dimension == len(small)
    scale = float(torch.linalg.matrix_norm(small, 2))
    for probe in range(2):
        v = of.draw(5, probe, stream="probe:quadrature")
        v, power = v / v.norm(), v / v.norm()
        for degree in range(6):
            moment = found.per_probe(lambda x, degree=degree: (x / scale) ** degree)[probe] / len(small)
            assert moment == pytest.approx(float(v @ power), rel=1e-8, abs=1e-12)
            power = small @ power / scale


@pytest.mark.slow
@pytest.mark.parametrize("kind", MASKS)
@every
def test_log_determinants_of_every_net(case, policy, kind):
    mask = case.masks()[kind]
    values = torch.linalg.eigvalsh(inside(dense(case, policy)[2], mask))
    found = log_determinant(case.field(policy), case.point, damping=0.05, mask=mask, method="exact", together=64)
    truth = float((values.clamp(min=0) + 0.05).log().sum())
    assert found.value == pytest.approx(truth, rel=1e-8)
    assert (found.se, found.draws, found.products, found.reason) == (0.0, 0, len(values), "")
    near = float(values.abs().max()) * 1e-9
    low, high = (float((values < edge).double().mean()) for edge in (-near, near))
    assert low - 1e-12 <= found.diagnostics["clipped_mass"] <= high + 1e-12


@pytest.mark.parametrize("spec", QUADRATICS, ids=str)
def test_full_steps_are_exact_for_their_probe(spec):
    """v^T log(max(A, 0) + delta) v from the dense matrix, with the same v."""
    n, field = len(spec.values), Quadratic(spec.hessian)
    theta = torch.zeros(n, dtype=F64)
    found = spectral_density(field, theta, probes=3, steps=n)
    values, vectors = torch.linalg.eigh(spec.hessian)
    for probe, got in enumerate(found.per_probe(lambda x: np.log(np.maximum(x, 0) + 1e-3))):
        v = hessian(field, theta).draw(0, probe, stream="probe:quadrature")
        shares = (vectors.T @ (v / v.norm())).square()
        truth = n * float(shares @ (values.clamp(min=0) + 1e-3).log())
        assert got == pytest.approx(truth, rel=1e-8, abs=1e-8)
    assert found.quadrature_error(np.exp) == 0.0


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("perceptron", "dropout", "frozen")], ids=str)
def test_full_steps_on_a_net(case):
    n = case.space.dim
    lanczos = spectral_density(case.field(), case.point, probes=2, steps=n)
    values, vectors = torch.linalg.eigh(dense(case, "stored")[2])
    for probe, got in enumerate(lanczos.per_probe(lambda x: np.log(np.maximum(x, 0) + 0.1))):
        v = hessian(case.field(), case.point).draw(0, probe, stream="probe:quadrature")
        shares = (vectors.T @ (v / v.norm())).square()
        assert got == pytest.approx(n * float(shares @ (values.clamp(min=0) + 0.1).log()), rel=1e-8)


PROBES = 4
SEEDS = pytest.mark.parametrize("seeds", [200, pytest.param(2000, marks=pytest.mark.full)])


def estimates_of(field, seeds, steps):
    """Independent spectra of PROBES probes each, which know of each other and of no others."""
    theta = torch.zeros(field.dim, dtype=F64)
    return (spectral_density(field, theta, probes=PROBES, steps=steps, seed=seed) for seed in range(seeds))


def check_calibration(estimates, truth, seeds):
    """The mean within 3 standard errors of the truth, and 95% t intervals that hold it in 93 to 97%."""
    values, se = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "se"))
    assert len(values) == seeds
    assert {e.draws for e in estimates} == {PROBES}
    assert abs(values.mean() - truth) <= 3 * values.std(ddof=1) / math.sqrt(seeds)
    covered = (np.abs(values - truth) <= stats.t.ppf(0.975, PROBES - 1) * se).mean()
    assert 0.93 <= covered <= 0.97


@SEEDS
def test_log_determinants_are_unbiased_and_their_intervals_cover(seeds):
    truth = math.fsum(math.log(max(v, 0) + 0.5) for v in MILD.values)
    spectra = estimates_of(Quadratic(MILD.hessian), seeds, 14)
    check_calibration([log_determinant_of(one, 0.5) for one in spectra], truth, seeds)


@SEEDS
def test_the_negative_share_is_unbiased_and_its_interval_covers(seeds):
    """Where a gap holds 0 the step is no harder than a smooth function."""
    field, _ = quadratic((*even(1, 3, 24), *even(-3, -1, 8)))
    check_calibration([one.negative_mass for one in estimates_of(field, seeds, 12)], 0.25, seeds)


def test_lockstep_is_one_product_a_step_and_changes_nothing():
    calls = []
    field, theta = Quadratic(MILD.hessian), torch.zeros(40, dtype=F64)

    class Counting(Quadratic):
        def hvp(self, at, v):
            calls.append(tuple(v.shape))
            return super().hvp(at, v)

    together = spectral_density(Counting(MILD.hessian), theta, probes=6, steps=9, together=4)
    assert calls == [(4, 40)] * 9 + [(2, 40)] * 9
    assert together.products == 54
    alone = spectral_density(field, theta, probes=6, steps=9, together=1)
    for a, b in zip(together.nodes, alone.nodes, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_runs_that_end_early_do_not_disturb_the_others():
    """A start that is an eigenvector is exhausted after one step."""
    values = torch.tensor(even(1, 2, 30), dtype=F64)
    starts = torch.stack([torch.eye(30, dtype=F64)[4], torch.ones(30, dtype=F64)])
    short, long = batched_lanczos(lambda v: v * values, starts, steps=20)
    assert (len(short.diagonal), short.exhausted) == (1, True)
    assert short.diagonal[0] == pytest.approx(float(values[4]))
    assert (len(long.diagonal), long.exhausted) == (20, False)
    assert long.rule()[1].sum() == pytest.approx(1.0)


def test_a_double_eigenvalue_counts_twice_and_no_ghost_counts():
    """150 float32 steps without reorthogonalisation would hold many copies of 100 (rounding may bring the second)."""
    values = torch.cat([torch.tensor([100.0, 100.0]), torch.logspace(-4, 0, 600)])
    found = spectral_density(Quadratic(values), torch.zeros(602), probes=20, steps=150, seed=1)
    count = found.integrate(lambda x: (x > 50).astype(float))
    assert abs(count.value - 2) <= 3 * count.se
    assert all(1 <= (x > 50).sum() <= 2 for x in found.nodes)


def test_the_density_is_smoothed_and_has_unit_integral():
    field, theta = quadratic((*even(0, 1, 50), 4.0))
    found = spectral_density(field, theta, probes=40, steps=51, together=40)
    grid = np.linspace(-2, 6, 2001)
    smooth = found.density(grid, 0.2)
    assert np.trapezoid(smooth.density, grid) == pytest.approx(1.0, abs=1e-6)
    exact = spectral_density(field, theta, method="exact").density(grid, 0.2)
    assert not exact.se.any()
    naive = np.mean([stats.norm.pdf(grid, v, 0.2) for v in (*even(0, 1, 50), 4.0)], axis=0)
    np.testing.assert_allclose(exact.density, naive, atol=1e-12)
    assert (np.abs(smooth.density - naive) <= 4 * smooth.se + 1e-9).mean() > 0.99
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        found.density(grid, 0.0)


def test_negative_eigenvalues_are_clipped_and_said():
    """A determinant of |lambda| would be finite and wrong."""
    field, theta = quadratic((4.0, 1.0, -9.0, -0.5))
    found = log_determinant(field, theta, damping=0.5, method="exact")
    assert found.value == pytest.approx(math.log(4.5) + math.log(1.5) + 2 * math.log(0.5))
    assert found.diagnostics["clipped_mass"] == 0.5
    assert found.diagnostics["lowest"] == pytest.approx(-9.0)


def test_damping_must_be_stated_and_possible():
    field, theta = quadratic((4.0, 1.0))
    with pytest.raises(TypeError, match="damping"):
        log_determinant(field, theta)
    for bad in (-1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match="damping must be finite and not negative, got"):
            log_determinant(field, theta, damping=bad)


@pytest.mark.parametrize("lowest", [0.0, -1.0])
@pytest.mark.parametrize("method", ["lanczos", "exact"])
def test_without_damping_only_positive_spectra_have_a_determinant(lowest, method):
    field, theta = quadratic((4.0, 2.0, 1.0, lowest))
    found = log_determinant(field, theta, damping=0.0, method=method)
    assert math.isnan(found.value)
    assert "without damping the determinant has no logarithm" in found.reason
    definite = log_determinant(*quadratic((4.0, 2.0, 1.0, 0.5)), damping=0.0, method="exact")
    assert definite.value == pytest.approx(math.log(4.0))
    assert definite.reason == ""


def test_too_few_steps_for_the_damping_are_said():
    """n = 3000 over eight decades: at delta = 1e-5 forty steps are off by far more than the standard error."""
    values = (*spread(-8, -2, 2900), *spread(-2, 1, 100))
    field, theta = quadratic(values)
    spectrum = spectral_density(field, theta, probes=10, steps=40)
    for damping, said in ((1e-1, False), (1e-6, True)):
        found = log_determinant_of(spectrum, damping)
        truth = math.fsum(math.log(v + damping) for v in values)
        assert ("quadrature not converged" in found.reason) == said
        assert (abs(found.value - truth) > 4 * found.se) == said


HESSIAN_LIKE = (*spread(-8, -2, 2900), *spread(-2, 1, 100))
"""A bulk that crowds at 0 over six decades below a hundred outliers."""

MIXED = (*spread(0, 2, 10), *spread(-8, -1, 890), *(-v for v in spread(-8, -3, 100)))
"""The same with negative eigenvalues in the bulk."""


def misses(values, damping, spectrum):
    """The sum over the rules less what the very same probes give of the diagonal matrix without quadrature."""
    field, theta = quadratic(values)
    exact = (torch.tensor(values, dtype=F64).clamp_min(0) + damping).log()
    starts = [hessian(field, theta).draw(0, i, stream="probe:quadrature") for i in range(len(spectrum.nodes))]
    truth = [len(values) * float((v / v.norm()).square() @ exact) for v in starts]
    drawn = spectrum.per_probe(lambda x: np.log(np.maximum(x, 0) + damping))
    return float(drawn.mean()) - sum(truth) / len(truth)


@pytest.mark.parametrize("steps", [60, 120])
def test_a_node_at_0_bounds_what_the_rule_misses(steps):
    """And where nothing is flagged, the rule misses less than the standard error."""
    spectrum = spectral_density(*quadratic(HESSIAN_LIKE), probes=8, steps=steps)
    flags = []
    for damping in (1e-1, 1e-3, 1e-5, 1e-7):
        found, missed = log_determinant_of(spectrum, damping), misses(HESSIAN_LIKE, damping, spectrum)
        bound = found.diagnostics["quadrature_error"]
        assert -1e-6 <= missed <= bound + 1e-6
        flags.append("quadrature not converged" in found.reason)
        assert flags[-1] == (bound > found.se)
    assert flags == ([False, False, True, True] if steps == 60 else [False, False, False, True])


@pytest.mark.parametrize("steps", [60, 90, 120])
def test_with_negative_eigenvalues_too_what_is_missed_is_flagged(steps):
    """Half the steps can be as wrong as all of them: at 90 and delta = 1e-5 both are off by 200 nats."""
    spectrum = spectral_density(*quadratic(MIXED), probes=8, steps=steps)
    for damping in (1e-1, 1e-3, 1e-5, 1e-7):
        found = log_determinant_of(spectrum, damping)
        assert found.reason or abs(misses(MIXED, damping, spectrum)) <= found.se
    assert "quadrature" in log_determinant_of(spectrum, 1e-5).reason
    assert log_determinant_of(spectrum, 1e-3).reason == ""


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_a_node_that_lies_at_0_already_is_no_trouble(dtype):
    """A Gauss-Newton matrix with a null space."""
    values = torch.tensor((*[0.0] * 2500, *spread(-2, 1, 500)), dtype=dtype)
    found = log_determinant(Quadratic(values), torch.zeros(3000, dtype=dtype), damping=1e-2, probes=8, steps=60)
    truth = float((values.double() + 1e-2).log().sum())
    assert found.reason == ""
    assert abs(found.value - truth) <= 4 * found.se


def test_half_the_steps_cost_nothing_and_are_what_half_the_steps_give():
    field, theta = Quadratic(MILD.hessian), torch.zeros(40, dtype=F64)
    half, fresh = (spectral_density(field, theta, probes=3, steps=steps) for steps in (12, 6))
    for a, b in zip(half.halved().nodes, fresh.nodes, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_one_probe_has_no_standard_error():
    field, theta = Quadratic(MILD.hessian), torch.zeros(40, dtype=F64)
    found = log_determinant(field, theta, damping=0.1, probes=1, steps=30)
    assert math.isnan(found.se)
    assert found.draws == 1


def test_the_same_seed_gives_the_same_bits():
    field, theta = Quadratic(MILD.hessian), torch.zeros(40, dtype=F64)
    one, two, other = (log_determinant(field, theta, damping=0.1, seed=seed).value for seed in (3, 3, 4))
    assert one == two != other


def test_a_subspace_draws_in_its_own_dimension():
    """n is the mask's: a probe of R^D would count the pruned coordinates as eigenvalues 0."""
    case = named("perceptron")
    mask = case.masks()["random"]
    found = spectral_density(case.field(), case.point, mask=mask, probes=4, steps=30)
    assert found.dimension == int(mask.sum())
    assert found.integrate(np.ones_like).value == pytest.approx(found.dimension)


def test_what_is_refused():
    field, theta = quadratic((2.0, 1.0))
    for count in ("probes", "steps", "together"):
        with pytest.raises(ValueError, match=f"{count} must be at least 1, got 0"):
            spectral_density(field, theta, **{count: 0})
    with pytest.raises(ConfigError, match="unknown method of a spectral density 'exat'; did you mean 'exact'"):
        spectral_density(field, theta, method="exat")
    with pytest.raises(ValueError, match=r"length 3 .* dimension 2"):
        spectral_density(field, theta, mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="subspace of dimension 0"):
        spectral_density(field, theta, mask=torch.zeros(2, dtype=torch.bool))
    for estimator, options in ((spectral_density, {}), (log_determinant, {"damping": 1.0})):
        with pytest.raises(TypeError, match=r"needs a field .* changes from call to call"):
            inspect.unwrap(estimator)(EveryExample(field), theta, **options)
    for method in ("lanczos", "exact"):
        with pytest.raises(FloatingPointError, match="not finite"):
            spectral_density(*quadratic((1.0, math.nan)), method=method)
