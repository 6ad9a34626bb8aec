"""Traces, diagonals and curvature along sets: exact where nothing is drawn, unbiased with honest errors elsewhere."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from scipy import stats

from cases import CASES_BY_POLICY, Spec, dense, even, ids, named, spread
from sublevel.errors import ConfigError
from sublevel.field import EveryExample, Quadratic
from sublevel.geometry.curvature import along, diagonal, diagonal_entries, hessian, matched_sets, trace
from sublevel.geometry.curvature.traces import METHODS

F64 = torch.float64
MASKS = ("all", "random", "dead")
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))
MILD = Spec("mild", (*even(-0.4, 3, 36), 8.0, 5.0, 5.0, 4.0))
FIELD, ORIGIN = Quadratic(MILD.hessian), torch.zeros(40, dtype=F64)


def inside(matrix, mask):
    return matrix if mask is None else matrix[mask][:, mask]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MASKS)
@every
def test_traces_and_diagonals_of_every_net(case, policy, kind):
    mask = case.masks()[kind]
    small, field = inside(dense(case, policy)[2], mask), case.field(policy)
    scale = float(small.diagonal().abs().sum())
    exact = trace(field, case.point, method="exact", mask=mask, together=64)
    assert exact.value == pytest.approx(float(small.trace()), rel=1e-8, abs=1e-10 * scale)
    assert (exact.se, exact.draws, exact.products) == (0.0, 0, len(small))
    of = hessian(field, case.point, mask)
    signs = torch.stack([of.draw(7, i, stream="probe:trace", signs=True) for i in range(6)])
    sampled = (signs * (signs @ small)).sum(dim=1)
    drawn = trace(field, case.point, probes=6, mask=mask, seed=7, together=4)
    assert drawn.value == pytest.approx(float(sampled.mean()), rel=1e-8, abs=1e-10 * scale)
    assert drawn.diagnostics["sampling_se"] == pytest.approx(float(sampled.std()) / math.sqrt(6), rel=1e-6)
    assert drawn.se == max(drawn.diagnostics["sampling_se"], drawn.diagnostics["implied_se"])
    found = diagonal(field, case.point, probes=6, mask=mask, seed=7, together=4)
    entries = signs * (signs @ small)
    kept = slice(None) if mask is None else mask
    torch.testing.assert_close(found.values[kept], entries.mean(dim=0), rtol=1e-8, atol=1e-10 * scale)
    torch.testing.assert_close(found.se[kept], entries.std(dim=0) / math.sqrt(6), rtol=1e-6, atol=1e-10 * scale)
    if mask is not None:
        assert bool(found.values[~mask].isnan().all() and found.se[~mask].isnan().all())


@every
def test_entries_of_the_diagonal_of_every_net(case, policy):
    truth = dense(case, policy)[2].diagonal()
    index = torch.arange(case.space.dim - 1, 0, -7)
    found = diagonal_entries(case.field(policy), case.point, index, together=16)
    torch.testing.assert_close(found, truth[index], rtol=1e-8, atol=1e-10 * float(truth.abs().max()))


seeds = pytest.mark.parametrize(
    ("seeds", "least", "most"), [(250, 0.9, 0.99), pytest.param(2000, 0.93, 0.97, marks=pytest.mark.full)]
)


def check_calibration(estimates, truth, least, most):
    """The mean within 3 standard errors of the truth; the share of 95% t intervals that hold it."""
    values, se = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "se"))
    assert abs(values.mean() - truth) <= 3 * values.std(ddof=1) / math.sqrt(len(values))
    covered = (np.abs(values - truth) <= stats.t.ppf(0.975, estimates[0].draws - 1) * se).mean()
    assert least <= covered <= most


@seeds
@pytest.mark.parametrize(("method", "probes"), [("hutchinson", 10), ("hutch++", 24)])
def test_traces_are_unbiased_and_their_intervals_cover(method, probes, seeds, least, most):
    found = [trace(FIELD, ORIGIN, seed=seed, method=method, probes=probes, together=24) for seed in range(seeds)]
    check_calibration(found, sum(MILD.values), least, most)


@seeds
def test_diagonals_are_unbiased_and_their_intervals_cover(seeds, least, most):
    """Coverage is averaged over the entries: a single one has too few off-diagonal terms to be normal."""
    found = [diagonal(FIELD, ORIGIN, probes=12, seed=seed, together=12) for seed in range(seeds)]
    values, se = (np.array([getattr(d, name).numpy() for d in found]) for name in ("values", "se"))
    off = values - MILD.hessian.diagonal().numpy()
    assert (np.abs(off.mean(axis=0)) > 3 * off.std(axis=0, ddof=1) / math.sqrt(seeds)).sum() <= 1
    assert least <= (np.abs(off) <= stats.t.ppf(0.975, 11) * se).mean() <= most


@seeds
def test_curvature_along_sets_is_unbiased_and_its_intervals_cover(seeds, least, most):
    sets = {"first": torch.arange(18), "rest": torch.arange(18, 40)}
    found = [along(FIELD, ORIGIN, sets, probes=10, seed=seed, together=10) for seed in range(seeds)]
    for name, index in sets.items():
        truth = float(MILD.hessian.diagonal()[index].mean())
        check_calibration([row[name] for row in found], truth, least, most)


def test_hutch_plus_plus_is_exact_up_to_its_rank():
    """A matrix of rank 3 lies in a sketch of 4; Hutchinson with as many products does not see that."""
    field = Quadratic(Spec("", (100.0, 30.0, -20.0, *([0.0] * 57))).hessian)
    found = trace(field, torch.zeros(60, dtype=F64), method="hutch++", probes=12)
    assert found.value == pytest.approx(110.0, abs=1e-9)
    assert found.se <= 1e-9
    assert (found.products, found.draws) == (12, 4)
    assert trace(field, torch.zeros(60, dtype=F64), probes=12).se > 1


def test_hutch_plus_plus_has_less_error_where_the_spectrum_decays():
    field = Quadratic(Spec("", spread(-8, 2, 60)).hessian)
    theta, truth = torch.zeros(60, dtype=F64), sum(spread(-8, 2, 60))
    errors = {
        method: np.sqrt(
            np.mean([(trace(field, theta, method=method, probes=30, seed=s).value - truth) ** 2 for s in range(20)])
        )
        for method in ("hutchinson", "hutch++")
    }
    assert errors["hutch++"] < 0.1 * errors["hutchinson"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_counts_its_products(method):
    calls = []

    class Counting(Quadratic):
        def hvp(self, at, v):
            calls.append(len(v))
            return super().hvp(at, v)

    found = trace(Counting(MILD.hessian), ORIGIN, method=method, probes=20, together=3)
    assert sum(calls) == found.products
    assert max(calls) <= 3
    assert abs(found.value - sum(MILD.values)) <= max(5 * found.se, 1e-9)


def test_a_sketch_of_everything_is_exact():
    found = trace(FIELD, ORIGIN, method="hutch++", probes=120)
    assert found.value == pytest.approx(sum(MILD.values), abs=1e-9)
    assert (found.se, found.draws) == (0.0, 0)


def test_a_diagonal_matrix_has_no_variance():
    field = Quadratic(torch.tensor(spread(-3, 1, 30), dtype=F64))
    theta = torch.zeros(30, dtype=F64)
    assert trace(field, theta, probes=3).value == pytest.approx(sum(spread(-3, 1, 30)), rel=1e-12)
    found = diagonal(field, theta, probes=2)
    torch.testing.assert_close(found.values, field.hessian, rtol=1e-12, atol=0)


def test_probes_are_supported_on_the_set():
    """Curvature off the set, and between it and the rest, must not enter: here it is 1e8 times larger."""
    h = torch.zeros(60, 60, dtype=F64)
    h[:30, :30] = torch.eye(30)
    h[30:, 30:] = 1e8
    h[:30, 30:] = h[30:, :30].T + 1e6
    h[30:, :30] = h[:30, 30:].T
    field, theta = Quadratic(h), torch.zeros(60, dtype=F64)
    found = along(field, theta, {"flat": torch.arange(30)}, probes=4)["flat"]
    assert found.value == pytest.approx(1.0, rel=1e-9)
    assert found.draws == 4


def test_small_sets_are_exact_and_others_do_not_disturb():
    sets = {"few": torch.tensor([3, 17, 9]), "many": torch.arange(10, 40)}
    found = along(FIELD, ORIGIN, sets, probes=8)
    few = float(MILD.hessian.diagonal()[sets["few"]].mean())
    assert found["few"].value == pytest.approx(few, rel=1e-10)
    assert (found["few"].se, found["few"].draws, found["few"].products) == (0.0, 0, 3)
    assert along(FIELD, ORIGIN, {"many": sets["many"]}, probes=8)["many"] == found["many"]


def test_curvature_along_a_pruning_step():
    """On a net: sampled means against the dense diagonal."""
    case = named("wide")
    after = case.masks()["random"]
    sets = matched_sets(case.space, case.space.full_mask(), after)
    truth = dense(case, "stored")[2].diagonal()
    found = along(case.field(), case.point, sets, probes=40)
    for name, index in sets.items():
        assert abs(found[name].value - float(truth[index].mean())) <= 4 * found[name].se
        assert found[name].diagnostics["size"] == len(index)
    exact = along(case.field(), case.point, sets, probes=len(sets["kept"]))
    for name, index in sets.items():
        assert exact[name].value == pytest.approx(float(truth[index].mean()), rel=1e-8)


def test_float32_accumulates_in_float64():
    """10^6 entries near 1: their float32 sum is off by more than the last of them."""
    n = 1_000_000
    field = Quadratic(torch.full((n,), 1.0001))
    found = trace(field, torch.zeros(n), probes=2)
    assert found.value == pytest.approx(n * float(torch.tensor(1.0001)), rel=1e-12)


def test_one_probe_has_no_standard_error():
    assert math.isnan(trace(FIELD, ORIGIN, probes=1).se)
    assert bool(diagonal(FIELD, ORIGIN, probes=1).se.isnan().all())
    assert math.isnan(trace(FIELD, ORIGIN, method="hutch++", probes=3).se)


def test_blocks_change_nothing():
    one, many = (trace(FIELD, ORIGIN, probes=10, together=together) for together in (1, 7))
    assert one.value == pytest.approx(many.value, rel=1e-12)
    assert one.se == pytest.approx(many.se, rel=1e-10)


def test_what_is_refused():
    for count in ("probes", "together"):
        for estimator in (trace, diagonal):
            with pytest.raises(ValueError, match=f"{count} must be at least 1, got 0"):
                estimator(FIELD, ORIGIN, **{count: 0})
    with pytest.raises(ConfigError, match=r"unknown trace estimator 'hutch'"):
        trace(FIELD, ORIGIN, method="hutch")
    with pytest.raises(ValueError, match=r"hutch\+\+ needs at least 3 probes, one for each of its parts, got 2"):
        trace(FIELD, ORIGIN, method="hutch++", probes=2)
    with pytest.raises(ValueError, match=r"length 3 .* dimension 40"):
        diagonal(FIELD, ORIGIN, mask=torch.ones(3, dtype=torch.bool))
    for bad, said in (([], "no coordinate"), ([0, 40], "from 0 to 40 in a space of dimension 40"), ([1, 1], "twice")):
        with pytest.raises(ValueError, match=f"set 'own': .*{said}"):
            along(FIELD, ORIGIN, {"own": torch.tensor(bad, dtype=torch.int64)})
    with pytest.raises(ValueError, match="coordinates: coordinates from -1 to -1"):
        diagonal_entries(FIELD, ORIGIN, torch.tensor([-1]))
    with pytest.raises(FloatingPointError, match="not finite"):
        trace(Quadratic(torch.tensor([1.0, math.inf])), torch.zeros(2))
    index = torch.tensor([0])
    for estimator, rest in ((trace, ()), (diagonal, ()), (diagonal_entries, (index,)), (along, ({"own": index},))):
        with pytest.raises(TypeError, match=r"needs a field .* changes from call to call"):
            inspect.unwrap(estimator)(EveryExample(FIELD), ORIGIN, *rest)
