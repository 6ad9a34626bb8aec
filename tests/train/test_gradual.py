"""A run that is interrupted and a run that is pruned on its way, against the reference step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cases import CASES, Case
from sublevel.data.batches import epoch_plan
from sublevel.data.splits import Part
from sublevel.problem import Problem
from sublevel.risk import LOSSES
from sublevel.rng import generator
from sublevel.space import Point, project
from sublevel.train.engine import train
from sublevel.train.gradual import cubic, gradual
from sublevel.train.recipe import Duration, Recipe
from sublevel.train.setup import TrainingSetup
from sublevel.train.step import StepState, adam_step, step

CASE: Case = next(c for c in CASES if c.space.statistics)
SGD = Recipe(length=Duration(3, "ep"), batch_size=10, lr=0.05, momentum=0.9, weight_decay=1e-3)
EPS = 1e-4  # the gradient of a bias before BatchNorm is rounding alone, which Adam's usual eps would blow up
RECIPES = {
    "sgd": SGD,
    "nesterov": replace(SGD, nesterov=True),
    "adam": replace(SGD, optimizer="adam", lr=0.01, eps=EPS),
    "adamw": replace(SGD, optimizer="adamw", lr=0.01, eps=EPS),
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
DATA = Part(*CASE.data)


def setup(recipe: Recipe) -> TrainingSetup:
    return CASE.setup(recipe=recipe, seed=5)


def same(a: Point, b: Point) -> bool:
    return torch.equal(a.theta, b.theta) and all(torch.equal(a.buffers[n], b.buffers[n]) for n in a.buffers)


def smallest_out(keep: dict[int, int], seen: dict[int, torch.Tensor]):
    """Magnitude pruning among the prunable weights, by a sort of its own."""

    def tighten(now, point, mask):
        among = (mask & CASE.space.prunable).nonzero().squeeze(1)
        best = among[point.theta[among].abs().argsort(descending=True)[: keep[now]]]
        seen[now] = ~CASE.space.prunable
        seen[now][best] = True
        return seen[now], project(point.theta, seen[now])

    return tighten


def straight(recipe: Recipe, keep: dict[int, int], steps: int) -> tuple[StepState, dict[int, torch.Tensor]]:
    """One loop over all steps, with nothing but the reference step: prune, zero the moments, go on."""
    own = {"nesterov": recipe.nesterov} if recipe.optimizer == "sgd" else {}
    own |= {} if recipe.optimizer == "sgd" else {"beta2": recipe.beta2, "eps": recipe.eps}
    own |= {"decoupled": True} if recipe.optimizer == "adamw" else {}
    momentum = {"momentum" if recipe.optimizer == "sgd" else "beta1": recipe.momentum}
    move, per_epoch, masks = (step if recipe.optimizer == "sgd" else adam_step), recipe.steps_per_epoch(len(DATA)), {}
    state = StepState(CASE.point.theta, torch.zeros_like(CASE.point.theta), CASE.point.buffers)
    mask = CASE.space.full_mask()
    tighten = smallest_out(keep, masks)
    for now in range(steps):
        epoch, i = divmod(now, per_epoch)
        places = epoch_plan(len(DATA), seed=5, epoch=epoch, order="", pad=0, flip=False).index[10 * i : 10 * (i + 1)]
        state, _ = move(
            CASE.space, CASE.module, state, mask, (DATA.x[places], DATA.y[places]), loss=LOSSES[CASE.loss],
            lr=recipe.rates(len(DATA))[now], weight_decay=recipe.weight_decay, **momentum, **own,
        )  # fmt: skip
        if now + 1 in keep:
            mask, theta = tighten(now + 1, Point(state.theta), mask)
            second = None if state.second is None else project(state.second, mask)
            state = replace(state, theta=theta, velocity=project(state.velocity, mask), second=second)
    return state, masks


@recipes
def test_a_run_goes_on_with_its_momentum_as_if_it_had_not_stopped(recipe: Recipe) -> None:
    """To the bit, in the middle of an epoch; with momentum from zero it ends elsewhere."""
    whole = train(setup(recipe), CASE.point).end
    full = CASE.space.full_mask()
    stop = recipe.steps_per_epoch(len(DATA)) + 1
    half = gradual(setup(recipe), CASE.point, tighten=lambda now, at, mask: (mask, at.theta), at=[stop])
    assert torch.equal(half.mask, full)
    rest = {"mask": full, "first": stop}
    assert same(train(setup(recipe), half.end, moments=half.moments, **rest).end, whole)
    assert not same(train(setup(recipe), half.end, **rest).end, whole)


@recipes
def test_masks_that_tighten_during_one_run_are_those_of_a_straight_loop(recipe: Recipe) -> None:
    """Gradual pruning, then training under the last mask, in float64 against the reference step by step."""
    assert CASE.point.theta.dtype == torch.float64
    size, steps = int(CASE.space.prunable.sum()), recipe.steps(len(DATA))
    at = list(range(2, steps - 2))
    keep = {now: cubic(size, size // 5, now - 1, at[-1] - 1) for now in at}
    seen: dict[int, torch.Tensor] = {}
    done = gradual(setup(recipe), CASE.point, tighten=smallest_out(keep, seen), at=at)
    expected, masks = straight(recipe, keep, at[-1])
    assert all(torch.equal(seen[now], masks[now]) for now in at)
    assert all(int((seen[now] & CASE.space.prunable).sum()) == keep[now] for now in at)
    assert all(not (seen[b] & ~seen[b - 1]).any() for b in at[1:])
    assert torch.allclose(done.end.theta, expected.theta, rtol=0, atol=1e-10)
    first = "velocity" if recipe.optimizer == "sgd" else "first"
    assert torch.allclose(done.moments[first], expected.velocity, rtol=0, atol=1e-10)
    for vector in (done.end.theta, done.moments[first]):
        assert bool((vector[~done.mask] == 0).all())
        assert not bool(torch.signbit(vector[~done.mask]).any())

    end = train(setup(recipe), done.end, mask=done.mask, first=at[-1], moments=done.moments).end
    assert torch.allclose(end.theta, straight(recipe, keep, steps)[0].theta, rtol=0, atol=1e-10)
    assert bool((end.theta[~done.mask] == 0).all())


def test_labels_that_do_not_count_weigh_the_same_in_every_training() -> None:
    x, y = torch.randn(20, 4, generator=generator(0, "probe")), torch.arange(20) % 2
    y[::3] = -100
    p = Problem(lambda input_shape, classes: nn.Linear(4, 2), train=(x, y), test=(x, y), validation=0, version="1")
    setup, start = p.setup(recipe=replace(SGD, length=Duration(4, "it")), seed=0), p.init(0)
    done = gradual(setup, start, tighten=lambda now, at, mask: (mask, at.theta), at=[4])
    assert same(done.end, p.trained(start, recipe=setup.recipe, seed=0).end)
    assert not same(done.end, train(replace(setup, loss=p.per_example_loss()), start).end)


def test_the_cubic_schedule_falls_from_all_to_the_target() -> None:
    """s_t = s_f + (s_i - s_f) (1 - t / T)^3 with s_i = 0: at half the way 7/8 of what is to go has gone."""
    counts = [cubic(10_000, 2_000, n, 10) for n in range(11)]
    assert counts[0] == 10_000
    assert counts[5] == 10_000 - 7 * 8_000 // 8
    assert counts[10] == 2_000
    assert counts == sorted(counts, reverse=True)
