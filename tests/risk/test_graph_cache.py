"""Graphs kept between Hessian products: the same bits, within the bytes, and only while the point is the same."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from cases import CASES_BY_POLICY, dense, ids, named
from sublevel.field import Restricted
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.risk.empirical import EmpiricalRisk
from sublevel.risk.graph_cache import storages
from sublevel.space import Point

F64 = torch.float64
PLENTY = 2**30
every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))


def forwards(field, monkeypatch):
    """A list that grows by one with every forward pass of the field."""
    seen, plain = [], EmpiricalRisk.outputs

    def outputs(self, *rest):
        if self is field:
            seen.append(1)
        return plain(self, *rest)

    monkeypatch.setattr(EmpiricalRisk, "outputs", outputs)
    return seen


def needs(case, policy="stored", **options):
    """Bytes that the graphs of all batches hold."""
    field = case.field(policy, keep_bytes=PLENTY, **options)
    field.hvp(case.point, torch.ones(case.space.dim, dtype=F64))
    return field.kept_bytes


KEPT = {
    ("remainder-of-one", "stored"): (0, 2, 3),  # batches of 12, 12 and 1: 0.6 of 25 hold the first and the last
    ("remainder-of-one", "recomputed"): (0, 2, 3),
    ("remainder-of-one", "batch"): (0, 1, 3),  # of 12, 7 and 6, since no batch is a single example: the first
}
"""Graphs kept of none, of 0.6 and of all bytes; elsewhere there are two batches, the first the larger."""


@every
def test_keeping_changes_no_bit(case, policy):
    v = torch.randn(3, case.space.dim, dtype=F64)
    plain, kept = case.field(policy), case.field(policy, keep_bytes=PLENTY)
    some = case.field(policy, keep_bytes=int(0.6 * needs(case, policy)))
    for vectors in (v[0], v, v[1], v[:1]):
        want = plain.hvp(case.point, vectors)
        assert torch.equal(kept.hvp(case.point, vectors), want)
        assert torch.equal(some.hvp(case.point, vectors), want)
    assert (plain.kept_batches, some.kept_batches, kept.kept_batches) == KEPT.get((case.name, policy), (0, 1, 2))
    assert 0 < some.kept_bytes <= 0.6 * kept.kept_bytes


def test_a_product_at_the_same_point_takes_no_forward_pass(monkeypatch):
    case, v = named("convolution"), torch.ones(named("convolution").space.dim, dtype=F64)
    for bytes_, each in ((0, 2), (PLENTY, 0), (int(0.6 * needs(case)), 1)):
        field = case.field(keep_bytes=bytes_)
        seen = forwards(field, monkeypatch)
        field.hvp(case.point, v)
        assert len(seen) == 2
        for product in range(1, 4):
            field.hvp(case.point, v)
            assert len(seen) == 2 + product * each


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_no_more_is_kept_than_was_allowed(share):
    case = named("perceptron")
    full = needs(case, batch_size=8)
    field = case.field(batch_size=8, keep_bytes=int(share * full))
    field.hvp(case.point, torch.ones(case.space.dim, dtype=F64))
    assert field.kept_bytes <= share * full
    assert field.kept_batches <= 5 * share + 1e-9 + (share > 0)
    assert (field.kept_batches == 5) == (share == 1.0)
    assert share < 0.6 or field.kept_batches >= 2


@pytest.mark.parametrize("name", ["perceptron", "convolution", "normalised", "attention", "tied"])
def test_bytes_are_those_that_the_library_says_it_saves(name):
    """Against the hooks that see every tensor that differentiation saves, while the same graph is built."""
    case = named(name)
    x, y = case.data
    theta = case.point.theta.clone().requires_grad_()
    saved = {}

    def note(t):
        saved[t.untyped_storage().data_ptr()] = (t.untyped_storage().nbytes(), t.detach())
        return t.detach()

    def gradient():
        loss = case.field().loss_of(case.space.call(case.module.eval(), theta, case.point.buffers, x), y).sum()
        return torch.autograd.grad(loss, theta, create_graph=True)[0]

    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                gradient()
            graph = gradient()
    finally:
        case.module.train()
    own = {theta.untyped_storage().data_ptr(), graph.untyped_storage().data_ptr()}
    got = sum(size for address, size in storages(graph).items() if address not in own)
    seen = sum(size for address, (size, _) in saved.items() if address != theta.untyped_storage().data_ptr())
    assert 0.8 * seen <= got <= 1.25 * seen


def test_the_examples_and_the_point_count_for_nothing():
    """They live anyway; a graph that saves a slice of the examples would else be charged with all of them."""
    case = named("perceptron")
    x, y = case.data
    many = torch.cat([x] * 500)
    field = EmpiricalRisk(case.space, case.module, many[:37], y, batch_size=20, keep_bytes=PLENTY)
    field.hvp(case.point, torch.ones(case.space.dim, dtype=F64))
    assert field.kept_bytes < many.untyped_storage().nbytes() / 4


def test_another_point_drops_what_was_kept(monkeypatch):
    case, v = named("convolution"), torch.ones(named("convolution").space.dim, dtype=F64)
    field = case.field(keep_bytes=PLENTY)
    field.hvp(case.point, v)
    held = [weakref.ref(g) for g in field._graphs._gradients.values()]
    bytes_ = field.kept_bytes
    other = Point(1.1 * case.point.theta, case.point.buffers)
    assert torch.equal(field.hvp(other, v), case.field().hvp(other, v))
    gc.collect()
    assert [ref() for ref in held] == [None, None]
    assert (field.kept_batches, field.kept_bytes) == (2, bytes_)
    buffers = {name: b * 2 if b.is_floating_point() else b for name, b in case.point.buffers.items()}
    moved = Point(other.theta, buffers)
    assert torch.equal(field.hvp(moved, v), case.field().hvp(moved, v)), "buffers are part of the point"


def test_a_point_written_in_place_is_another_point():
    case, v = named("convolution"), torch.ones(named("convolution").space.dim, dtype=F64)
    field = case.field(keep_bytes=PLENTY)
    point = Point(case.point.theta.clone(), {name: b.clone() for name, b in case.point.buffers.items()})
    before = field.hvp(point, v)
    point.theta.mul_(1.2)
    after = field.hvp(point, v)
    assert torch.equal(after, case.field().hvp(point, v))
    assert not torch.equal(after, before)
    point.buffers["1.running_var"].mul_(2.0)
    assert torch.equal(field.hvp(point, v), case.field().hvp(point, v))


def test_what_is_kept_can_be_released():
    case, v = named("perceptron"), torch.ones(named("perceptron").space.dim, dtype=F64)
    field = case.field(keep_bytes=PLENTY)
    first = field.hvp(case.point, v)
    assert field.kept_batches == 2
    field.release()
    assert (field.kept_batches, field.kept_bytes) == (0, 0)
    assert torch.equal(field.hvp(case.point, v), first)


def test_lanczos_builds_every_graph_once(monkeypatch):
    case = named("convolution")
    mask = case.masks()["random"]
    for keep in (True, False):
        field = case.field("recomputed", keep_bytes=PLENTY * keep)
        field.settle(case.point)
        seen = forwards(field, monkeypatch)
        found = top_eigenvalues(field, case.point, k=3, mask=mask)
        assert found.products > 10
        assert len(seen) == 2 if keep else len(seen) > 20
    small = dense(case, "recomputed")[2][mask][:, mask]
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(small).flip(0)[:3], rtol=1e-6, atol=0)


def test_a_restriction_profits_too(monkeypatch):
    case = named("convolution")
    field = case.field(keep_bytes=PLENTY)
    inside = Restricted(field, case.masks()["random"], case.point)
    start, seen = inside.start, forwards(field, monkeypatch)
    for _ in range(4):
        inside.hvp(start, torch.ones(inside.dim, dtype=F64))
    assert len(seen) == 2


def test_a_network_that_is_linear_in_theta_keeps_nothing_worth_keeping():
    case = named("perceptron")
    field = case.field(loss=lambda outputs, targets: 0.0 * outputs.sum(dim=1), keep_bytes=PLENTY)
    v = torch.ones(2, case.space.dim, dtype=F64)
    for _ in range(2):
        assert torch.equal(field.hvp(case.point, v), torch.zeros_like(v))


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match=r"keep_bytes must be at least 0 .*, got -1"):
        named("perceptron").field(keep_bytes=-1)
