"""Learned masks against their definitions by autograd and torch.optim, and on a problem whose mask is planted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cases import Case, named
from sublevel.data.batches import epoch_plan
from sublevel.data.splits import Part
from sublevel.errors import Diverged
from sublevel.prune.repeated import repeated
from sublevel.prune.select import layer_counts, select
from sublevel.risk import LOSSES
from sublevel.rng import generator
from sublevel.space import Point, Space
from sublevel.train import learned
from sublevel.train.recipe import Duration, Recipe
from sublevel.train.setup import TrainingSetup

SEED, ORDER = 3, "own"


def line() -> nn.Module:
    return nn.Linear(6, 2)


LINE = Case("line", line, loss="squared")
EVERY = pytest.mark.parametrize("case", [LINE, named("relu"), named("convolution"), named("tied")], ids=str)


def recipe(steps: int, **changes) -> Recipe:
    keys = {"lr": 0.3, "batch_size": 10, "weight_decay": 1e-2, "schedule": "cosine", "nesterov": True} | changes
    return Recipe(length=Duration(steps, "it"), **keys)


def batches(case: Case, r: Recipe, first: int = 0):
    """Rate, examples and labels of every step, read from the plans by hand."""
    x, y = case.data
    for step, rate in list(enumerate(r.rates(len(x))))[first:]:
        epoch, i = divmod(step, r.steps_per_epoch(len(x)))
        index = epoch_plan(len(x), seed=SEED, epoch=epoch, order=ORDER).index[10 * i : 10 * (i + 1)]
        yield rate, x[index], y[index]


def prunable(case: Case) -> dict[str, Tensor]:
    return {layer.name: case.point.theta[layer.coordinates].view(layer.shape) for layer in case.space.prunable_layers}


def fixed(case: Case) -> dict[str, Tensor]:
    """Everything else: other parameters, and buffers that the forward passes write."""
    views, learnt = case.space.views(case.point.theta), prunable(case)
    return {n: v for n, v in views.items() if n not in learnt} | {n: b.clone() for n, b in case.point.buffers.items()}


class TopK(torch.autograd.Function):
    """1 for the k largest, and the gradient as if nothing had happened."""

    @staticmethod
    def forward(ctx, values: Tensor, k: int) -> Tensor:
        mask = torch.zeros_like(values).flatten()
        mask[values.flatten().argsort(descending=True)[:k]] = 1
        return mask.view_as(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@pytest.mark.parametrize("within", ["layer", "global"])
@EVERY
def test_edge_popup_is_the_straight_through_definition(case, within):
    """Over several steps, by autograd through a masked network and torch.optim on the scores."""
    r, space, weights, rest = recipe(9), case.space, prunable(case), fixed(case)
    began = learned.initial_scores(space, torch.float64, generator(SEED, "scores"))
    sizes = [layer.size for layer in space.prunable_layers]
    keep = [n // 3 for n in sizes] if within == "layer" else [sum(sizes) // 3]
    setup = case.setup(recipe=r, seed=SEED, order=ORDER)
    got = learned.edge_popup(setup, case.point, began, choose=repeated(space, keep))

    scores = {n: v.clone().requires_grad_() for n, v in space.views(began).items() if n in weights}
    optimizer = torch.optim.SGD(scores.values(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=1e-2)

    def masks() -> dict[str, Tensor]:
        if within == "layer":
            return {n: TopK.apply(s.abs(), k) for (n, s), k in zip(scores.items(), keep, strict=True)}
        flat = TopK.apply(torch.cat([s.abs().flatten() for s in scores.values()]), keep[0])
        return {n: m.view(scores[n].shape) for n, m in zip(scores, flat.split(sizes), strict=True)}

    seen = []
    for rate, x, y in batches(case, r):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        masked = {n: weights[n] * m for n, m in masks().items()}
        loss = LOSSES[case.loss](torch.func.functional_call(case.module.train(), rest | masked, (x,)), y).mean()
        loss.backward()
        optimizer.step()
        seen.append((len(y), float(loss.detach())))

    want = torch.cat([scores[x.name].detach().flatten() for x in space.prunable_layers])
    assert float((want - began[space.prunable]).abs().max()) > 1e-3
    torch.testing.assert_close(got.scores[space.prunable], want, rtol=1e-10, atol=1e-11)
    assert bool((got.scores[~space.prunable] == 0).all())
    last = torch.cat([masks()[x.name].flatten() for x in space.prunable_layers]).bool()
    assert torch.equal(got.end.theta[space.prunable], case.point.theta[space.prunable] * last)
    assert torch.equal(got.end.theta[~space.prunable], case.point.theta[~space.prunable]), "biases are never trained"
    for name in case.point.buffers:
        torch.testing.assert_close(got.end.buffers[name], rest[name], rtol=1e-10, atol=1e-11)
    per_epoch = r.steps_per_epoch(case.examples)
    first = seen[:per_epoch]
    mean = sum(n * v for n, v in first) / sum(n for n, _ in first)
    assert got.history[0]["train_loss"] == pytest.approx(mean, rel=1e-10)


@EVERY
def test_continuous_sparsification_is_its_definition(case):
    """L + lambda ||sigmoid(b s)||_1 by autograd, from step 2 on: weights and scores in two of torch's optimizers."""
    r, space, first, beta, penalty = recipe(12, lr=0.05), case.space, 2, 50.0, 3e-3
    began = 0.1 * torch.randn(space.dim, generator=generator(SEED, "s"), dtype=torch.float64)
    names = [layer.name for layer in space.prunable_layers]
    soft_names = names[:1] if len(names) == 1 else names[1:]  # as if the first were protected
    soft = torch.zeros(space.dim, dtype=torch.bool)
    for name in soft_names:
        soft |= space.indicator(name)
    setup = case.setup(recipe=r, seed=SEED, order=ORDER)
    got = learned.continuous_sparsification(
        setup, case.point, began, soft=soft, penalty=penalty, beta=beta, first=first
    )  # fmt: skip

    w = {n: v.clone().requires_grad_() for n, v in space.views(case.point.theta).items()}
    s = {n: space.views(began)[n].clone().requires_grad_() for n in soft_names}
    buffers = {n: b.clone() for n, b in case.point.buffers.items()}
    common = {"lr": 1.0, "momentum": 0.9, "nesterov": True}
    optimizers = [
        torch.optim.SGD(w.values(), weight_decay=1e-2, **common),
        torch.optim.SGD(s.values(), **common),
    ]
    for t, (rate, x, y) in enumerate(batches(case, r, first)):
        b = math.exp(math.log(beta) * t / 9)  # 10 steps: 1 at the first, beta at the last
        m = {n: torch.sigmoid(b * v) for n, v in s.items()}
        masked = {n: v * m.get(n, 1.0) for n, v in w.items()}
        outputs = torch.func.functional_call(case.module.train(), masked | buffers, (x,))
        loss = LOSSES[case.loss](outputs, y).mean() + penalty * sum(v.abs().sum() for v in m.values())
        for each in optimizers:
            each.param_groups[0]["lr"] = rate
            each.zero_grad()
        loss.backward()
        for each in optimizers:
            each.step()

    for layer in space.layers:
        here = layer.coordinates
        torch.testing.assert_close(got.weights[here], w[layer.name].detach().flatten(), rtol=1e-10, atol=1e-11)
        want = s[layer.name].detach().flatten() if layer.name in s else began[here]
        torch.testing.assert_close(got.scores[here], want, rtol=1e-10, atol=1e-11)
    hard = torch.where(soft, torch.sigmoid(beta * got.scores), 1.0)
    torch.testing.assert_close(got.end.theta, got.weights * hard, rtol=1e-12, atol=1e-14)
    for name, buffer in buffers.items():
        torch.testing.assert_close(got.end.buffers[name], buffer, rtol=1e-10, atol=1e-11)


