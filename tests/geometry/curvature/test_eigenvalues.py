"""The spectra that geometry reports, against dense float64 eigenvalues: nets by case, policy and mask; quadratics."""

from __future__ import annotations

import inspect
import math
from functools import cache

import numpy as np
import pytest
import torch

from cases import CASES_BY_POLICY, QUADRATICS, Spec, dense, even, ids, named, spread
from sublevel.errors import ConfigError
from sublevel.field import Autograd, EveryExample, Quadratic, plus_weight_decay
from sublevel.geometry.curvature import hessian, subspace_dimension, top_eigenvalues
from sublevel.geometry.curvature.lanczos import lanczos
from sublevel.geometry.curvature.top_eigenpairs import top_eigenpairs

F64 = torch.float64
MASKS = ("all", "random", "dead")
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))


def at(field):
    return torch.zeros(field.dim, dtype=F64)


@cache
def spectrum_of(case, policy, kind):
    return top_eigenvalues(case.field(policy), case.point, k=5, mask=case.masks()[kind])


def check(spectrum, hessian, mask, k):
    """Everything that a spectrum promises, held against the dense Hessian."""
    n, dim = (len(hessian) if mask is None else int(mask.sum())), len(hessian)
    inside = slice(None) if mask is None else mask.nonzero().squeeze(1)
    small = hessian[inside][:, inside]
    values = torch.linalg.eigvalsh(small).flip(0)
    scale = float(values.abs().max())
    k = min(k, n)
    assert spectrum.dimension == n
    assert spectrum.values.shape == (k,)
    assert spectrum.vectors.shape == (k, dim)
    assert spectrum.converged, spectrum.stop
    assert spectrum.stop == "converged"
    torch.testing.assert_close(spectrum.values, values[:k], rtol=0, atol=1e-6 * scale)
    assert bool((spectrum.values.diff() <= 0).all())
    gram = spectrum.vectors @ spectrum.vectors.T
    torch.testing.assert_close(gram, torch.eye(k, dtype=F64), rtol=0, atol=1e-6)
    if mask is not None:
        assert bool((spectrum.vectors[:, ~mask] == 0).all())
    products = spectrum.vectors @ hessian
    if mask is not None:
        products = products * mask
    residuals = (products - spectrum.values[:, None] * spectrum.vectors).norm(dim=1)
    torch.testing.assert_close(spectrum.residuals, residuals, rtol=1e-4, atol=1e-11 * max(scale, 1))
    assert bool((spectrum.residuals <= max(spectrum.bound, 1e-300)).all())
    assert spectrum.pair_converged == [True] * k
    return values


@pytest.mark.parametrize("kind", MASKS)
@every
def test_every_net_in_every_subspace(case, policy, kind):
    mask = case.masks()[kind]
    spectrum = spectrum_of(case, policy, kind)
    values = check(spectrum, dense(case, policy)[2], mask, 5)
    lowest = float(values[-1])
    if lowest < -1e-3 * float(values.abs().max()):
        assert float(spectrum.smallest[0]) == pytest.approx(lowest, abs=1e-6 * float(values.abs().max()))
        assert spectrum.negative_count >= 1


@every
def test_interlacing(case, policy):
    """The k-th eigenvalue of a subspace is never above that of R^D, and not below the one (D - n) further down."""
    mask = case.masks()["random"]
    whole, inside = (spectrum_of(case, policy, kind).values for kind in ("all", "random"))
    assert bool((inside <= whole + 1e-6 * whole[0]).all())
    everything = torch.linalg.eigvalsh(dense(case, policy)[2]).flip(0)
    removed = case.space.dim - int(mask.sum())
    low = everything[removed : removed + 5]
    assert bool((inside[: len(low)] >= low - 1e-6 * whole[0]).all())


@pytest.mark.parametrize("name", ["wide", "convolution"])
def test_many_pairs_in_more_than_fifty_steps(name):
    case = named(name)
    spectrum = top_eigenvalues(case.field(), case.point, k=40)
    assert spectrum.products > 51
    check(spectrum, dense(case, "stored")[2], None, 40)


