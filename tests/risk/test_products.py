"""Gauss-Newton and Fisher products and per-example gradients against dense float64, for every case, policy and mask."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import (
    CASES_BY_POLICY,
    dense,
    dense_example_grads,
    dense_gauss_newton,
    ids,
    naive_losses,
    naive_outputs,
    named,
)
from sublevel.errors import ConfigError, ModelError
from sublevel.field import Likelihood, Restricted
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.curvature.operators import fisher, ggn
from sublevel.risk import EmpiricalRisk
from sublevel.risk.losses import categorical, gaussian
from sublevel.rng import generator
from sublevel.space import Space

F64 = torch.float64
SEPARATE = [(case, policy) for case, policy in CASES_BY_POLICY if policy != "batch"]
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))
separate = pytest.mark.parametrize(("case", "policy"), SEPARATE, ids=map(ids, SEPARATE))


def relative(got, want):
    return float((got - want).norm() / want.norm())


def matrix(product, dim):
    return product(torch.eye(dim, dtype=F64))


@every
def test_gauss_newton_products(case, policy):
    field, truth = case.field(policy), dense_gauss_newton(case, policy)
    assert isinstance(field, Likelihood)
    v = torch.randn(3, case.space.dim, dtype=F64)
    several = field.ggn_vp(case.point, v)
    assert relative(several, v @ truth) < 1e-11
    for row, product in zip(v, several, strict=True):
        torch.testing.assert_close(field.ggn_vp(case.point, row), product, rtol=1e-12, atol=1e-14)
    assert relative(dense(case, policy)[2], truth) > 1e-2, "the case does not tell GGN and Hessian apart"


@every
def test_gauss_newton_in_the_subspace_of_every_mask(case, policy):
    truth = dense_gauss_newton(case, policy)
    for kind in ("random", "dead"):
        mask = case.masks()[kind]
        small = truth[mask][:, mask]
        got = torch.from_numpy(ggn(case.field(policy), case.point, mask).matrix())
        assert relative(got, small) < 1e-11
        assert float(torch.linalg.eigvalsh(got)[0]) > -1e-12 * float(small.norm())


def test_gauss_newton_goes_through_the_statistics_of_the_batch():
    """Held constant, the statistics would give another matrix."""
    case = named("normalised")
    batch = dense_gauss_newton(case, "batch")
    assert relative(dense_gauss_newton(case, "recomputed"), batch) > 1e-2
    assert relative(matrix(lambda v: case.field("batch").ggn_vp(case.point, v), case.space.dim), batch) < 1e-11


@pytest.mark.parametrize("name", ["perceptron", "convolution"])
def test_gauss_newton_of_cross_entropy_is_the_mean_of_outer_products_over_the_models_labels(name):
    """``sum_k p_k g_k g_k^T`` with g_k the gradient under label k: the Fisher matrix, with no draw."""
    case = named(name)
    outputs, theta = naive_outputs(case, "stored", case.point), case.point.theta
    p = outputs(theta).softmax(dim=1)
    total = torch.zeros(case.space.dim, case.space.dim, dtype=F64)
    for k in range(3):
        labels = torch.full((case.examples,), k)
        g = torch.func.jacrev(lambda t, labels=labels: naive_losses(case, outputs(t), labels))(theta)
        total += g.T @ (p[:, k, None] * g) / case.examples
    assert relative(matrix(lambda v: case.field().ggn_vp(case.point, v), case.space.dim), total) < 1e-11


def test_gauss_newton_of_a_linear_model_is_its_hessian():
    net = nn.Sequential(nn.Linear(6, 2)).double()
    field = EmpiricalRisk(Space.of(net), net, *named("regression").data, loss="squared", batch_size=16)
    theta, v = torch.randn(14, dtype=F64), torch.randn(4, 14, dtype=F64)
    torch.testing.assert_close(field.ggn_vp(theta, v), field.hvp(theta, v), rtol=1e-11, atol=1e-13)


def own_loss(outputs, targets):
    """Log-cosh of the first output against the target, plus a coupling of the others: no diagonal Hessian."""
    return torch.log(torch.cosh(outputs[:, 0] - targets)) + 0.3 * (outputs[:, 1] * outputs[:, 2]) ** 2


def test_gauss_newton_of_a_loss_of_ones_own():
    case = named("perceptron")
    outputs, theta = naive_outputs(case, "stored", case.point), case.point.theta
    z, jacobian = outputs(theta), torch.func.jacrev(outputs)(theta)
    a, b, c = z[:, 0] - case.data[1], z[:, 1], z[:, 2]
    inner = torch.zeros(case.examples, 3, 3, dtype=F64)
    inner[:, 0, 0] = torch.cosh(a) ** -2
    inner[:, 1, 1], inner[:, 2, 2] = 0.6 * c**2, 0.6 * b**2
    inner[:, 1, 2] = inner[:, 2, 1] = 1.2 * b * c
    truth = torch.einsum("nca,ncd,ndb->ab", jacobian, inner, jacobian) / case.examples
    got = matrix(lambda v: case.field(loss=own_loss).ggn_vp(case.point, v), case.space.dim)
    assert relative(got, truth) < 1e-11


def test_a_loss_that_is_linear_in_the_outputs_has_no_gauss_newton_matrix():
    case = named("perceptron")
    field = case.field(loss=lambda outputs, targets: outputs.sum(dim=1))
    v = torch.randn(2, case.space.dim, dtype=F64)
    assert torch.equal(field.ggn_vp(case.point, v), torch.zeros_like(v))
    assert float(field.hvp(case.point, v).norm()) > 0


@separate
def test_gradients_of_every_example_in_order(case, policy):
    field, truth = case.field(policy), dense_example_grads(case, policy)
    for chunk in (None, 5, 1):
        parts = list(field.example_grads(case.point, chunk=chunk))
        assert relative(torch.cat(parts), truth) < 1e-11
        assert {len(part) for part in parts[:-1]} <= {chunk or case.batch_size}
    torch.testing.assert_close(truth.mean(0), field.grad(case.point), rtol=1e-10, atol=1e-13)


def test_chunks_are_small_where_the_dimension_is_large(monkeypatch):
    case = named("perceptron")
    monkeypatch.setattr("sublevel.risk.empirical.CHUNK", 3 * case.space.dim + 1)
    assert {len(part) for part in case.field().example_grads(case.point)} == {3, 1}
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        case.field().example_grads(case.point, chunk=0)


def test_a_network_that_cannot_be_vectorised_is_taken_example_by_example():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)

    net = Branching(6, 3).double()
    field = EmpiricalRisk(Space.of(net), net, *named("perceptron").data, batch_size=1)
    theta = torch.randn(21, dtype=F64)
    one_by_one = torch.cat(list(field.example_grads(theta, chunk=1)))
    torch.testing.assert_close(one_by_one.mean(0), field.grad(theta), rtol=1e-11, atol=1e-13)
    together = list(EmpiricalRisk(field.space, net, *named("perceptron").data).example_grads(theta, chunk=4))
    assert [len(part) for part in together] == [4] * 9 + [1]
    torch.testing.assert_close(torch.cat(together), one_by_one, rtol=1e-11, atol=1e-13)


@separate
def test_empirical_fisher_is_the_mean_of_outer_products(case, policy):
    field, g = case.field(policy), dense_example_grads(case, policy)
    truth = g.T @ g / case.examples
    v = torch.randn(3, case.space.dim, dtype=F64)
    assert relative(field.fisher_vp(case.point, v), v @ truth) < 1e-11
    torch.testing.assert_close(field.fisher_vp(case.point, v[0]), v[0] @ truth, rtol=1e-10, atol=1e-13)
    mask = case.masks()["dead"]
    assert relative(torch.from_numpy(fisher(field, case.point, mask).matrix()), truth[mask][:, mask]) < 1e-11


def drawn_labels(case, policy, seed):
    """The labels by hand: inversion example by example, or normal noise of variance C."""
    z, g = naive_outputs(case, policy, case.point)(case.point.theta).detach(), generator(seed, "probe:labels")
    if case.loss == "squared":
        return z + z.shape[1] ** 0.5 * torch.randn(z.shape, generator=g, dtype=F64)
    uniform, labels = torch.rand(len(z), generator=g, dtype=F64), []
    for row, u in zip(z.exp() / z.exp().sum(1, keepdim=True), uniform, strict=True):
        label, below = 0, float(row[0])
        while below <= float(u):
            label += 1
            below += float(row[label])
        labels.append(label)
    return torch.tensor(labels)


@separate
def test_monte_carlo_fisher_is_the_mean_of_outer_products_under_drawn_labels(case, policy):
    outputs, labels = naive_outputs(case, policy, case.point), drawn_labels(case, policy, seed=3)
    g = torch.func.jacrev(lambda t: naive_losses(case, outputs(t), labels))(case.point.theta)
    v = torch.randn(2, case.space.dim, dtype=F64)
    for batch_size in (case.batch_size, 7):  # labels belong to the examples, not to the batches
        field = case.field(policy, **({} if policy == "recomputed" else {"batch_size": batch_size}))
        got = field.fisher_vp(case.point, v, kind="monte-carlo", seed=3)
        assert relative(got, v @ g.T @ g / case.examples) < 1e-10
        assert relative(field.fisher_vp(case.point, v, kind="monte-carlo", seed=4), got) > 1e-2


@pytest.mark.parametrize("name", ["perceptron", "regression"])
def test_the_mean_of_monte_carlo_fisher_matrices_is_the_gauss_newton_matrix(name):
    case, draws = named(name), 100
    field, truth = case.field(), dense_gauss_newton(case, "stored")
    v = F.normalize(torch.randn(4, case.space.dim, dtype=F64), dim=1)
    values = torch.stack(
        [(v * field.fisher_vp(case.point, v, kind="monte-carlo", seed=s)).sum(1) for s in range(draws)]
    )
    se = values.std(0) / draws**0.5
    want = ((v @ truth) * v).sum(1)
    assert bool(((values.mean(0) - want).abs() < 4 * se).all())
    assert bool((se < 0.3 * want).all()), "too few draws to tell the scale"


def test_labels_are_drawn_with_the_models_probabilities():
    outputs = torch.tensor([[0.0, 1.0, -1.0]], dtype=F64).expand(20000, 3)
    labels = categorical(outputs, torch.rand(20000, generator=generator(0, "probe"), dtype=F64))
    shares = torch.bincount(labels, minlength=3) / 20000
    torch.testing.assert_close(shares.double(), outputs[0].softmax(0), rtol=0, atol=0.012)
    assert categorical(torch.zeros(1, 3), torch.tensor([1 - 1e-16], dtype=F64)).tolist() == [2]
    noise = torch.randn(20000, 4, generator=generator(1, "probe"), dtype=F64)
    outputs = torch.ones(20000, 4, dtype=F64)
    assert float(gaussian()(outputs, noise).std()) == pytest.approx(2.0, rel=0.02)
    assert float(gaussian(0.5)(outputs, noise).std()) == pytest.approx(2.0**0.5, rel=0.02)


@pytest.mark.parametrize("name", ["convolution", "normalised"])
def test_per_example_gradients_are_undefined_through_batch_statistics(name):
    case, v = named(name), torch.ones(named(name).space.dim, dtype=F64)
    field = case.field("batch")
    with pytest.raises(ValueError, match="a gradient per example is undefined under the 'batch' policy: BatchNorm"):
        field.example_grads(case.point)  # before the first chunk is asked for
    for kind in ("empirical", "monte-carlo"):
        with pytest.raises(ValueError, match="a Fisher matrix is undefined under the 'batch' policy"):
            field.fisher_vp(case.point, v, kind=kind)


def test_what_a_loss_cannot_answer_is_refused():
    case, v = named("perceptron"), torch.ones(named("perceptron").space.dim, dtype=F64)
    with pytest.raises(
        ModelError, match=r"own_loss names no distribution .*; cross-entropy, binary-cross-entropy, squared and mse do"
    ):
        case.field(loss=own_loss).fisher_vp(case.point, v, kind="monte-carlo")
    with pytest.raises(ConfigError, match="unknown kind of Fisher matrix 'montecarlo'; did you mean 'monte-carlo'"):
        case.field().fisher_vp(case.point, v, kind="montecarlo")
    mean = case.field(loss=lambda outputs, targets: F.cross_entropy(outputs, targets))
    with pytest.raises(ModelError, match=r"one number per example: got shape \[\] for 20"):
        mean.fisher_vp(case.point, v)


def test_float32_products_agree_with_float64():
    case = named("convolution")
    x, y = case.data
    field = EmpiricalRisk(case.space, copy.deepcopy(case.module).float(), x.float(), y, batch_size=12)
    point, v = case.point.to(dtype=torch.float32), torch.randn(case.space.dim)
    truth, g = dense_gauss_newton(case, "stored"), dense_example_grads(case, "stored")
    assert relative(field.ggn_vp(point, v).double(), truth @ v.double()) < 1e-5
    assert relative(field.fisher_vp(point, v).double(), g.T @ (g @ v.double()) / case.examples) < 1e-5


@pytest.mark.parametrize("name", ["dropout", "normalised", "convolution"])
def test_the_mode_of_the_module_is_no_part_of_any_product(name):
    case = named(name)
    v = torch.randn(case.space.dim, dtype=F64)
    assert case.module.training

    def everything():
        field = case.field()
        fishers = [field.fisher_vp(case.point, v, kind=kind) for kind in ("empirical", "monte-carlo")]
        grads = torch.cat(list(field.example_grads(case.point)))
        return [field.grad(case.point), field.hvp(case.point, v), field.ggn_vp(case.point, v), *fishers, grads]

    train = everything()
    try:
        case.module.eval()
        assert all(torch.equal(a, b) for a, b in zip(train, everything(), strict=True))
    finally:
        case.module.train()


def test_fused_attention_has_no_second_derivative_and_fields_do_without_it():
    """If the first part fails, the library has learnt it and the math kernel can go."""
    q = torch.randn(1, 1, 4, 3, dtype=F64, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        (g,) = torch.autograd.grad(F.scaled_dot_product_attention(q, q, q).sum(), q, create_graph=True)
        with pytest.raises(RuntimeError, match="not implemented"):
            torch.autograd.grad(g.square().sum(), q)
    case = named("attention")
    v = torch.randn(case.space.dim, dtype=F64)
    assert relative(case.field().hvp(case.point, v), dense(case, "stored")[2] @ v) < 1e-11


@every
def test_restriction_to_the_coordinates_of_a_mask(case, policy):
    field, (_, gradient, hessian) = case.field(policy), dense(case, policy)
    mask = case.masks()["dead"]
    inside = Restricted(field, mask, case.point)
    assert (inside.dim, inside.policy, inside.examples) == (int(mask.sum()), field.policy, case.examples)
    assert inside.evaluate(inside.start) == field.evaluate(case.point)
    v = torch.randn(2, inside.dim, dtype=F64)
    assert relative(inside.grad(inside.start), gradient[mask]) < 1e-11
    assert relative(inside.hvp(inside.start, v), v @ hessian[mask][:, mask]) < 1e-11


def test_eigenvalues_of_a_restriction_are_those_in_the_subspace():
    case = named("convolution")
    mask = case.masks()["random"]
    inside = Restricted(case.field("recomputed"), mask, case.point)
    a = top_eigenvalues(inside, inside.start, k=3).values
    torch.testing.assert_close(
        a, top_eigenvalues(case.field("recomputed"), case.point, k=3, mask=mask).values, rtol=1e-6, atol=0
    )
