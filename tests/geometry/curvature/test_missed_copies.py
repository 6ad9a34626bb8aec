"""Eigenvalues that one start cannot see: found, or the pairs that they would move down are not called converged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hard_spectra import MULTIPLE, searched
from torch import nn

from sublevel.field import Quadratic
from sublevel.geometry.curvature import diagonal, log_determinant, spectral_density, top_eigenvalues, trace
from sublevel.geometry.curvature.lanczos import lanczos
from sublevel.geometry.curvature.missed import MISSED
from sublevel.risk import EmpiricalRisk
from sublevel.space import Space

F32, F64 = torch.float32, torch.float64


@pytest.mark.parametrize("spec", MULTIPLE, ids=str)
def test_no_copy_is_missed_and_called_converged(spec):
    """Up to four copies are found, and then converged: a flag that is always up is none."""
    for seed in range(4):
        found, wrong = searched(spec, seed)
        assert not wrong
        assert found.converged or "integers" in spec.name, found.stop
        assert found.chance_missed == MISSED <= 1e-3
        assert 0 <= found.search_products < found.products


@pytest.mark.full
@pytest.mark.parametrize("spec", MULTIPLE, ids=str)
def test_two_hundred_trials_of_each(spec):
    assert not any(searched(spec, seed)[1] for seed in range(4, 204))


def test_the_chance_of_an_unseen_eigenvalue_is_no_larger_than_declared():
    """Starts that show so little of lambda_1 that it would be excluded: in a share p of them at most."""
    values = torch.cat([torch.tensor([1.0]), torch.linspace(0, 0.6, 60)]).double()
    rng = torch.Generator().manual_seed(0)
    for steps, trials in ((2, 300), (4, 1000)):
        chances = []
        for _ in range(trials):
            run = lanczos(lambda v: values * v, torch.randn(61, generator=rng, dtype=F64), steps=steps)
            chances.append(run.progress.chance_of_more(1.0))
        for p in (0.03, 0.1, 0.3):
            assert (np.array(chances) <= p).mean() <= p + 3 * (p / trials) ** 0.5
    assert min(chances) < 0.05  # and the bound is no looser than it must be
    assert (np.array(chances) <= 0.3).mean() > 0.2


@pytest.mark.parametrize("large", [-1e6, 1e6])
def test_each_pair_is_judged_by_its_own_size(large):
    h = torch.cat([torch.full((4,), large), torch.tensor([5e-3, 2e-3, 1e-3]), torch.zeros(300)]).double()
    k = 3 if large < 0 else 7
    found = top_eigenvalues(Quadratic(h), torch.zeros_like(h), k=k)
    assert found.converged
    assert found.values.tolist()[-3:] == pytest.approx([5e-3, 2e-3, 1e-3], rel=1e-5)
    assert bool((found.bounds[-3:] <= 0.01 * found.values[-3:]).all())


@pytest.mark.parametrize(
    ("dtype", "unit"), [(F64, 1e-200), (F64, 1e-300), (F64, 1e200), (F32, 1e-30), (F32, 1e30), (F32, 1.0)]
)
def test_scales_neither_vanish_nor_overflow(dtype, unit):
    h = torch.cat([torch.tensor([4.0, 4.0, 3.0, 1.0]), torch.linspace(0, 0.5, 200)]).to(dtype)
    small = Quadratic(unit * h)
    found = top_eigenvalues(small, torch.zeros_like(h), k=4)
    assert found.converged, found.stop
    assert (found.values / unit).tolist() == pytest.approx([4.0, 4.0, 3.0, 1.0], rel=1e-4)
    density = spectral_density(small, torch.zeros_like(h), probes=4, steps=30)
    assert density.integrate(lambda x: x / unit).value == pytest.approx(float(h.double().sum()), rel=0.2)
    assert density.reason == trace(small, torch.zeros_like(h), probes=4).reason == ""


def test_a_value_that_equals_the_last_is_no_division_by_zero():
    """With a residual of 0: the rows of an identity, and a Krylov space that is exhausted."""
    for h in (torch.ones(50, dtype=F64), torch.cat([torch.ones(2), torch.zeros(60)]).double()):
        with np.errstate(all="raise"):
            found = top_eigenvalues(Quadratic(h), torch.zeros_like(h), k=3)
        assert found.converged
        assert found.values.tolist() == pytest.approx(h.sort(descending=True).values[:3].tolist(), abs=1e-12)


class Forgetful(torch.autograd.Function):
    """``x W^T`` with the right gradient; the derivative of that in W forgets that x depends on parameters."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight, g.T @ x.detach()


class Last(nn.Linear):
    def forward(self, x):
        return Forgetful.apply(x, self.weight) + self.bias


def network(dtype, *, wrong):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), (Last if wrong else nn.Linear)(12, 3)).to(dtype)
    x, y = torch.randn(80, 6, dtype=dtype), torch.randint(0, 3, (80,))
    space = Space.of(net)
    return EmpiricalRisk(space, net, x, y), space.point(net)


def reasons(field, at):
    """What every estimator says of a curvature, by its name."""
    said = {"eigenvalues": top_eigenvalues(field, at, k=3).stop.replace("converged", "")}
    said["the whole matrix"] = top_eigenvalues(field, at, k=60).stop.replace("converged", "")
    for method, probes in (("hutchinson", 1), ("hutchinson", 8), ("hutch++", 9), ("exact", 1)):
        said[f"trace {method} {probes}"] = trace(field, at, method=method, probes=probes).reason
    said["diagonal"] = diagonal(field, at, probes=4).reason
    for method in ("lanczos", "exact"):
        density = spectral_density(field, at, probes=2, steps=12, method=method)
        said[f"density {method}"] = density.reason
        said[f"sum {method}"] = density.integrate(lambda x: x).reason
        said[f"log-determinant {method}"] = log_determinant(field, at, damping=1.0, steps=60, method=method).reason
    return said


@pytest.mark.parametrize("dtype", [F64, F32])
def test_a_second_derivative_that_is_not_symmetric_is_said_by_every_estimator(dtype):
    for name, said in reasons(*network(dtype, wrong=True)).items():
        assert said.startswith("not symmetric: u.Av and v.Au differ by"), name


@pytest.mark.parametrize("dtype", [F64, F32])
def test_a_symmetric_one_is_not(dtype):
    assert not any(reasons(*network(dtype, wrong=False)).values())


def test_no_pair_of_an_unsymmetric_operator_is_converged():
    field, at = network(F64, wrong=True)
    found = top_eigenvalues(field, at, k=3)
    assert not any(found.pair_converged)
    assert found.asymmetry > 1e-2