@pytest.mark.parametrize("kind", ["all", "half"])
@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize("spec", QUADRATICS, ids=str)
def test_every_quadratic(spec, k, kind):
    mask = None if kind == "all" else torch.arange(len(spec.values)) % 2 == 0
    field = Quadratic(spec.hessian)
    k = min(k, subspace_dimension(at(field), mask))
    check(top_eigenvalues(field, at(field), k=k, mask=mask), spec.hessian, mask, k)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("spec", [s for s in QUADRATICS if "double" in s.name or "triple" in s.name], ids=str)
def test_copies_are_found_from_every_start(spec, seed):
    """A restart that stops too early misses a copy that hides just above the floor."""
    field = Quadratic(torch.tensor(spec.values, dtype=F64))
    found = top_eigenvalues(field, at(field), k=2, seed=seed)
    torch.testing.assert_close(found.values, spec.top[:2], rtol=0, atol=1e-6 * float(spec.top[0]))
    assert found.converged


@pytest.mark.parametrize("copies", [5, 8])
def test_more_copies_than_restarts_are_found_or_said(copies):
    field = Quadratic(torch.tensor([2.0] * copies + list(spread(-3, 0, 60)), dtype=F64))
    found = top_eigenvalues(field, at(field), k=copies, restarts=2)
    truth = torch.full((copies,), 2.0, dtype=F64)
    assert not found.converged or torch.allclose(found.values, truth, atol=1e-6)
    assert found.converged or "restart" in found.stop
    enough = top_eigenvalues(field, at(field), k=copies, restarts=copies + 1)
    assert enough.converged
    torch.testing.assert_close(enough.values, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["zero", "identity", "rank-one", "rank-three", "one-dimension"])
def test_as_many_as_there_are(name):
    """Exhausted Krylov spaces: k = n."""
    spec = next(s for s in QUADRATICS if s.name == name)
    field, n = Quadratic(spec.hessian), len(spec.values)
    check(top_eigenvalues(field, at(field), k=n), spec.hessian, None, n)


def test_more_than_there_are_is_refused():
    """Fewer values than were asked for would go into a top-k volume unseen."""
    field = Quadratic(torch.ones(4, dtype=F64))
    with pytest.raises(ValueError, match=r"more eigenvalues than there are: k = 5 in a subspace of dimension 4"):
        top_eigenvalues(field, at(field), k=5)
    mask = torch.tensor([True, False, True, False])
    with pytest.raises(ValueError, match=r"k = 3 in a subspace of dimension 2"):
        top_eigenvalues(field, at(field), k=3, mask=mask)
    assert subspace_dimension(at(field), mask) == 2


def test_impossible_options_are_refused():
    field = Quadratic(torch.ones(4, dtype=F64))
    for bad in ({"tolerance": -1.0}, {"tolerance": math.nan}, {"steps": 0}, {"restarts": -1}, {"negative": -1}):
        (name,) = bad
        with pytest.raises(ValueError, match=f"{name} must be at least|{name} must be positive"):
            top_eigenvalues(field, at(field), k=1, **bad)
    with pytest.raises(ConfigError, match=r"unknown curvature operator 'hesian'; did you mean 'hessian'\?"):
        top_eigenvalues(field, at(field), k=1, operator="hesian")


def test_a_stochastic_field_is_refused():
    field = EveryExample(Quadratic(torch.ones(4, dtype=F64)))
    for estimator, options in ((top_eigenvalues, {"k": 1}), (hessian, {})):
        with pytest.raises(TypeError, match=r"needs a field .* changes from call to call"):
            inspect.unwrap(estimator)(field, torch.zeros(4, dtype=F64), **options)


def test_zero_hessian():
    field = Quadratic(torch.zeros(20, dtype=F64))
    found = top_eigenvalues(field, at(field), k=3)
    assert found.values.tolist() == [0.0] * 3
    assert found.negative_count == 0
    assert found.negative_mass == 0.0


