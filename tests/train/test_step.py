"""The reference step against torch.optim.SGD, and its mask against everything that could revive a weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cases import CASES, named
from sublevel.risk import LOSSES
from sublevel.train.step import StepState, step

OPTIONS = [
    {"momentum": 0.0, "weight_decay": 0.0},
    {"momentum": 0.9, "weight_decay": 0.0},
    {"momentum": 0.9, "weight_decay": 1e-2},
    {"momentum": 0.9, "weight_decay": 1e-2, "nesterov": True},
]


def start(case, mask=None):
    theta = case.point.theta if mask is None else torch.where(mask, case.point.theta, 0.0)
    return StepState(theta, torch.zeros_like(theta), case.point.buffers)


def slices(case, steps):
    x, y = case.data
    for i in range(steps):
        part = slice((i * 7) % (len(x) - 6), (i * 7) % (len(x) - 6) + 6)
        yield x[part], y[part]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.name != "dropout"], ids=str)
def test_without_a_mask_it_is_the_optimizer(case, options):
    net = case.build().double().train()
    net.load_state_dict(case.module.state_dict())
    case.space.write(net, case.point)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.05, **options)
    state, full = start(case), case.space.full_mask()
    for x, y in slices(case, 8):
        optimizer.zero_grad()
        want = LOSSES[case.loss](net(x), y).mean()
        want.backward()
        optimizer.step()
        state, mean = step(case.space, case.module, state, full, (x, y), loss=LOSSES[case.loss], lr=0.05, **options)
        torch.testing.assert_close(mean, want.detach(), rtol=1e-12, atol=1e-14)
    reached = case.space.point(net)
    torch.testing.assert_close(state.theta, reached.theta, rtol=1e-12, atol=1e-13)
    for name, buffer in reached.buffers.items():
        torch.testing.assert_close(state.buffers[name], buffer, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["random", "dead"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pruned_is_exactly_zero(case, kind, options):
    mask = case.masks()[kind]
    state = start(case, mask)
    for batch in slices(case, 5):
        state, _ = step(case.space, case.module, state, mask, batch, loss=LOSSES[case.loss], lr=0.1, **options)
        for vector in (state.theta, state.velocity):
            assert bool((vector[~mask] == 0).all())
            assert not bool(torch.signbit(vector[~mask]).any())
    assert bool((state.theta[mask] != start(case, mask).theta[mask]).any())


def test_a_pruned_coordinate_does_not_depend_on_where_it_starts():
    """Momentum and weight decay would carry a weight that is masked only in the forward pass."""
    case = named("perceptron")
    mask = case.masks()["random"]
    dirty = StepState(case.point.theta * mask, torch.where(mask, 0.0, 5.0).double(), {})
    clean = start(case, mask)
    options = {"loss": LOSSES["cross-entropy"], "lr": 0.1, "momentum": 0.0, "weight_decay": 0.1}
    batch = next(slices(case, 1))
    one, two = (step(case.space, case.module, s, mask, batch, **options)[0] for s in (dirty, clean))
    assert torch.equal(one.theta, two.theta)


def test_the_subspace_is_trained_as_the_smaller_network():
    """Masked training is training of the network from which the unit was cut out."""
    case = named("perceptron")
    kept = torch.ones(case.space.dim)
    views = case.space.views(kept)
    views["0.weight"][0] = 0
    views["2.weight"][:, 0] = 0
    mask = kept.bool()
    small = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    at = case.space.views(case.point.theta)
    with torch.no_grad():
        small[0].weight.copy_(at["0.weight"][1:])
        small[0].bias.copy_(at["0.bias"][1:])
        small[2].weight.copy_(at["2.weight"][:, 1:])
        small[2].bias.copy_(at["2.bias"])
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    state = start(case, mask)
    for x, y in slices(case, 10):
        optimizer.zero_grad()
        LOSSES["cross-entropy"](small(x), y).mean().backward()
        optimizer.step()
        options = {"loss": LOSSES["cross-entropy"], "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
        state, _ = step(case.space, case.module, state, mask, (x, y), **options)
    reached = case.space.views(state.theta)
    torch.testing.assert_close(reached["0.weight"][1:], small[0].weight.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(reached["2.weight"][:, 1:], small[2].weight.detach(), rtol=1e-12, atol=1e-13)


def test_the_state_is_not_written():
    case = named("convolution")
    state = start(case)
    held = [state.theta.clone(), state.velocity.clone(), *(b.clone() for b in state.buffers.values())]
    full = case.space.full_mask()
    options = {"loss": LOSSES["cross-entropy"], "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
    after, mean = step(case.space, case.module, state, full, next(slices(case, 1)), **options)
    for was, now in zip(held, [state.theta, state.velocity, *state.buffers.values()], strict=True):
        assert torch.equal(was, now)
    assert not torch.equal(after.buffers["1.running_mean"], state.buffers["1.running_mean"])
    assert not mean.requires_grad
    assert not after.theta.requires_grad
