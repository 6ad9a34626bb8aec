"""SynFlow and its rounds: conservation of the flow, and no layer collapsed where one shot collapses them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scored import context
from torch import nn

from cases import named, relu
from sublevel.models import build
from sublevel.prune import ScoreContext, layer_counts, prune, score_function
from sublevel.prune.masks import schedule
from sublevel.risk.synflow import flow
from sublevel.space import Point, Space


def deep() -> nn.Module:
    """A feed-forward network of ReLUs with norms, pooling and biases."""
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(5, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.LayerNorm(6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip


def test_every_layer_passes_on_the_whole_flow() -> None:
    """Layer-wise conservation (Tanaka et al. 2006.05467): the scores of each layer add up to R, here to 1e-12."""
    net = deep()
    space = Space.of(net)
    response = flow(space, net, torch.zeros(1, 2, 8, 8))
    at = space.point(net).to(dtype=torch.float64)
    whole = response.loss(at)
    scores = score_function("synflow")(at, None, torch.Generator(), flow=response)
    sums = [float(scores[layer.coordinates].sum()) for layer in space.prunable_layers]
    assert len(sums) == 4
    assert sums == pytest.approx([whole] * 4, rel=1e-12)
    assert all(bool((scores[x.coordinates] == 0).all()) for x in space.layers if x.name.endswith("bias"))


def test_the_flow_is_of_the_first_degree_in_a_layer() -> None:
    net = relu()
    space = Space.of(net)
    response, at = flow(space, net, torch.zeros(1, 6)), space.point(net).to(dtype=torch.float64)
    layer = next(space.prunable_layers)
    grown = at.theta.clone()
    grown[layer.coordinates] *= -3.0
    assert response.loss(Point(grown)) == pytest.approx(3 * response.loss(at), rel=1e-12)


def test_modules_and_their_norms_are_put_back() -> None:
    net = deep().train()
    space = Space.of(net)
    x = torch.rand(5, 2, 8, 8)
    before = net(x)
    flow(space, net, torch.zeros(1, 2, 8, 8)).grad(space.point(net).to(dtype=torch.float64))
    assert net.training
    assert torch.equal(net(x), before)
    assert not any("forward" in vars(m) for m in net.modules())


def test_counts_fall_exponentially_to_exactly_the_last() -> None:
    steps = list(schedule([100_000, 500], [1_000, 500], 100))
    assert len(steps) == 100
    assert steps[-1] == [1_000, 500]
    for r, (a, b) in enumerate(pairwise([[100_000, 500], *steps]), 1):
        assert b[0] == pytest.approx(100_000 * 0.01 ** (r / 100), abs=0.5)
        assert b[0] < a[0]
    assert list(schedule([10], [9], 100)) == [[9]]
    assert list(schedule([7], [0], 3)) == [[0]]
    assert list(schedule([7], [7], 5)) == [[7]]


def test_scores_are_new_in_every_round() -> None:
    """100 rounds are a hundred looks, at points that were pruned so far; one round is another mask."""
    case = named("relu")
    seen, keep = context(case), [12]
    many = prune("synflow", case.point, None, torch.Generator(), seen, keep)
    criterion = replace(score_function("synflow"), rounds=1)
    once = prune(criterion, case.point, None, torch.Generator(), seen, keep)
    assert once.looks == 1
    assert 40 < many.looks <= 100
    assert not torch.equal(many.mask, once.mask)
    mask = seen.mask
    for left in schedule([case.space.remaining(mask)], keep, 100):
        at = case.point.project(mask)
        scores = score_function("synflow")(at, None, torch.Generator(), flow=seen.flow)
        alive = (mask & case.space.prunable).nonzero().squeeze(1)
        gone = sorted((float(scores[i]), int(i)) for i in alive)[: len(alive) - left[0]]
        mask = mask.clone()
        mask[[i for _, i in gone]] = False
    assert torch.equal(mask, many.mask)


def vgg() -> tuple[nn.Module, Space]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build("vgg-16", input_shape=(3, 32, 32), classes=10)
    return net, Space.of(net)


def kept(name: str, density: float, **options) -> list[int]:
    """Weights that are left in each of the fourteen layers of VGG-16 at its initial point."""
    net, space = vgg()
    at, keep = space.point(net), round(density * int(space.prunable.sum()))
    seen = ScoreContext(space, space.full_mask(), at, flow(space, net, torch.zeros(1, 3, 32, 32)))
    left = layer_counts(space, prune(name, at, None, torch.Generator(), seen, [keep], **options).mask)
    assert sum(left) == keep
    return left


@pytest.mark.full
@pytest.mark.parametrize("density", [0.01, 0.001])
def test_synflow_collapses_no_layer_of_vgg_16(density: float) -> None:
    """A hundred rounds: hundreds of weights stay in every layer at a thousandth too."""
    assert min(kept("synflow", density)) > 100


@pytest.mark.full
def test_one_shot_magnitude_collapses_the_wide_layers_of_vgg_16_and_a_floor_saves_them() -> None:
    """At 0.01 it spares all fourteen; at 0.001 it empties three of those whose 512 inputs make their weights small."""
    assert min(kept("magnitude", 0.01)) > 1000
    left = kept("magnitude", 0.001)
    assert [i for i, n in enumerate(left) if n == 0] == [8, 10, 11]
    assert min(kept("magnitude", 0.001, floor=10)) == 10
    assert min(kept("lamp", 0.001)) > 0
