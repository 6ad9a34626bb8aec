"""Spectra of residual networks in float32: orthogonal, without ghosts, as in float64, whatever the batch size."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from cases import even, spread
from sublevel.field import Quadratic
from sublevel.geometry.curvature import hessian, spectral_density, top_eigenvalues
from sublevel.geometry.curvature.lanczos import lanczos
from sublevel.models import build
from sublevel.risk import EmpiricalRisk
from sublevel.rng import seeded
from sublevel.space import Space


@cache
def network(name, width, examples, size):
    """A network after a few steps of full-batch gradient descent, so that its spectrum has outliers; float32."""
    with seeded(0, "init"):
        net = build(name, input_shape=(3, size, size), classes=10, width=width)
    rng = torch.Generator().manual_seed(1)
    y = torch.randint(0, 10, (examples,), generator=rng)
    x = torch.randn(examples, 3, size, size, generator=rng) + torch.randn(10, 3, size, size, generator=rng)[y]
    space = Space.of(net)
    point = space.point(net)
    field = EmpiricalRisk(space, net, x, y, policy="batch", batch_size=examples)
    for _ in range(20):
        point = type(point)(point.theta - 0.05 * field.grad(point), point.buffers)
    settled = EmpiricalRisk(space, net, x, y, policy="recomputed", batch_size=examples).settle(point)
    return net, space, settled, x, y


def field_of(parts, *, double=False, batch_size=1000):
    net, space, point, x, y = parts
    x, point = (x.double(), point.to(dtype=torch.float64)) if double else (x, point)
    return EmpiricalRisk(space, net, x, y, policy="stored", batch_size=batch_size), point


def check_orthogonality(parts, steps):
    """Of every pair of Lanczos vectors; and lambda_1 stands in the Krylov space once."""
    field, point = field_of(parts)
    of = hessian(field, point)
    ritz = lanczos(of, of.draw(0, 0), steps=steps)
    gram = ritz.basis.double() @ ritz.basis.double().T - torch.eye(steps, dtype=torch.float64)
    assert len(ritz.basis) == steps
    assert float(gram.abs().max()) <= 1e-5
    values = ritz.values[::-1]
    assert values[0] - values[1] > 1e-4 * values[0]
    assert len({round(v / values[0], 5) for v in values[:10]}) == 10


def check_precision(parts, k):
    """Each eigenvalue to 1e-4 of its own size, which is stricter than of lambda_1."""
    single = top_eigenvalues(*field_of(parts), k=k)
    double = top_eigenvalues(*field_of(parts, double=True), k=k)
    assert double.converged
    assert single.converged
    torch.testing.assert_close(single.values, double.values, rtol=1e-4, atol=0)


def check_batches(parts, sizes):
    """Relative to lambda_1: float32 sums in another order."""
    spectra = [top_eigenvalues(*field_of(parts, batch_size=size), k=5, tolerance=1e-4).values for size in sizes]
    for other in spectra[1:]:
        torch.testing.assert_close(other, spectra[0], rtol=0, atol=1e-5 * float(spectra[0][0]))


def test_resnet_8_stays_orthogonal_for_200_steps():
    check_orthogonality(network("resnet-8", 4, 12, 8), 200)


def test_resnet_8_in_float32_is_as_in_float64():
    check_precision(network("resnet-8", 4, 12, 8), 20)


def test_resnet_8_does_not_depend_on_the_batch_size():
    check_batches(network("resnet-8", 4, 12, 8), (12, 5))


def test_resnet_8_densities_do_not_depend_on_the_batch_size():
    parts = network("resnet-8", 4, 12, 8)
    one, many = (spectral_density(*field_of(parts, batch_size=size), probes=2, steps=10) for size in (5, 12))
    for f in (lambda x: x, lambda x: x**2):
        assert one.integrate(f).value == pytest.approx(many.integrate(f).value, rel=1e-5)


@pytest.mark.full
def test_resnet_20():
    parts = network("resnet-20", 16, 20, 16)
    assert parts[1].dim > 270_000
    check_orthogonality(parts, 200)
    check_precision(parts, 20)
    check_batches(parts, (20, 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_double_eigenvalues_are_found_twice_and_single_ones_once(dtype):
    values = torch.tensor((*spread(-4, 0, 600), 9.0, 9.0, 5.0, 4.0, 4.0, 3.0), dtype=dtype)
    found = top_eigenvalues(Quadratic(values), torch.zeros(606, dtype=dtype), k=7)
    assert found.converged, found.stop
    truth = torch.tensor([9.0, 9.0, 5.0, 4.0, 4.0, 3.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found.values, truth, rtol=0, atol=1e-3)


def test_lockstep_runs_stay_orthogonal_too():
    """Ghosts would hold weight twice: the moments of a rule of 150 float32 steps are those of its probe."""
    values = torch.tensor((*even(0, 1, 500), 1000.0))
    found = spectral_density(Quadratic(values), torch.zeros(501), probes=3, steps=150)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        assert (nodes > 900).sum() == 1
        assert weights.sum() == pytest.approx(1.0)
