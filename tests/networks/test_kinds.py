"""Every kind of network x everything that is done with one: the same function as the user's own code throughout."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import sublevel as sl
from networks.kinds import KINDS, Kind, N
from sublevel.inputs import each, output_of
from sublevel.prune import SCORES, ScoreContext, prune
from sublevel.risk.synflow import flow
from sublevel.rng import generator
from sublevel.study.given import gathered
from sublevel.study.spec import GivenSpec
from sublevel.tickets import Ticket
from sublevel.train.recipe import Duration, Recipe

F64 = torch.float64
every = pytest.mark.parametrize("kind", KINDS, ids=str)
RECIPE = Recipe(length=Duration(2, "it"), batch_size=N, lr=0.05, weight_decay=0.0)


@cache
def problem(kind: Kind, dtype: str = "float64") -> sl.Problem:
    data = each(kind.x, torch.clone), kind.y.clone()
    return sl.Problem(
        kind.model, train=data, test=data, validation=0, loss=kind.loss, prunable=kind.prunable, dtype=dtype
    )


def trained(kind: Kind, dtype: torch.dtype = F64) -> nn.Module:
    """A network of the user's, away from its first weights and statistics."""
    torch.manual_seed(5)
    net = cast(kind.build(), dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
        net.train()
        called(net, kind, dtype)
    return net.eval()


def cast(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """As ``net.to(dtype)``, which would drop the imaginary part of a complex buffer."""
    return net._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)


def called(net: nn.Module, kind: Kind, dtype: torch.dtype) -> Tensor:
    """The network on all examples, called as its own user does."""
    x = each(kind.x, lambda t: (t.to(dtype) if t.is_floating_point() else t).clone())
    found = net(**x) if isinstance(x, dict) else net(*x) if isinstance(x, tuple) else net(x)
    return output_of(found)


def own_loss(net: nn.Module, kind: Kind, dtype: torch.dtype = F64) -> Tensor:
    return kind.own(called(net.eval(), kind, dtype), labels(kind, dtype))


def labels(kind: Kind, dtype: torch.dtype = F64) -> Tensor:
    """The labels; real ones in the precision of the network."""
    return kind.y.to(dtype) if kind.y.is_floating_point() else kind.y


def slope(value: Tensor, net: nn.Module, **how: bool) -> Tensor:
    """The gradient of a number in all parameters of the user's network, [D]."""
    parameters = [q for q in net.parameters() if q.requires_grad]
    parts = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True, **how)
    return torch.cat([part.reshape(-1) for part in parts])


@every
def test_a_checkpoint_is_the_users_own_function(kind: Kind, tmp_path: Path):
    net, p = trained(kind), problem(kind)
    torch.save({"net": {f"module.{name}": t for name, t in net.state_dict().items()}, "epoch": 3}, tmp_path / "a.pt")
    before = p.splits.train.x.clone()
    field, truth = p.field("train", batch_size=10), own_loss(net, kind).item()
    for source in (net, tmp_path / "a.pt"):
        at = p.point(source)
        assert [field.loss(at), field.evaluations([at, at])[1].loss] == pytest.approx([truth] * 2, rel=1e-9)
    assert torch.equal(p.splits.train.x, before)
    assert field.losses(at).mean().item() == pytest.approx(truth, rel=1e-9)


@every
@pytest.mark.full
def test_gradients_and_products_are_those_of_the_users_own_loss(kind: Kind):
    net, p = trained(kind), problem(kind)
    field, at = p.field("train", batch_size=10), p.point(net)
    with sdpa_kernel(SDPBackend.MATH):
        gradient = slope(own_loss(net, kind), net, create_graph=True)
        torch.testing.assert_close(field.grad(at), gradient.detach(), rtol=1e-8, atol=1e-10)
        v = torch.randn(3, len(gradient), dtype=F64, generator=torch.Generator().manual_seed(2))
        products = field.hvp(at, v)
        if kind.second:
            ends = torch.stack([slope(gradient @ u, net) for u in v])
            torch.testing.assert_close(products, ends, rtol=1e-7, atol=1e-9)
        else:
            sides = [[field.grad(at.theta + h * row) for h in (1e-5, -1e-5)] for row in v]
            ends = torch.stack([(a - b) / 2e-5 for a, b in sides])
            torch.testing.assert_close(products, ends, rtol=1e-6, atol=1e-8)
    assert float(v[1] @ products[0]) == pytest.approx(float(v[0] @ products[1]), rel=1e-6, abs=1e-9)


@every
@pytest.mark.full
def test_products_of_the_ggn_and_the_fisher_matrix_are_those_of_dense_ones(kind: Kind):
    """By the user's own network and loss: J^T H J with the Jacobian row by row, and gradients example by example."""
    net, p = trained(kind), problem(kind)
    field, at = p.field("train", batch_size=10), p.point(net)
    y = labels(kind)
    v = torch.randn(2, at.theta.numel(), dtype=F64, generator=torch.Generator().manual_seed(3))

    with sdpa_kernel(SDPBackend.MATH):
        outputs = called(net, kind, F64)
        jacobian = torch.stack([slope(z, net) for z in outputs.reshape(-1)])
        hessian = torch.autograd.functional.hessian(lambda z: kind.own(z, y), outputs.detach())
        hessian = hessian.reshape(len(jacobian), len(jacobian))
        near = {"rtol": 1e-3, "atol": 1e-7} if kind.single else {"rtol": 1e-7, "atol": 1e-9}
        torch.testing.assert_close(field.ggn_vp(at, v), v @ (jacobian.T @ hessian @ jacobian), **near)
        counted = (y.reshape(N, -1) != -100).sum(1)  # the mean is over labels, so an example counts by how many it has
        shares = N * counted.double() / counted.sum()
        losses = [shares[i] * kind.own(outputs[i : i + 1], y[i : i + 1]) for i in range(N)]
        torch.testing.assert_close(field.losses(at), torch.stack(losses).detach(), rtol=1e-7, atol=1e-9)
        gradients = torch.stack([slope(value, net) for value in losses])
    torch.testing.assert_close(field.fisher_vp(at, v), v @ (gradients.T @ gradients) / N, **near)