def test_a_linear_function_is_flat():
    field = Autograd(lambda t: t.sum(), 6)
    assert top_eigenvalues(field, at(field), k=2).values.tolist() == [0.0, 0.0]


def test_negative_eigenvalues_are_reported_with_their_sign():
    values = torch.tensor([*spread(-3, 0, 40), -7.0, -0.5, 3.0], dtype=F64)
    field = Quadratic(values)
    found = top_eigenvalues(field, at(field), k=2, negative=2)
    assert found.smallest.tolist() == pytest.approx([-7.0, -0.5], abs=1e-6)
    assert bool((found.smallest_residuals <= found.bound).all())
    assert found.negative_count == 2
    assert 0 < found.negative_mass < 0.5
    definite = top_eigenvalues(Quadratic(values.abs()), at(field), k=2)
    assert definite.negative_count == 0
    assert definite.negative_mass == 0.0


def test_top_is_largest_algebraic_and_the_bound_is_relative_to_the_largest_magnitude():
    field = Quadratic(torch.tensor([-50.0, -2.0, -1.0], dtype=F64))
    found = top_eigenvalues(field, at(field), k=2, tolerance=1e-5)
    assert found.values.tolist() == pytest.approx([-1.0, -2.0])
    assert found.bound == pytest.approx(5e-4)


def test_negative_mass_is_the_share_of_the_trace_of_a_projector():
    """Averaged over starts: the dimension of the negative space over n."""
    values = torch.tensor([-3.0, -2.0, *([1.0] * 6)], dtype=F64)
    field = Quadratic(values)
    shares = [top_eigenvalues(field, at(field), k=1, seed=seed, restarts=0).negative_mass for seed in range(200)]
    assert np.mean(shares) == pytest.approx(2 / 8, abs=3 * np.std(shares) / math.sqrt(200))


def test_too_few_steps_are_said():
    field = Quadratic(torch.tensor(spread(-4, 2, 400), dtype=F64))
    found = top_eigenvalues(field, at(field), k=10, steps=12)
    assert not found.converged
    assert not all(found.pair_converged)
    assert "steps" in found.stop
    assert float(found.residuals.max()) > found.bound
    for ok, residual in zip(found.pair_converged, found.residuals.tolist(), strict=True):
        assert ok == (residual <= found.bound)


def test_fewer_steps_than_pairs_are_said():
    field = Quadratic(torch.tensor(even(0.1, 1, 300), dtype=F64))
    found = top_eigenvalues(field, at(field), k=20, steps=5, restarts=1)
    assert not found.converged
    assert "steps" in found.stop


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_hessian_that_is_not_finite_is_no_answer(bad):
    values = torch.ones(8, dtype=F64)
    values[3] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        top_eigenvalues(Quadratic(values), torch.zeros(8, dtype=F64), k=2)


def test_float32_has_no_ghosts():
    """300 steps in float32 on a known diagonal: each eigenvalue once."""
    values = torch.cat([torch.tensor([100.0, 50.0, 25.0, 12.0, 6.0]), torch.logspace(-4, 0, 600)])
    ritz = lanczos(lambda v: values * v, torch.randn(605), steps=300)
    assert ritz.products == 300
    top = values.double().sort(descending=True).values[:30].numpy()
    np.testing.assert_allclose(ritz.values[::-1][:30], top, atol=1e-3)
    assert ritz.values[0] > -1e-3
    vectors = ritz.vectors(np.arange(300) >= 270)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(30), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("k", "tolerance"), [(5, None), (20, 1e-5)])
def test_float32_spectra_converge_at_their_tolerance(k, tolerance):
    values = torch.cat([torch.tensor([100.0, 50.0, 25.0, 12.0, 6.0]), torch.logspace(-4, 0, 600)])
    found = top_eigenvalues(Quadratic(values), torch.zeros(605), k=k, tolerance=tolerance)
    assert found.converged, found.stop
    torch.testing.assert_close(found.values.float(), values.sort(descending=True).values[:k], rtol=0, atol=found.bound)