def student() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 1))


def planted() -> tuple[nn.Module, Space, Point, list[int], Part]:
    """Targets by a network that is the student with half of its weights: they can be met exactly, by one mask."""
    net = student()
    space = Space.of(net)
    start = space.point(net)
    truth = select(space, torch.rand(space.dim), space.full_mask(), [288, 24])
    x = torch.randn(512, 12)
    y = space.call(net, start.project(truth).theta, {}, x).detach()
    return net, space, start, layer_counts(space, truth), Part(x, y)


def squared(net: nn.Module, space: Space, data: Part, recipe: Recipe) -> TrainingSetup:
    return LINE.setup(space=space, module=net, data=data, recipe=recipe, seed=0)


def error(net: nn.Module, space: Space, theta: Tensor, data: Part) -> float:
    with torch.no_grad():
        return float(F.mse_loss(space.call(net, theta, {}, data.x), data.y))


def test_edge_popup_finds_a_mask_far_better_than_random_ones():
    net, space, start, keep, data = planted()
    r = Recipe(length=Duration(600, "it"), batch_size=64, lr=10.0, schedule="cosine", weight_decay=0.0)
    scores = learned.initial_scores(space, torch.float32, generator(0, "scores"))
    got = learned.edge_popup(squared(net, space, data, r), start, scores, choose=repeated(space, keep))
    mask = got.end.theta != 0
    assert layer_counts(space, mask) == keep
    randoms = [select(space, torch.rand(space.dim), space.full_mask(), keep) for _ in range(50)]
    chance = [error(net, space, start.project(m).theta, data) for m in randoms]
    found = error(net, space, got.end.theta, data)
    assert found < min(chance) / 5
    assert found < sum(chance) / len(chance) / 10


