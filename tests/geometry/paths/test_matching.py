"""Weight matching: permuted copies come back exactly, and the barrier that was only a permutation is gone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import sublevel as sl
from cases import named
from sublevel.errors import ModelError
from sublevel.geometry.paths import barrier
from sublevel.geometry.paths.matching import (
    chain_spec,
    group_sizes,
    infer_spec,
    permute_point,
    permute_vector,
    residual_spec,
    weight_matching,
)
from sublevel.models.build import build
from sublevel.models.registry import names
from sublevel.risk import EmpiricalRisk
from sublevel.space import Point, Space
from sublevel.train.recipe import Duration, Recipe

F64 = torch.float64
SHAPE = (3, 16, 16)
OPTIONS = {"lenet-300-100": {}, "perceptron-32": {}, "vgg-16": {"width": 4}}
NETS = {name: OPTIONS.get(name, {"width": 4}) for name in names()}
"""Every registered network, as narrow as it may be: a new one is tested with no further code."""


def shuffled(space, spec, point, seed=0):
    """The same function with the units of every group in another order."""
    rng = torch.Generator().manual_seed(seed)
    orders = {group: torch.randperm(n, generator=rng) for group, n in group_sizes(space, spec).items()}
    return permute_point(space, spec, orders, point), orders


def network(name):
    """A network of the package at a point where no two units, affines or statistics are alike."""
    torch.manual_seed(1)
    net = build(name, input_shape=SHAPE, classes=5, **NETS[name]).double()
    space = Space.of(net)
    at = space.point(net)
    spread = {
        n: b + 0.5 * torch.rand(b.shape, dtype=F64) if b.is_floating_point() else b for n, b in at.buffers.items()
    }
    point = Point(at.theta + 0.05 * torch.randn(space.dim, dtype=F64), spread)
    return net, space, point


@pytest.mark.parametrize("name", NETS)
def test_a_permuted_copy_is_the_same_function_and_comes_back_exactly(name):
    net, space, point = network(name)
    spec = infer_spec(space)
    copy, _ = shuffled(space, spec, point)
    field = EmpiricalRisk(space, net, torch.randn(6, *SHAPE, dtype=F64), torch.arange(6) % 5)
    assert float((copy.theta - point.theta).norm()) > 1.0
    assert field.loss(copy) == pytest.approx(field.loss(point), rel=1e-9)
    found = weight_matching(space, point, copy)
    assert torch.equal(found.point.theta, point.theta)
    assert all(torch.equal(b, point.buffers[n]) for n, b in found.point.buffers.items())
    assert (found.distance, found.converged) == (0.0, True)
    assert found.distance_before > 1.0


@pytest.mark.parametrize("name", NETS)
def test_a_permuted_copy_of_a_sparse_network_comes_back_exactly(name):
    """Though at a tenth of the weights many units have no input or no output left to be matched on."""
    _, space, point = network(name)
    keep = torch.rand(space.dim, generator=torch.Generator().manual_seed(3)) < 0.1
    point = point.project(keep | ~space.prunable)
    copy, _ = shuffled(space, infer_spec(space), point)
    assert torch.equal(weight_matching(space, point, copy).point.theta, point.theta)


def test_statistics_must_move_with_their_units():
    """Left behind, they make the permuted network another function."""
    net, space, point = network("resnet-8")
    copy, _ = shuffled(space, infer_spec(space), point)
    field = EmpiricalRisk(space, net, torch.randn(6, *SHAPE, dtype=F64), torch.arange(6) % 5)
    assert field.loss(Point(copy.theta, point.buffers)) != pytest.approx(field.loss(point), rel=1e-3)


def descended(case, seed, steps=150):
    field, noise = case.field(), torch.Generator().manual_seed(seed)
    theta = torch.randn(case.space.dim, generator=noise, dtype=F64)
    for _ in range(steps):
        theta = theta - 0.3 * field.grad(theta)
    return Point(theta)


def test_a_barrier_that_was_only_a_permutation_is_gone():
    case = named("relu")
    field, end = case.field(), descended(case, 3)
    copy, _ = shuffled(case.space, chain_spec(case.space), end, seed=2)
    assert barrier(field, end, copy).barrier > 0.1
    found = weight_matching(case.space, end, copy)
    after = barrier(field, end, found.point)
    assert after.height == 0.0
    assert after.barrier == pytest.approx(0.0, abs=1e-12)


def test_a_noisy_permuted_copy_is_matched_to_within_its_noise():
    _, space, point = network("conv-4")
    noise = 0.01 * torch.randn(space.dim, dtype=F64)
    spec = infer_spec(space)
    copy, orders = shuffled(space, spec, Point(point.theta + noise))
    found = weight_matching(space, point, copy)
    assert found.distance == pytest.approx(float(noise.norm()))
    for group, order in orders.items():
        assert torch.equal(order[found.permutations[group]], torch.arange(len(order)))


def test_one_hidden_layer_is_matched_as_by_trying_every_permutation():
    space = Space.of(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
    spec = chain_spec(space)
    for seed in range(5):
        a, b = torch.randn(2, space.dim, generator=torch.Generator().manual_seed(seed), dtype=F64)
        every = itertools.permutations(range(5))
        best = min(float((a - permute_vector(space, spec, {"0.weight": torch.tensor(p)}, b)).norm()) for p in every)
        assert weight_matching(space, Point(a), Point(b)).distance == pytest.approx(best)


@pytest.mark.parametrize("name", ["lenet-300-100", "resnet-8"])
def test_matching_brings_two_networks_no_further_apart_and_keeps_the_function(name):
    net, space, point = network(name)
    torch.manual_seed(7)
    other = Point(point.theta[torch.randperm(space.dim)], point.buffers)
    found = weight_matching(space, point, other, seed=1)
    assert found.distance < found.distance_before
    assert found.converged
    field = EmpiricalRisk(space, net, torch.randn(6, *SHAPE, dtype=F64), torch.arange(6) % 5)
    assert field.loss(found.point) == pytest.approx(field.loss(other), rel=1e-9)
    again = weight_matching(space, point, other, seed=1)
    assert torch.equal(found.point.theta, again.point.theta)


def test_a_mask_moves_with_its_weights():
    case = named("convolution")
    mask, spec = case.masks()["dead"], chain_spec(case.space)
    copy, orders = shuffled(case.space, spec, case.point.project(mask))
    moved = permute_vector(case.space, spec, orders, mask)
    assert moved.dtype == torch.bool
    assert not torch.equal(moved, mask)
    assert torch.equal(copy.theta != 0, moved)


def test_a_flattened_input_moves_in_blocks_of_a_channel():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(6, 1, bias=False))
    space = Space.of(net)
    moved = permute_vector(space, chain_spec(space), {"0.weight": torch.tensor([1, 0])}, torch.arange(8.0))
    assert moved.tolist() == [1.0, 0.0, 5.0, 6.0, 7.0, 2.0, 3.0, 4.0]


def test_specs_and_points_that_do_not_fit_are_refused():
    case = named("perceptron")
    space, spec = case.space, dict(chain_spec(case.space))
    with pytest.raises(ModelError, match=r"a group or None for each of the 2 axes of 0\.weight"):
        weight_matching(space, case.point, case.point, {"0.bias": (None,)})
    with pytest.raises(ModelError, match=r"two axes of 0\.weight have the same group"):
        weight_matching(space, case.point, case.point, spec | {"0.weight": ("x", "x")})
    with pytest.raises(ModelError, match=r"axis 0 of 0\.weight has 8 entries, no multiple of the 3 units of 'x'"):
        weight_matching(space, case.point, case.point, spec | {"0.weight": ("x", None), "2.bias": ("x",)})
    with pytest.raises(ValueError, match="b has dimension 2, the space 83"):
        weight_matching(space, case.point, Point(torch.zeros(2, dtype=F64)))
    with pytest.raises(ValueError, match="a has weights that are not finite"):
        weight_matching(space, Point(case.point.theta * float("nan")), case.point)
    with pytest.raises(ModelError, match=r"1\.weight reads 4 inputs, no multiple of the 3 units of 0\.weight"):
        chain_spec(Space.of(nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 2))))
    with pytest.raises(ModelError, match="the units of 3 are not known, as it has no affine"):
        chain_spec(
            Space.of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)))
        )
    with pytest.raises(ModelError, match="no CIFAR ResNet of this package"):
        residual_spec(space)


def wide_perceptron(classes):
    layers = nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, classes)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.full
def test_four_fifths_of_the_barrier_between_two_wide_perceptrons_are_a_permutation():
    """Trained apart, on the embedded images: Entezari et al. 2110.06296 conjecture it, matching finds it (92%)."""
    problem = sl.Problem(wide_perceptron, validation=1000)
    recipe = Recipe(length=Duration(10, "ep"), lr=0.05, weight_decay=1e-3, schedule="cosine")
    a, b = (problem.trained(problem.init(seed), recipe=recipe, seed=seed).end for seed in (0, 1))
    field = problem.field("train", size=2000)
    assert max(field.evaluate(end).error for end in (a, b)) < 0.1
    before = barrier(field, a, b, points=11, refine=1).barrier
    after = barrier(field, a, weight_matching(problem.space, a, b).point, points=11, refine=1).barrier
    assert before > 0.3
    assert after < 0.2 * before