def test_float32_basis_stays_orthogonal_where_the_plain_recurrence_loses_it():
    values = torch.cat([torch.tensor([1000.0]), torch.linspace(0, 1, 500)])
    start = torch.randn(501)
    ritz = lanczos(lambda v: values * v, start, steps=200)
    gram = ritz.basis @ ritz.basis.T - torch.eye(len(ritz.basis))
    assert float(gram.abs().max()) < 1e-5
    assert int((ritz.values > 900).sum()) == 1
    assert ritz.weights.sum() == pytest.approx(1.0)


def differences(operator, found):
    """The true residuals, by k further products."""
    return (operator(found.vectors).double() - found.values[:, None] * found.vectors.double()).norm(dim=1)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_residuals_that_cost_no_products_are_the_true_ones(dtype, tolerance):
    """Of pairs of every run, with a double eigenvalue whose second copy comes from a search."""
    h = Spec("", (*spread(-4, 0, 300), 9.0, 9.0, 5.0, 4.0, 3.0)).hessian.to(dtype)
    calls = []

    def operator(v):
        calls.append(v.shape)
        return v @ h

    found = top_eigenpairs(operator, lambda run: torch.randn(305, dtype=dtype), k=7, tolerance=tolerance, steps=200)
    assert found.products == len(calls)
    assert set(calls) == {(305,)}
    atol = 30 * torch.finfo(dtype).eps * 9
    torch.testing.assert_close(found.residuals, differences(operator, found), rtol=1e-2, atol=atol)


def test_residuals_hold_what_the_operator_itself_rounds():
    """The recurrence knows the products that were made; one more, of all pairs' sum, shows what others would differ."""
    values, noise = torch.tensor(spread(-2, 1, 80), dtype=F64), 1e-5

    def operator(v):
        return values * v + noise * torch.sign(v)

    found = top_eigenpairs(operator, lambda run: torch.randn(80, dtype=F64), k=2, tolerance=1e-9, steps=60, restarts=0)
    true = differences(operator, found)
    assert bool((found.residuals >= 0.3 * true).all())
    assert bool((found.residuals <= 3 * true).all())
    assert found.stop != "converged"


def test_a_map_that_is_not_linear_has_no_eigenpairs():
    values = torch.tensor(spread(-2, 1, 80), dtype=F64)
    found = top_eigenpairs(
        lambda v: values * v + 0.1 * v.abs(), lambda run: torch.randn(80, dtype=F64), k=4, tolerance=1e-4, steps=80
    )
    assert not any(found.converged)


def test_a_pair_below_a_copy_that_may_be_missing_is_not_converged():
    """Twelve eigenvalues, five times each: no three searches find the fourteen largest, but the first pairs stand."""
    values = [12.0 - i for i in range(12) for _ in range(5)] + list(spread(-3, -1, 60))
    field, truth = Quadratic(torch.tensor(values, dtype=F64)), torch.tensor(values[:14], dtype=F64)
    for restarts in range(5):
        found = top_eigenvalues(field, at(field), k=14, restarts=restarts)
        right = (found.values - truth).abs() <= 1e-6
        assert found.converged == all(found.pair_converged)
        assert found.pair_converged[0]
        for i, said in enumerate(found.pair_converged):
            assert bool(right[i]) or not said
        assert found.converged or "restarts" in found.stop
    assert top_eigenvalues(field, at(field), k=14, restarts=20).converged


