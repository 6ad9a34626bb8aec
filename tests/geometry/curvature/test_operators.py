"""Operators: Hessian, GGN and Fisher in R^D and in subspaces, plain and scaled."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

from cases import CASES_BY_POLICY, dense, ids, naive_outputs, named, spread
from sublevel.field import Evaluation, EveryExample, Likelihood, Quadratic
from sublevel.geometry.curvature import (
    diagonal,
    fisher,
    ggn,
    hessian,
    log_determinant,
    spectral_density,
    top_eigenvalues,
    trace,
)
from sublevel.geometry.curvature.operators import LARGEST_MATRIX, OPERATORS, Operator
from sublevel.space import as_point

F64 = torch.float64
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))


class Regression(Likelihood):
    """Linear regression at half the mean squared error: H = GGN = X^T X / N; Fisher by its formula."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    @property
    def dim(self):
        return self.x.shape[1]

    def residuals(self, at):
        return self.x @ as_point(at).theta - self.y

    def evaluate(self, at):
        return Evaluation(float(self.losses(at).mean()), examples=len(self.x))

    def losses(self, at):
        return 0.5 * self.residuals(at) ** 2

    def grad(self, at):
        return self.x.T @ self.residuals(at) / len(self.x)

    def hvp(self, at, v):
        return v @ self.x.T @ self.x / len(self.x)

    def ggn_vp(self, at, v):
        return self.hvp(at, v)

    def fisher_vp(self, at, v, *, kind="empirical", seed=0):
        r = self.residuals(at)
        if kind == "monte-carlo":
            r = torch.randn(len(r), generator=torch.Generator().manual_seed(seed), dtype=F64)
        g = self.x * r[:, None]
        return v @ g.T @ g / len(g)

    def example_grads(self, at):
        yield self.x * self.residuals(at)[:, None]


def regression(n=12, examples=50):
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(examples, n, generator=rng, dtype=F64) * torch.tensor(spread(-1, 0.5, n), dtype=F64)
    return Regression(x, torch.randn(examples, generator=rng, dtype=F64)), torch.ones(n, dtype=F64)


@every
def test_products_in_every_subspace_of_every_net(case, policy):
    truth, field = dense(case, policy)[2], case.field(policy)
    for mask in case.masks().values():
        of = hessian(field, case.point, mask)
        small = truth if mask is None else truth[mask][:, mask]
        v = torch.stack([of.draw(0, i) for i in range(3)])
        assert v.shape == (3, of.dimension)
        torch.testing.assert_close(of(v), v @ small, rtol=1e-8, atol=1e-9 * float(truth.abs().max()))
        torch.testing.assert_close(of.restrict(of.embed(v)), v, rtol=0, atol=0)
        assert mask is None or bool((of.embed(v)[:, ~mask] == 0).all())


def naive_ggn(case, policy):
    """J^T H J / N with the Hessian of the loss in the outputs by its formula."""
    outputs = naive_outputs(case, policy, case.point)
    jacobian, z = torch.func.jacrev(outputs)(case.point.theta), outputs(case.point.theta)
    if case.loss == "squared":
        inner = torch.eye(z.shape[1], dtype=F64).expand(len(z), -1, -1) / z.shape[1]
    else:
        p = z.softmax(dim=1)
        inner = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("nia,nij,njb->ab", jacobian, inner, jacobian) / len(z)


@every
def test_the_ggn_of_every_net(case, policy):
    """In every subspace: products, and top eigenvalues below those of R^D."""
    truth, field = naive_ggn(case, policy), case.field(policy)
    whole = torch.linalg.eigvalsh(truth).flip(0)
    scale = float(whole[0])
    for mask in case.masks().values():
        small = truth if mask is None else truth[mask][:, mask]
        of, values = ggn(field, case.point, mask), torch.linalg.eigvalsh(small).flip(0)
        v = of.draw(0, 0)
        torch.testing.assert_close(of(v), v @ small, rtol=1e-8, atol=1e-8 * scale)
        top = top_eigenvalues(field, case.point, k=2, mask=mask, operator="ggn", restarts=0)
        torch.testing.assert_close(top.values, values[:2], rtol=0, atol=1e-8 * scale)
        assert bool((top.values <= whole[:2] + 1e-8 * scale).all())
        assert top.negative_count == 0


def test_the_ggn_of_a_net_has_its_log_determinant():
    case = named("perceptron")
    mask = case.masks()["random"]
    options = {"mask": mask, "operator": "ggn", "method": "exact"}
    values = torch.linalg.eigvalsh(naive_ggn(case, "stored")[mask][:, mask]).clamp(min=0)
    logdet = log_determinant(case.field(), case.point, damping=0.05, **options)
    assert logdet.value == pytest.approx(float((values + 0.05).log().sum()), rel=1e-8)
    assert trace(case.field(), case.point, **options).value == pytest.approx(float(values.sum()), rel=1e-8)


def test_the_ggn_of_a_regression_is_its_hessian():
    field, theta = regression()
    truth = field.x.T @ field.x / len(field.x)
    np.testing.assert_allclose(ggn(field, theta).matrix(), truth, atol=1e-12)
    top = top_eigenvalues(field, theta, k=3, operator="ggn")
    torch.testing.assert_close(top.values, torch.linalg.eigvalsh(truth).flip(0)[:3], rtol=1e-8, atol=0)
    mask = torch.arange(12) % 3 > 0
    small = truth[mask][:, mask]
    options = {"mask": mask, "operator": "ggn"}
    assert trace(field, theta, method="exact", **options).value == pytest.approx(float(small.trace()), rel=1e-10)
    logdet = log_determinant(field, theta, damping=0.0, method="exact", **options)
    assert logdet.value == pytest.approx(float(torch.logdet(small)), rel=1e-10)