@every
def test_two_steps_are_those_of_torchs_sgd(kind: Kind):
    p = problem(kind)
    start, net = p.init(2), cast(p.build(2, "init"), F64)
    with torch.no_grad():  # what is frozen is the same for every seed of a problem
        for mine, theirs in zip(net.parameters(), p.module.parameters(), strict=True):
            mine.copy_(mine if mine.requires_grad else theirs)
    done = p.trained(start, recipe=RECIPE, seed=0)
    rates = RECIPE.rates(N)
    sgd = torch.optim.SGD(net.parameters(), lr=rates[0], momentum=RECIPE.momentum)
    y = labels(kind)
    for rate in rates:
        sgd.param_groups[0]["lr"] = rate
        sgd.zero_grad()
        kind.own(called(net.train(), kind, F64), y).backward()
        sgd.step()
    torch.testing.assert_close(done.end.theta, p.space.point(net).theta, rtol=1e-8, atol=1e-10)
    assert not torch.equal(done.end.theta, start.theta)
    parts = zip(
        p.space.layers, p.space.views(done.end.theta).values(), p.space.views(start.theta).values(), strict=True
    )
    assert all(torch.equal(a, b) for layer, a, b in parts if layer.name in p.unused)
    assert bool(p.unused) == (kind.name in ("unused parameters", "auxiliary head"))


@every
def test_pruned_is_exactly_zero_and_a_ticket_comes_back(kind: Kind, tmp_path: Path):
    net, p = trained(kind), problem(kind)
    at, space = p.point(net), p.space
    keep = int(space.prunable.sum()) // 2
    found = prune("magnitude", at, None, torch.Generator(), ScoreContext(space, space.full_mask()), [keep])
    assert space.remaining(found.mask) == keep
    ticket = Ticket.of_checkpoints(p.module, net, prunable=kind.prunable)
    ticket = Ticket(found.mask, ticket.points, ticket.space, ticket.constants)
    again = Ticket.load(ticket.save(tmp_path / "t.safetensors"))
    module = again.module(copied(net, kind))
    masked = p.field("train", batch_size=10).loss(at.project(found.mask))
    assert own_loss(module, kind).item() == pytest.approx(masked, rel=1e-9)
    assert not bool(space.point(module).theta[~found.mask].any())
    assert torch.equal(again.space.dead(found.mask), space.dead(found.mask))


def copied(net: nn.Module, kind: Kind) -> nn.Module:
    """A network for the ticket to be written into, with other weights."""
    try:
        return copy.deepcopy(net)
    except RuntimeError:  # PyTorch copies no network under an old weight_norm or spectral_norm after a forward pass
        return cast(problem(kind).build(3, "init"), F64)


@every
def test_measured_as_a_checkpoint_of_a_study(kind: Kind, tmp_path: Path):
    net, p = trained(kind, torch.float32), problem(kind, "float32")
    torch.save(net.state_dict(), tmp_path / "a.pt")
    (given,) = gathered([GivenSpec(name="a", path=str(tmp_path / "a.pt"))], p)
    truth = own_loss(net, kind, torch.float32).item()
    assert p.field("train").loss(given.at) == pytest.approx(truth, rel=1e-5, abs=1e-6)
    assert p.space.describe_prunable() in repr(p)


@every
@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_criterion_scores_it(kind: Kind, dtype: str):
    p = problem(kind, dtype)
    at, space, field = p.init(1), p.space, p.field("train", batch_size=10)
    first = p.prepare(p.splits.train.x[:1])
    context = ScoreContext(space, space.full_mask(), start=p.init(0), flow=flow(space, p.module, first))
    for name, criterion in SCORES.items():
        if not criterion.own and name != "synflow":
            found = criterion.look(at, field, generator(0, "prune"), context)
            assert bool(found.values[space.prunable].isfinite().all()), name


@every
@pytest.mark.full
def test_a_study_of_it(kind: Kind, tmp_path: Path):
    p = problem(kind, "float32")
    train = {"epochs": 1, "batch_size": 8}
    study = sl.Study(
        p, name="k", out=tmp_path, levels=1, rewind="1it", seeds=1, branches=["imp"], train=train,
        geometry={"paths": {"points": 3, "refine": 0}, "spectra": {"k": 1}},
    )  # fmt: skip
    result = study.run(jobs=1, listener=lambda event: None, figures=False)
    assert len(result.levels) == 2
    bad = [e for e in result.failures["error"] if not e.startswith("needs ")]
    assert not bad, bad


def test_enough_kinds():
    assert len(KINDS) >= 25
