"""A training loop of the user's own: plain SGD as a loop is the engine's own result, and what it may not give back."""

from __future__ import annotations

import pytest
import torch

from cases import named
from sublevel.errors import Diverged, ModelError
from sublevel.risk import LOSSES
from sublevel.space import Point
from sublevel.train.engine import train
from sublevel.train.own import by_loop
from sublevel.train.recipe import Duration, Recipe

CASE = named("normalised")
RECIPE = Recipe(length=Duration(4, "ep"), batch_size=8, lr=0.05, momentum=0.0, weight_decay=0.01, dtype="float64")
MASK = torch.rand(CASE.space.dim, generator=torch.Generator().manual_seed(5)) < 0.6


def trained(loop=None, start=CASE.point, order="a", **how):
    """By the engine, or by a loop."""
    setup = CASE.setup(recipe=RECIPE, seed=3, order=order)
    return train(setup, start, mask=MASK, **how) if loop is None else by_loop(loop, setup, start, mask=MASK, **how)


def sgd(theta, mask, steps, batch, buffers, rates, recipe):
    """Masked SGD, written with nothing of the package but the names of the weights."""
    for step in steps:
        x, y = batch(step)
        leaf = theta.requires_grad_()
        tensors = {**CASE.space.views(leaf), **buffers}
        loss = LOSSES[CASE.loss](torch.func.functional_call(CASE.module, tensors, (x,)), y).mean()
        (g,) = torch.autograd.grad(loss, leaf)
        buffers.update({name: tensors[name].detach() for name in buffers})
        theta = (theta.detach() - rates[step] * (g + recipe.weight_decay * theta.detach())) * mask
    return theta


@pytest.mark.parametrize("checkpoints", [(), (0, 7, 9)])
def test_sgd_as_a_loop_is_the_engine(checkpoints):
    CASE.module.train()
    engine, mine = trained(checkpoints=checkpoints), trained(sgd, checkpoints=checkpoints)
    torch.testing.assert_close(mine.end.theta, engine.end.theta, rtol=1e-12, atol=1e-12)
    assert set(mine.checkpoints) == set(checkpoints)
    for step in checkpoints:
        torch.testing.assert_close(mine.checkpoints[step].theta, engine.checkpoints[step].theta, rtol=1e-12, atol=1e-12)
    for name, buffer in engine.end.buffers.items():
        torch.testing.assert_close(mine.end.buffers[name], buffer, rtol=1e-12, atol=1e-12)
    assert [row["step"] for row in mine.history] == [*(n for n in checkpoints if n), RECIPE.steps(CASE.examples)]


def test_a_run_that_begins_in_the_middle_goes_on_with_the_same_batches():
    whole = trained(sgd, checkpoints=(7,))
    rest = trained(sgd, whole.checkpoints[7], first=7)
    assert torch.equal(rest.end.theta, whole.end.theta)


def test_a_loop_is_given_what_it_names_and_a_copy_of_the_weights():
    start, seen = CASE.point.theta.clone(), {}

    def loop(theta, mask, steps, seed, problem):
        seen.update(seed=seed, problem=problem, steps=list(steps), first=theta.clone())
        mask.fill_(False)
        return theta.mul_(0.5)

    found = trained(loop, rates=[0.1] * 3, offered={"problem": "mine"})
    assert (seen["seed"], seen["problem"], seen["steps"]) == (3, "mine", [0, 1, 2])
    assert torch.equal(seen["first"], start * MASK)
    assert torch.equal(CASE.point.theta, start)
    assert torch.equal(found.end.theta, 0.5 * start * MASK)


def test_noise_of_a_loop_is_repeated():
    def loop(theta, mask, steps):
        return theta + torch.randn(len(theta), dtype=theta.dtype) * mask

    before = torch.get_rng_state()
    one, two, other = (trained(loop, order=order).end.theta for order in "aab")
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (lambda theta: theta[:-1], ModelError, "returned torch.float64"),
        (lambda theta: theta.float(), ModelError, r"returned torch.float32 .* expected torch.float64"),
        (lambda theta: None, ModelError, "returned NoneType at step 20"),
        (lambda theta: theta + 1, ModelError, "nonzero pruned weights at step 20: multiply by the mask"),
        (lambda theta: theta * torch.nan, Diverged, "is not finite"),
        (lambda theta: Point(theta, {}), ModelError, "returned other buffers than the network's"),
    ],
)
def test_what_a_loop_may_not_give_back(give, error, message):
    def loop(theta, mask, steps):
        return give(theta)

    with pytest.raises(error, match=message) as caught:
        trained(loop)
    assert "test_what_a_loop_may_not_give_back.<locals>.loop" in str(caught.value)