def test_without_a_search_only_the_first_pair_can_be_converged():
    field = Quadratic(torch.tensor(spread(-3, 1, 100), dtype=F64))
    found = top_eigenvalues(field, at(field), k=3, restarts=0)
    assert found.pair_converged == [True, False, False]
    assert found.stop == "restarts: no search for copies of eigenvalues was made"
    assert top_eigenvalues(field, at(field), k=1, restarts=0).stop == "converged"
    whole = top_eigenvalues(field, at(field), k=40, restarts=0)
    assert whole.stop == "converged"  # the matrix shows every copy
    assert whole.products == 101


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_a_copy_that_rounding_has_half_brought_is_found(seed, dtype):
    """Long after the double eigenvalue has converged, its second copy grows from rounding into the first run."""
    values = torch.tensor((30.0, 30.0, *even(1, 4, 12 + 2 * seed), *spread(-5, 0, 400)), dtype=dtype)
    k = 8 + 2 * seed
    found = top_eigenvalues(Quadratic(values), torch.zeros(len(values), dtype=dtype), k=k, seed=seed)
    truth = values.double().sort(descending=True).values[:k]
    assert found.converged, found.stop
    torch.testing.assert_close(found.values, truth, rtol=0, atol=1e-4 * 30)


@pytest.mark.parametrize("seed", range(6))
def test_float32_values_that_are_called_converged_are_within_a_ten_thousandth(seed):
    """Of lambda_1, by default: in a crowded bulk a residual of a thousandth would let one be off by as much."""
    values = torch.tensor((*spread(-3, 0, 500), *even(1.0, 1.02, 40), 5.0, 9.0, 10.0))
    found = top_eigenvalues(Quadratic(values), torch.zeros(len(values)), k=12, seed=seed)
    truth = values.double().sort(descending=True).values[:12]
    for ok, one, other in zip(found.pair_converged, found.values.tolist(), truth.tolist(), strict=True):
        assert not ok or abs(one - other) <= 1e-4 * 10
    assert sum(found.pair_converged) >= 3


def test_a_mask_of_everything_is_no_mask():
    case = named("perceptron")
    ones = torch.ones(case.space.dim, dtype=torch.bool)
    a, b = (top_eigenvalues(case.field(), case.point, k=3, mask=mask) for mask in (None, ones))
    torch.testing.assert_close(a.values, b.values, rtol=0, atol=1e-12)


def test_empty_subspaces_and_no_eigenvalues_are_refused():
    field = Quadratic(torch.ones(4, dtype=F64))
    with pytest.raises(ValueError, match="subspace of dimension 0"):
        top_eigenvalues(field, at(field), k=1, mask=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="k = 0"):
        top_eigenvalues(field, at(field), k=0)


def test_a_mask_of_another_length_is_refused():
    field = Quadratic(torch.ones(4, dtype=F64))
    with pytest.raises(ValueError, match=r"length 3 .* dimension 4"):
        top_eigenvalues(field, at(field), k=1, mask=torch.ones(3, dtype=torch.bool))


def test_the_same_seed_gives_the_same_bits():
    field = Quadratic(Spec("", spread(-3, 1, 50)).hessian)
    one, two = (top_eigenvalues(field, at(field), k=4, seed=3) for _ in range(2))
    assert torch.equal(one.vectors, two.vectors)
    assert torch.equal(one.values, two.values)
    other = top_eigenvalues(field, at(field), k=4, seed=4)
    assert not torch.equal(one.vectors, other.vectors)
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-6)


def test_weight_decay_shifts_the_spectrum():
    case = named("perceptron")
    plain = top_eigenvalues(case.field(), case.point, k=4).values
    shifted = top_eigenvalues(plus_weight_decay(case.field(), 0.01), case.point, k=4).values
    torch.testing.assert_close(shifted, plain + 0.01, rtol=0, atol=1e-8)


def test_a_dead_filter_can_be_left_out():
    """Behind one the recomputed variance is 0 and its gain 1/sqrt(eps): the top eigenvalue in R^D explodes."""
    case = named("convolution")
    mask = case.masks()["dead"]
    pruned = case.point.project(mask)
    field = case.field("recomputed")
    whole = top_eigenvalues(field, pruned, k=1)
    without = top_eigenvalues(field, pruned, k=1, mask=~case.space.dead(mask))
    assert float(whole.values[0]) > 100 * float(without.values[0])
