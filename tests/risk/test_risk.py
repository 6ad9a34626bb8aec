"""Loss, error, gradient and Hessian products of networks against dense float64, for every case and buffer policy."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from cases import CASES, CASES_BY_POLICY, dense, ids, naive_batches, naive_outputs, naive_statistics, named
from sublevel.errors import ConfigError, SublevelError
from sublevel.field import Autograd, Quadratic, Sum, Wells, plus_weight_decay
from sublevel.risk import LOSSES, EmpiricalRisk, fixed_mode, squared
from sublevel.space import Point, Space

every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))


def relative(got, want):
    return float((got - want).norm() / want.norm())


@every
def test_losses_of_every_example(case, policy):
    losses = dense(case, policy)[0]
    torch.testing.assert_close(case.field(policy).losses(case.point), losses, rtol=1e-12, atol=1e-13)


@every
def test_loss_is_the_mean_over_examples_not_over_batches(case, policy):
    field = case.field(policy)
    losses = dense(case, policy)[0]
    got = field.evaluate(case.point)
    assert got.loss == pytest.approx(float(losses.mean()), rel=1e-13)
    assert got.loss == field.loss(case.point)
    assert got.examples == case.examples
    uneven = torch.stack([losses[part].mean() for part in naive_batches(case)]).mean()
    assert abs(float(uneven) - got.loss) > 1e-6, "the case does not tell the two means apart"


@every
def test_error_is_the_share_of_wrong_answers(case, policy):
    got = case.field(policy).evaluate(case.point).error
    if case.loss == "squared":
        assert math.isnan(got)
        return
    outputs = naive_outputs(case, policy, case.point)(case.point.theta)
    wrong = sum(int(row.argmax()) != int(y) for row, y in zip(outputs, case.data[1], strict=True))
    assert got == wrong / case.examples
    assert 0 < wrong < case.examples


@every
def test_gradient(case, policy):
    assert relative(case.field(policy).grad(case.point), dense(case, policy)[1]) < 1e-12


@every
def test_hessian_products_with_one_and_with_several_vectors(case, policy):
    field, hessian = case.field(policy), dense(case, policy)[2]
    v = torch.randn(3, case.space.dim, dtype=torch.float64)
    several = field.hvp(case.point, v)
    assert several.shape == v.shape
    assert relative(several, v @ hessian) < 1e-11
    for row, product in zip(v, several, strict=True):
        torch.testing.assert_close(field.hvp(case.point, row), product, rtol=1e-13, atol=1e-14)


@every
def test_gradient_agrees_with_differences_of_the_loss(case, policy):
    """Where statistics are recomputed they are constants of the derivative: differences then hold them too."""
    if case.name == "relu":
        pytest.skip("kinks")
    field = case.field(policy)
    fixed = field.settle(case.point)
    plain = case.field("stored") if policy == "recomputed" else field
    v = torch.nn.functional.normalize(torch.randn(case.space.dim, dtype=torch.float64), dim=0)
    h = 1e-5
    ends = [plain.loss(Point(fixed.theta + s * h * v, fixed.buffers)) for s in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(field.grad(case.point) @ v), rel=1e-6, abs=1e-9)


@every
def test_nothing_is_left_behind(case, policy):
    module = case.module
    point = Point(case.point.theta.clone(), {name: b.clone() for name, b in case.point.buffers.items()})
    next(module.children()).eval()  # a mode that a caller has chosen stays too
    try:
        before = _everything(module)
        field = case.field(policy)
        held = [t.clone() for t in (point.theta, *point.buffers.values())]
        field.evaluate(point), field.losses(point), field.grad(point)
        field.hvp(point, torch.ones(case.space.dim, dtype=torch.float64))
        _same(before, _everything(module))
        for was, now in zip(held, (point.theta, *point.buffers.values()), strict=True):
            assert torch.equal(was, now)
        assert not point.theta.requires_grad
        assert point.theta.grad is None
        assert all(p.grad is None for p in module.parameters())
    finally:
        module.train()


@pytest.mark.parametrize("policy", ["batch", "recomputed"])
def test_state_is_put_back_after_an_exception(policy):
    case = named("normalised")
    before = _everything(case.module)
    field = case.field(policy, loss=lambda outputs, targets: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        field.evaluate(case.point)
    field = case.field(policy, prepare=lambda x: x[:, :2])
    with pytest.raises(RuntimeError):
        field.evaluate(case.point)
    _same(before, _everything(case.module))


@pytest.mark.parametrize("name", ["convolution", "normalised"])
def test_the_partition_is_part_of_the_batch_policy_and_of_no_other(name):
    case = named(name)
    for policy in ("stored", "batch"):
        small, large = (case.field(policy, batch_size=n).loss(case.point) for n in (7, case.examples))
        assert (abs(small - large) > 1e-4) == (policy == "batch")


@pytest.mark.parametrize("name", ["convolution", "normalised"])
def test_recomputed_statistics(name):
    case = named(name)
    settled = case.field("recomputed").settle(case.point)
    for key, value in naive_statistics(case, case.point.theta).items():
        torch.testing.assert_close(settled.buffers[key], value, rtol=1e-12, atol=1e-13)
    for key, value in case.point.buffers.items():
        if key.endswith("num_batches_tracked"):
            assert torch.equal(settled.buffers[key], value)


@pytest.mark.parametrize("value", [0.0, 1e30, math.inf, math.nan])
def test_recomputed_statistics_do_not_depend_on_the_stored_ones(value):
    case = named("convolution")
    stale = {n: torch.full_like(b, value) if b.is_floating_point() else b for n, b in case.point.buffers.items()}
    field = case.field("recomputed")
    assert field.loss(Point(case.point.theta, stale)) == field.loss(case.point)


def test_recomputed_statistics_come_from_the_calibration_examples():
    case = named("normalised")
    other = 3 * torch.randn(29, 6, dtype=torch.float64) - 1
    moved = case.field("recomputed", calibration=other).settle(case.point)
    mean, var = moved.buffers["1.running_mean"], moved.buffers["1.running_var"]
    first = other @ case.space.views(case.point.theta)["0.weight"].T + case.space.views(case.point.theta)["0.bias"]
    batches = [first[:20], first[20:]]
    torch.testing.assert_close(mean, first.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(var, sum(len(b) * b.var(0) for b in batches) / 29, rtol=1e-12, atol=1e-12)


def test_a_point_written_in_place_is_settled_anew():
    case = named("normalised")
    field, point = case.field("recomputed"), Point(case.point.theta.clone(), case.point.buffers)
    before = field.loss(point)
    point.theta.mul_(1.5)
    assert field.loss(point) == case.field("recomputed").loss(point) != before


def test_dropout_is_off_in_every_policy_and_mode():
    case = named("dropout")
    assert case.module.training
    assert len({case.field().loss(case.point) for _ in range(3)}) == 1


def test_a_network_without_statistics_has_no_policy_to_choose():
    assert {named("perceptron").field(policy).policy for policy in ("stored", "batch", "recomputed")} == {"none"}


def test_batch_norm_that_keeps_no_statistics_is_called_by_its_name():
    """Its function depends on the partition whatever is asked for, so no table may say that there is no policy."""
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double()
    case = named("perceptron")
    field = EmpiricalRisk(Space.of(net), net, *case.data, policy="stored", batch_size=16)
    assert field.policy == "batch"


def test_weight_decay_adds_to_loss_gradient_and_hessian():
    case = named("convolution")
    plain = case.field("batch")
    field = plus_weight_decay(plain, 1e-4)
    theta, v = case.point.theta, torch.randn(2, case.space.dim, dtype=torch.float64)
    assert field.policy == "batch"
    assert field.loss(case.point) == pytest.approx(plain.loss(case.point) + 5e-5 * float(theta @ theta), rel=1e-13)
    assert relative(field.grad(case.point) - plain.grad(case.point), 1e-4 * theta) < 1e-10
    assert relative(field.hvp(case.point, v) - plain.hvp(case.point, v), 1e-4 * v) < 1e-10
    assert field.evaluate(case.point).error == plain.evaluate(case.point).error


def test_float32_agrees_with_float64():
    case = named("perceptron")
    x, y = case.data
    net = copy.deepcopy(case.module).float()
    field = EmpiricalRisk(case.space, net, x.float(), y, batch_size=16)
    point, v = case.point.to(dtype=torch.float32), torch.randn(case.space.dim)
    _, gradient, hessian = dense(case, "stored")
    assert field.loss(point) == pytest.approx(case.field().loss(case.point), rel=1e-6)
    assert relative(field.grad(point).double(), gradient) < 1e-5
    assert relative(field.hvp(point, v).double(), hessian @ v.double()) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_modes_are_fixed_inside_and_free_outside(case):
    with fixed_mode(case.module, statistics=True, momentum=1.0):
        for part in case.module.modules():
            assert part.training == isinstance(part, nn.modules.batchnorm._BatchNorm)
    assert all(part.training for part in case.module.modules())


def test_wrong_names_are_refused_with_the_right_ones():
    case = named("perceptron")
    with pytest.raises(ConfigError, match="unknown buffer policy 'recompute'; did you mean 'recomputed'"):
        case.field("recompute")
    with pytest.raises(ConfigError, match="unknown loss 'cross_entropy'; did you mean 'cross-entropy'"):
        case.field(loss="cross_entropy")
    with pytest.raises(ValueError, match="no examples"):
        EmpiricalRisk(case.space, case.module, torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))


def test_squared_loss_is_half_the_mean_over_outputs():
    outputs, targets = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    assert LOSSES["squared"](outputs, targets).tolist() == [1.25, 1.0]
    assert squared(torch.tensor([[2.0]]), torch.tensor([5.0])).tolist() == [4.5]


def test_squared_loss_does_not_broadcast():
    with pytest.raises(SublevelError, match="shape"):
        squared(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(SublevelError, match="shape"):
        squared(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


# --- Closed forms.


def test_quadratic_with_centre_slope_and_offset():
    h = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    c, g = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    field = Quadratic(h, c, slope=g, offset=0.25)
    at = torch.tensor([0.3, 0.7], dtype=torch.float64)
    twin = Autograd(lambda t: 0.5 * (t - c) @ h @ (t - c) + g @ t + 0.25, 2)
    v = torch.randn(3, 2, dtype=torch.float64)
    assert field.loss(at) == pytest.approx(twin.loss(at), rel=1e-14)
    torch.testing.assert_close(field.grad(at), twin.grad(at))
    torch.testing.assert_close(field.hvp(at, v), twin.hvp(at, v))
    assert math.isnan(field.evaluate(at).error)


def test_a_diagonal_is_the_matrix_it_stands_for():
    d, at = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 2.0])
    assert Quadratic(d).loss(at) == Quadratic(torch.diag(d)).loss(at) == -0.5
    assert torch.equal(Quadratic(d).hvp(at, torch.eye(2)), Quadratic(torch.diag(d)).hvp(at, torch.eye(2)))


def test_a_linear_function_has_hessian_zero():
    field = Autograd(lambda t: 3 * t.sum(), 4)
    at = torch.ones(4, dtype=torch.float64)
    assert torch.equal(field.hvp(at, torch.ones(2, 4, dtype=torch.float64)), torch.zeros(2, 4, dtype=torch.float64))


def test_a_well_has_curvature_one_at_its_bottom():
    field = Wells(torch.tensor([[0.0, 0.0], [9.0, 0.0]], dtype=torch.float64), width=0.5)
    bottom = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(
        field.hvp(bottom, torch.eye(2, dtype=torch.float64)), torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0
    )
    assert field.loss(bottom) == pytest.approx(0.0, abs=1e-12)


def test_fields_of_two_dimensions_have_no_sum():
    with pytest.raises(ValueError, match="2 and 3"):
        Sum(Quadratic(torch.ones(2)), Quadratic(torch.ones(3)))


def _everything(module):
    tensors = {name: t.clone() for name, t in module.state_dict().items()}
    return tensors, [(p.training, getattr(p, "momentum", None)) for p in module.modules()]


def _same(before, after):
    assert before[1] == after[1]
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