def test_fisher_matrices_are_what_their_kind_says():
    field, theta = regression()
    g = field.x * field.residuals(theta)[:, None]
    np.testing.assert_allclose(fisher(field, theta).matrix(), g.T @ g / 50, atol=1e-12)
    drawn = [fisher(field, theta, kind="monte-carlo", seed=seed).matrix() for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all()
    assert not np.allclose(drawn[0], drawn[2])
    assert not np.allclose(drawn[0], g.T @ g / 50)
    mean = np.mean([fisher(field, theta, kind="monte-carlo", seed=s).matrix() for s in range(200)], axis=0)
    np.testing.assert_allclose(mean, field.x.T @ field.x / 50, atol=0.4)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_by_its_name(name):
    """A new operator is one row of OPERATORS, and every estimator takes it."""
    field, theta = regression()
    matrix = OPERATORS[name](field, theta, None).matrix()
    top = top_eigenvalues(field, theta, k=1, operator=name).values
    assert float(top[0]) == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-6)
    found = spectral_density(field, theta, operator=name, method="exact")
    assert found.integrate(lambda x: x).value == pytest.approx(np.trace(matrix), rel=1e-10)
    assert abs(trace(field, theta, operator=name).value - np.trace(matrix)) < 0.5 * np.trace(matrix)


def test_a_scale_multiplies_both_sides():
    field, theta = regression()
    mask, scale = torch.arange(12) % 3 > 0, torch.linspace(0.0, 2.0, 12, dtype=F64)
    truth = (scale[:, None] * (field.x.T @ field.x / 50) * scale)[mask][:, mask]
    of = hessian(field, theta, mask).scaled(scale)
    np.testing.assert_allclose(of.matrix(), truth, atol=1e-12)
    assert of.name == "adaptive hessian"
    top = top_eigenvalues(field, theta, k=2, mask=mask, scale=scale)
    torch.testing.assert_close(top.values, torch.linalg.eigvalsh(truth).flip(0)[:2], rtol=1e-8, atol=0)
    found = diagonal(field, theta, probes=400, mask=mask, scale=scale)
    inside = (found.values[mask] - truth.diagonal()).abs() / found.se[mask].clamp(min=1e-12)
    assert float(inside.max()) < 4


def test_draws_have_the_dimension_of_the_subspace_and_ignore_precision():
    field = Quadratic(torch.ones(9))
    mask = torch.arange(9) < 4
    single = hessian(field, torch.zeros(9), mask)
    double = hessian(field, torch.zeros(9, dtype=F64), mask)
    for options in ({}, {"signs": True}):
        a, b = single.draw(3, 1, **options), double.draw(3, 1, **options)
        assert (a.dtype, b.dtype) == (torch.float32, F64)
        torch.testing.assert_close(a, b.float(), rtol=0, atol=0)
        assert a.shape == (4,)
    assert set(single.draw(0, 0, signs=True).tolist()) <= {-1.0, 1.0}
    assert not torch.equal(double.draw(3, 1), double.draw(3, 2))
    assert not torch.equal(double.draw(3, 1), double.draw(3, 1, stream="probe:other"))


def test_signs_have_mean_zero_and_no_correlation():
    of = hessian(Quadratic(torch.ones(6, dtype=F64)), torch.zeros(6, dtype=F64))
    z = torch.stack([of.draw(0, i, signs=True) for i in range(3000)])
    torch.testing.assert_close(z.T @ z / 3000, torch.eye(6, dtype=F64), rtol=0, atol=4 / math.sqrt(3000))
    assert float(z.mean(dim=0).abs().max()) < 4 / math.sqrt(3000)


def test_what_is_refused():
    field, theta = regression()
    plain = Quadratic(torch.ones(12, dtype=F64))
    for operator in (ggn, fisher):
        with pytest.raises(TypeError, match=r"needs a likelihood .* got Quadratic"):
            operator(plain, theta)
        with pytest.raises(TypeError, match=r"needs a field .* changes from call to call"):
            inspect.unwrap(operator)(EveryExample(plain), theta)
    of = hessian(field, theta)
    with pytest.raises(ValueError, match=r"a scale of shape \[3\] does not fit dimension 12"):
        of.scaled(torch.ones(3))
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a scale must be finite and not negative"):
            of.scaled(torch.full((12,), bad))
    n = LARGEST_MATRIX + 1
    with pytest.raises(ValueError, match=f"a matrix of dimension {n} is not formed; at most {LARGEST_MATRIX}"):
        Operator(lambda v: v, torch.zeros(n), None, "identity").matrix()


def test_a_point_keeps_its_buffers():
    """Under the stored policy curvature belongs to the point's statistics, not to the module's."""
    case = named("convolution")
    moved = type(case.point)(case.point.theta, {name: b + 1 for name, b in case.point.buffers.items()})
    a, b = (trace(case.field(), at, method="exact", together=64).value for at in (case.point, moved))
    assert a == pytest.approx(float(dense(case, "stored")[2].trace()), rel=1e-8)
    assert b != pytest.approx(a, rel=1e-3)
