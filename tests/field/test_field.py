"""Stochastic fields, refusals, restrictions: what is a function of a point, and what is not."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import CASES_BY_POLICY, ids, naive_losses, naive_outputs, named
from sublevel.errors import SublevelError
from sublevel.field import (
    Autograd,
    EveryExample,
    Field,
    Quadratic,
    Restricted,
    Stochastic,
    Sum,
    check_deterministic,
    plus_weight_decay,
    require_field,
)
from sublevel.risk import EmpiricalRisk, MiniBatches
from sublevel.rng import generator
from sublevel.space import Point, Space

F64 = torch.float64
BOWL = Quadratic(torch.tensor([1.0, 2.0, 4.0], dtype=F64), slope=torch.tensor([0.0, 1.0, 0.0], dtype=F64))
AT = torch.tensor([1.0, -1.0, 0.5], dtype=F64)
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))


# --- Batches in a planned order.


def test_batches_come_in_the_order_that_seed_stream_and_epoch_name():
    case = named("perceptron")
    batches = MiniBatches(case.field(), batch_size=15, seed=3, stream="order:curve")
    assert (batches.dim, batches.examples, batches.per_epoch) == (case.space.dim, 37, 3)
    losses = case.field().losses(case.point)
    for step in (0, 1, 2, 3, 4, 5, 7, 1):  # also out of order: a step is always the same batch
        epoch, inside = divmod(step, 3)
        order = torch.randperm(37, generator=generator(3, "order:curve", epoch))
        rows = order[15 * inside : 15 * inside + 15]
        loss, _ = batches.loss_and_grad(case.point, step)
        assert float(loss) == pytest.approx(float(losses[rows].mean()), rel=1e-13)
        assert len(rows) == (7 if inside == 2 else 15), "the last batch is kept, and smaller"


def test_an_order_depends_on_the_seed_and_the_stream():
    case = named("perceptron")

    def first(**how) -> float:
        return float(MiniBatches(case.field(), batch_size=15, **how).loss_and_grad(case.point, 0)[0])

    assert len({first(), first(seed=1), first(stream="sampler"), first()}) == 3


@every
def test_an_epochs_gradients_weighted_by_size_are_the_fields(case, policy):
    """Under ``batch`` they are the gradients of a field whose examples are in the planned order."""
    batches = MiniBatches(case.field(policy), batch_size=8, seed=5)
    sizes = [len(batches._batch(step)) for step in range(batches.per_epoch)]
    parts = [batches.loss_and_grad(case.point, step) for step in range(batches.per_epoch)]
    loss = sum(n * float(part[0]) for n, part in zip(sizes, parts, strict=True)) / case.examples
    gradient = sum(n * part[1] for n, part in zip(sizes, parts, strict=True)) / case.examples
    field = case.field(policy)
    if batches.policy == "batch":
        order = torch.randperm(case.examples, generator=generator(5, "batches", 0))
        x, y = case.data
        field = EmpiricalRisk(case.space, case.module, x[order], y[order], policy="batch", batch_size=8)
    assert sum(sizes) == case.examples
    assert min(sizes) < 8, "the case does not tell weighted and plain means apart"
    assert loss == pytest.approx(field.loss(case.point), rel=1e-12)
    torch.testing.assert_close(gradient, field.grad(case.point), rtol=1e-10, atol=1e-13)


def test_batches_follow_the_policy_of_the_risk():
    case = named("normalised")
    got = {policy: MiniBatches(case.field(policy)).policy for policy in ("stored", "batch", "recomputed")}
    assert got == {"stored": "stored", "batch": "batch", "recomputed": "batch"}
    stored = MiniBatches(case.field("stored"), batch_size=9).loss_and_grad(case.point, 0)
    moments = MiniBatches(case.field("batch"), batch_size=9).loss_and_grad(case.point, 0)
    assert abs(float(stored[0] - moments[0])) > 1e-4
    assert MiniBatches(named("perceptron").field("batch")).policy == "none"


def test_a_batch_under_the_batch_policy_uses_its_own_moments():
    case = named("normalised")
    batches = MiniBatches(case.field("batch"), batch_size=37)
    outputs = naive_outputs(case, "batch", case.point)
    want = naive_losses(case, outputs(case.point.theta), case.data[1]).mean()
    one_batch = EmpiricalRisk(case.space, case.module, *case.data, policy="batch", batch_size=37)
    got = float(batches.loss_and_grad(case.point, 0)[0])
    assert got == pytest.approx(one_batch.loss(case.point), rel=1e-12)
    assert abs(got - float(want)) > 1e-6, "the oracle has batches of 20"


@pytest.mark.parametrize("policy", ["stored", "batch"])
def test_batches_leave_the_point_and_the_module_as_they_were(policy):
    case = named("convolution")
    module = {name: t.clone() for name, t in case.module.state_dict().items()}
    point = Point(case.point.theta.clone(), {name: b.clone() for name, b in case.point.buffers.items()})
    MiniBatches(case.field(policy), batch_size=6).loss_and_grad(point, 1)
    assert all(torch.equal(t, module[name]) for name, t in case.module.state_dict().items())
    assert torch.equal(point.theta, case.point.theta)
    assert all(torch.equal(b, point.buffers[name]) for name, b in case.point.buffers.items())
    assert not point.theta.requires_grad


def test_a_batch_has_at_least_one_example_and_at_most_all():
    case = named("perceptron")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        MiniBatches(case.field(), batch_size=0)
    whole = MiniBatches(case.field(), batch_size=1000)
    assert (whole.batch_size, whole.per_epoch) == (37, 1)
    loss, gradient = whole.loss_and_grad(case.point, 12)
    assert float(loss) == pytest.approx(case.field().loss(case.point), rel=1e-13)
    torch.testing.assert_close(gradient, case.field().grad(case.point), rtol=1e-11, atol=1e-14)


# --- A field whose every batch is all of it.


def test_every_example_gives_the_field_at_every_step():
    noiseless = EveryExample(BOWL)
    for step in (0, 1, 100):
        loss, gradient = noiseless.loss_and_grad(AT, step)
        assert float(loss) == BOWL.loss(AT)
        assert torch.equal(gradient, BOWL.grad(AT))
    assert noiseless.dim == 3


def test_the_number_of_examples_is_the_fields_own_unless_given():
    case = named("perceptron")
    assert EveryExample(BOWL).examples == 1
    assert EveryExample(BOWL, examples=500).examples == 500
    assert EveryExample(case.field()).examples == MiniBatches(case.field()).examples == 37
    assert EveryExample(plus_weight_decay(case.field(), 1e-3)).examples == 37


def test_what_is_no_field_is_refused_by_name():
    require_field(BOWL, "anything")
    with pytest.raises(
        TypeError, match=r"trace needs a field \(a deterministic function of a point\), got EveryExample: its value "
    ):
        require_field(EveryExample(BOWL), "trace")
    with pytest.raises(TypeError, match=r"trace needs a field .*, got Linear$"):
        require_field(nn.Linear(2, 2), "trace")
    with pytest.raises(TypeError, match="EveryExample needs a field"):
        inspect.unwrap(EveryExample.__init__)(EveryExample(BOWL), EveryExample(BOWL))
    with pytest.raises(TypeError, match=r"Restricted needs a field .* got MiniBatches: its value changes"):
        inspect.unwrap(Restricted.__init__)(
            Restricted(BOWL, MASK, AT), MiniBatches(named("perceptron").field()), MASK, AT
        )
    assert not issubclass(Stochastic, Field)


# --- A function gives one value at one point.


class Noisy(nn.Linear):
    """Dropout that nobody can turn off."""

    def forward(self, x):
        return F.dropout(super().forward(x), 0.3, training=True)


def test_a_network_that_draws_random_numbers_in_evaluation_mode_is_refused():
    net = Noisy(6, 3).double().eval()
    field, theta = EmpiricalRisk(Space.of(net), net, *named("perceptron").data), torch.randn(21, dtype=F64)
    with pytest.raises(
        ValueError, match=r"two evaluations at one point give a loss of \d\S+ and of \d\S+: the network"
    ):
        check_deterministic(field, theta)
    with pytest.raises(SublevelError, match="no function of its weights"):
        check_deterministic(plus_weight_decay(field, 0.1), theta)


def test_the_smallest_noise_is_noise():
    field = Autograd(lambda t: t.square().sum() * (1 + 1e-12 * torch.rand((), dtype=F64)), 3)
    with pytest.raises(ValueError, match="two evaluations at one point"):
        check_deterministic(field, AT)
    assert check_deterministic(field, AT, tolerance=1e-9).loss == pytest.approx(2.25)


@every
def test_every_case_is_a_function(case, policy):
    field = case.field(policy)
    assert str(check_deterministic(field, case.point)) == str(field.evaluate(case.point))  # str: nan is nan


def test_a_loss_that_is_not_finite_is_not_a_random_one():
    assert check_deterministic(Autograd(lambda t: t.sum() * float("nan"), 3), AT).loss != 0
    assert check_deterministic(Autograd(lambda t: t.sum() * float("inf"), 3), AT).loss == float("inf")
    with pytest.raises(TypeError, match="check_deterministic needs a field"):
        inspect.unwrap(check_deterministic)(EveryExample(BOWL), AT)


# --- Restrictions.

MASK = torch.tensor([True, False, True])


def test_a_restricted_quadratic_holds_the_other_coordinates():
    inside = Restricted(BOWL, MASK, AT)
    z = torch.tensor([3.0, 2.0], dtype=F64)
    full = torch.tensor([3.0, -1.0, 2.0], dtype=F64)
    assert inside.dim == 2
    assert torch.equal(inside.start, AT[MASK])
    assert inside.loss(z) == BOWL.loss(full)
    assert torch.equal(inside.grad(z), BOWL.grad(full)[MASK])
    v = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=F64)
    assert inside.hvp(z, v).tolist() == [[1.0, 0.0], [1.0, 4.0]]
    assert inside.hvp(z, v[1]).tolist() == [1.0, 4.0]
    assert torch.equal(AT, torch.tensor([1.0, -1.0, 0.5], dtype=F64)), "the point is not written"


def test_a_restriction_keeps_couplings_inside_and_leaves_out_those_across():
    h = torch.tensor([[2.0, 5.0, 1.0], [5.0, 9.0, 7.0], [1.0, 7.0, 3.0]], dtype=F64)
    inside = Restricted(Quadratic(h), MASK, AT)
    assert inside.hvp(inside.start, torch.eye(2, dtype=F64)).tolist() == [[2.0, 1.0], [1.0, 3.0]]


def test_restrictions_compose():
    first = Restricted(BOWL, MASK, AT)
    second = Restricted(first, torch.tensor([False, True]), first.start)
    z = torch.tensor([7.0], dtype=F64)
    assert second.loss(z) == BOWL.loss(torch.tensor([1.0, -1.0, 7.0], dtype=F64))
    total = Sum(second, Quadratic(torch.tensor([2.0], dtype=F64)))
    assert total.grad(z).tolist() == [7.0 * 4 + 14.0]


def test_a_vector_written_in_place_is_lifted_anew():
    inside, z = Restricted(BOWL, MASK, AT), AT[MASK].clone()
    before, lifted = inside.loss(z), inside.lift(z)
    assert inside.lift(z) is lifted
    z.mul_(2.0)
    assert inside.lift(z) is not lifted
    assert inside.loss(z) == Restricted(BOWL, MASK, AT).loss(z.clone()) != before


def test_a_restriction_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a mask of length 2 does not fit a field of dimension 3"):
        Restricted(BOWL, torch.tensor([True, False]), AT)
    with pytest.raises(ValueError, match="leaves no coordinate"):
        Restricted(BOWL, torch.zeros(3, dtype=torch.bool), AT)
    with pytest.raises(ValueError, match="a vector of length 3 does not fit a restriction of dimension 2"):
        Restricted(BOWL, MASK, AT).loss(AT)