def test_soft_masks_are_hard_at_the_end_and_find_what_is_planted():
    """A teacher with 4 of 16 inputs: their masks end at 1, all others at 0, to what sigmoid(200 s) leaves."""
    net = nn.Linear(16, 1, bias=False)
    space, x = Space.of(net), torch.randn(400, 16)
    truth = torch.arange(16) < 4
    data = Part(x, (x * truth * 2.0).sum(1, keepdim=True))
    r = Recipe(length=Duration(400, "it"), batch_size=50, lr=0.05, weight_decay=0.0)
    setup, rest = squared(net, space, data, r), {"soft": space.full_mask(), "penalty": 0.03, "beta": 200.0}
    start, began = Point(torch.ones(16)), torch.zeros(16)
    got = learned.continuous_sparsification(setup, start, began, **rest)
    mask = torch.sigmoid(200.0 * got.scores)
    assert torch.equal(mask > 0.5, truth)
    assert float((mask - truth.float()).abs().max()) < 1e-3
    again = learned.next_round(got.scores, 200.0, 0.0)
    assert bool((again[truth] == 0).all())
    assert bool((again[~truth] < -5).all())
    second = learned.continuous_sparsification(setup, Point(got.weights), again, **rest)
    assert torch.equal(second.scores > 0, truth), "what was off stays off, what was on is found again"


def test_scores_and_signed_constants_have_the_scale_of_kaiming():
    space = Space.of(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(50, 20)))
    scores = learned.initial_scores(space, torch.float32, generator(0, "scores"))
    assert torch.equal(scores, learned.initial_scores(space, torch.float32, generator(0, "scores")))
    theta = torch.randn(space.dim)
    constant = learned.signed_constant(space, theta)
    for layer, fan_in in zip(space.prunable_layers, (36, 50), strict=True):
        here = scores[layer.coordinates]
        assert 0.95 / fan_in**0.5 < float(here.abs().max()) <= 1 / fan_in**0.5
        assert abs(float(here.mean())) < 0.2 / fan_in**0.5
        want = theta[layer.coordinates].sign() * math.sqrt(2 / fan_in)
        torch.testing.assert_close(constant[layer.coordinates], want)
    assert bool((scores[~space.prunable] == 0).all())
    assert torch.equal(constant[~space.prunable], theta[~space.prunable])


def test_scores_that_explode_are_a_divergence():
    space, setup = LINE.space, LINE.setup(recipe=recipe(20, lr=1e200), seed=0)
    scores = learned.initial_scores(space, torch.float64, generator(0, "scores"))
    with pytest.raises(Diverged, match="edge-popup diverged: a score is not finite"):
        learned.edge_popup(setup, LINE.point, scores, choose=repeated(space, [4]))
