"""The engine against its slow twin, batch by batch; what is replayed, resumed, checkpointed and refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch

from cases import CASES, Case, convolution, dropout, named, perceptron
from sublevel.data.batches import epoch_plan, gather
from sublevel.data.splits import Part
from sublevel.errors import Diverged
from sublevel.risk import LOSSES
from sublevel.space import Point, project
from sublevel.train.engine import train
from sublevel.train.recipe import ENGINES, Duration, Recipe
from sublevel.train.step import StepState, adam_step, step


@dataclass(frozen=True)
class Run:
    """A case with uint8 or float examples and the recipe it is trained by."""

    case: Case
    recipe: Recipe
    uint8: bool = False

    @cached_property
    def data(self) -> Part:
        x, y = self.case.data
        if self.uint8:
            x = ((x + 3) / 6 * 255).clamp(0, 255).to(torch.uint8)
        return Part(x, y)

    def prepare(self, x):
        return x.double() / 100 - 1 if self.uint8 else x

    @property
    def per_epoch(self) -> int:
        return self.recipe.steps_per_epoch(len(self.data))

    def fast(self, mask=None, start=None, seed=3, order="", watch=None, **options):
        how = {"recipe": self.recipe, "seed": seed, "order": order, "watch": watch}
        setup = self.case.setup(data=self.data, prepare=self.prepare, **how)
        return train(setup, start or self.case.point, mask=mask, **options)

    def batches(self, first, last, seed=3, order=""):
        """The plan, read by hand: index, crop and flip of one example at a time."""
        r = self.recipe
        x = torch.nn.functional.pad(self.data.x, (r.crop,) * 4) if r.crop else self.data.x
        for now in range(first, last):
            epoch, i = divmod(now, self.per_epoch)
            plan = epoch_plan(len(self.data), seed=seed, epoch=epoch, order=order, pad=r.crop, flip=r.flip)
            places = range(i * r.batch_size, min((i + 1) * r.batch_size, len(self.data)))
            rows = []
            for place in places:
                image = x[plan.index[place]]
                if r.crop or r.flip:
                    height, width = self.data.x.shape[2:]
                    dy, dx = int(plan.dy[place]), int(plan.dx[place])
                    image = image[:, dy : dy + height, dx : dx + width]
                    image = image.flip(2) if plan.flip[place] else image
                rows.append(image)
            yield self.prepare(torch.stack(rows)), self.data.y[plan.index[list(places)]]

    def slow(self, mask=None, start=None, first=0, seed=3, order=""):
        """States after every step of the reference."""
        case, r = self.case, self.recipe
        mask = case.space.full_mask() if mask is None else mask
        point = (start or case.point).project(mask)
        state = StepState(point.theta, torch.zeros_like(point.theta), point.buffers)
        rates, states = r.rates(len(self.data)), [state]
        for now, batch in enumerate(self.batches(first, len(rates), seed, order), start=first):
            rest = {"loss": LOSSES[case.loss], "lr": rates[now], "weight_decay": r.weight_decay}
            if r.optimizer == "sgd":
                rest |= {"momentum": r.momentum, "nesterov": r.nesterov}
                state, _ = step(case.space, case.module, state, mask, batch, **rest)
            else:
                rest |= {"beta1": r.momentum, "beta2": r.beta2, "eps": r.eps, "decoupled": r.optimizer == "adamw"}
                state, _ = adam_step(case.space, case.module, state, mask, batch, **rest)
            states.append(state)
        return states


def recipe(steps=20, **changes):
    return Recipe(length=Duration(steps, "it"), **({"lr": 0.05, "batch_size": 10, "weight_decay": 1e-2} | changes))


DROPS = {"schedule": "milestones", "milestones": (Duration(7, "it"), Duration(2, "ep"))}
IMAGES = named("convolution")
RUNS = {
    **{c.name: Run(c, recipe()) for c in CASES if c.name != "dropout"},
    "nesterov": Run(IMAGES, recipe(nesterov=True)),
    "augmented": Run(IMAGES, recipe(crop=2, flip=True, **DROPS), uint8=True),
    "flipped": Run(IMAGES, recipe(flip=True, schedule="cosine", warmup=Duration(3, "it"))),
    "plain": Run(named("normalised"), recipe(momentum=0.0, weight_decay=0.0)),
    "adam": Run(IMAGES, recipe(lr=0.01, optimizer="adam")),
    "adamw": Run(named("perceptron"), recipe(lr=0.01, optimizer="adamw", beta2=0.99, weight_decay=0.1)),
    "one batch": Run(named("normalised"), recipe(batch_size=500)),
}
every = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["all", "random", "dead"])
@every
def test_twenty_steps_are_the_reference_s(run, kind, engine, monkeypatch):
    monkeypatch.setattr("sublevel.train.sparse.BELOW", 1.0)
    monkeypatch.setattr("sublevel.train.sparse.LARGE", 1)
    run = replace(run, recipe=replace(run.recipe, engine=engine))
    mask = run.case.masks()[kind]
    steps = range(21)
    fast, slow = run.fast(mask, checkpoints=steps), run.slow(mask)
    assert sorted(fast.checkpoints) == list(steps)
    for now in steps:
        got, want = fast.checkpoints[now], slow[now]
        torch.testing.assert_close(got.theta, want.theta, rtol=1e-10, atol=1e-11)
        for name, buffer in want.buffers.items():
            torch.testing.assert_close(got.buffers[name], buffer, rtol=1e-10, atol=1e-11)
        if mask is not None:
            assert bool((got.theta[~mask] == 0).all())
            assert not bool(torch.signbit(got.theta[~mask]).any())
    assert torch.equal(fast.end.theta, fast.checkpoints[20].theta)


def test_one_case_has_a_ragged_last_batch():
    assert len(IMAGES.data[0]) % 10 == 3


def torchs_own(r, net):
    if r.optimizer == "sgd":
        options = {"momentum": r.momentum, "nesterov": r.nesterov}
        return torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=r.weight_decay, **options)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[r.optimizer]
    return kind(net.parameters(), lr=1.0, betas=(r.momentum, r.beta2), eps=r.eps, weight_decay=r.weight_decay)


@pytest.mark.parametrize("name", ["perceptron", "convolution", "nesterov", "augmented", "adam", "adamw"])
def test_without_a_mask_it_is_the_optimizer(name):
    run = RUNS[name]
    r, net = run.recipe, run.case.build().double().train()
    run.case.space.write(net, run.case.point)
    optimizer = torchs_own(r, net)
    for rate, (x, y) in zip(r.rates(len(run.data)), run.batches(0, 20), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        LOSSES[run.case.loss](net(x), y).mean().backward()
        optimizer.step()
    torch.testing.assert_close(run.fast().end.theta, run.case.space.point(net).theta, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["perceptron", "convolution"])
def test_float32_within_tolerance(name):
    case = named(name)
    double = Run(case, recipe()).fast(case.masks()["random"])
    data = Part(case.data[0].float(), case.data[1])
    setup = case.setup(module=case.build(), data=data, recipe=recipe(), seed=3)
    single = train(setup, case.point.to(dtype=torch.float32), mask=case.masks()["random"])
    assert single.end.theta.dtype == torch.float32
    assert float((single.end.theta - double.end.theta).norm() / double.end.theta.norm()) < 1e-5
    assert bool((single.end.theta[~case.masks()["random"]] == 0).all())


@pytest.mark.parametrize("name", ["convolution", "augmented"])
@pytest.mark.parametrize("first", [1, 3, 4, 11, 19, 20])
def test_the_plan_goes_on_from_the_middle_of_an_epoch(name, first):
    """From the point saved at a step, the batches are those that an uninterrupted run sees; momentum starts at zero."""
    run = RUNS[name]
    saved = run.fast(checkpoints=[first]).checkpoints[first]
    again = run.fast(start=saved, first=first, checkpoints=[first])
    slow = run.slow(start=saved, first=first)
    torch.testing.assert_close(again.end.theta, slow[-1].theta, rtol=1e-10, atol=1e-11)
    assert torch.equal(again.checkpoints[first].theta, saved.theta)
    if first == 20:
        assert torch.equal(again.end.theta, saved.theta)


def test_without_momentum_a_run_in_two_parts_is_the_run():
    case = named("convolution")
    run = Run(case, recipe(momentum=0.0))
    whole = run.fast(checkpoints=[8])
    rest = run.fast(start=whole.checkpoints[8], first=8)
    assert torch.equal(rest.end.theta, whole.end.theta)
    assert [row["step"] for row in rest.history] == [9, 12, 15, 18, 20]


def test_gradient_and_moments_are_exactly_zero_where_pruned(monkeypatch):
    from sublevel.train import weights

    mask, seen = IMAGES.masks()["dead"], []
    plain = weights.update

    def flat(tensors):
        return torch.cat([t.detach().reshape(-1) for t in tensors])

    def watched(recipe, theta, mask):
        move = plain(recipe, theta, mask)

        def step(gradients, lr):
            move(gradients, lr)
            moments = [move.velocity] if recipe.optimizer == "sgd" else [move.first, move.second]
            seen.append([flat(gradients), flat(theta), *map(flat, moments)])

        return step

    monkeypatch.setattr(weights, "update", watched)
    for changes in ({}, {"nesterov": True}, {"optimizer": "adam"}, {"optimizer": "adamw"}):
        Run(IMAGES, recipe(**changes)).fast(mask)
    assert len(seen) == 80
    for vectors in seen:
        for vector in vectors:
            assert bool((vector[~mask] == 0).all())
            assert bool((vector[mask] != 0).any())


def test_the_start_is_projected_and_not_written():
    mask, start = IMAGES.masks()["random"], IMAGES.point
    held = start.theta.clone(), {n: b.clone() for n, b in start.buffers.items()}
    run = RUNS["convolution"]
    trained = run.fast(mask, checkpoints=[0])
    assert torch.equal(start.theta, held[0])
    assert all(torch.equal(start.buffers[n], b) for n, b in held[1].items())
    assert torch.equal(trained.checkpoints[0].theta, project(start.theta, mask))
    assert not trained.end.theta.requires_grad


def test_checkpoints_do_not_move_on():
    trained = RUNS["convolution"].fast(checkpoints=[2, 5])
    two, five = trained.checkpoints[2], trained.checkpoints[5]
    assert not torch.equal(two.theta, five.theta)
    assert not torch.equal(two.buffers["1.running_mean"], five.buffers["1.running_mean"])
    assert torch.equal(RUNS["convolution"].fast(checkpoints=[2]).checkpoints[2].theta, two.theta)


def test_the_same_seed_gives_the_same_bits_and_another_order_others():
    run = RUNS["augmented"]
    one, two = run.fast(), run.fast()
    assert torch.equal(one.end.theta, two.end.theta)
    assert one.history == two.history
    assert not torch.equal(run.fast(seed=4).end.theta, one.end.theta)
    other = run.fast(order="level-1")
    assert not torch.equal(other.end.theta, one.end.theta)
    torch.testing.assert_close(other.end.theta, run.slow(order="level-1")[-1].theta, rtol=1e-10, atol=1e-11)


def test_dropout_is_drawn_by_name_and_not_from_the_global_generator():
    run = Run(named("dropout"), recipe())
    torch.manual_seed(1)
    one = run.fast()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    two = run.fast()
    assert torch.equal(one.end.theta, two.end.theta)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is where it was"
    assert not torch.equal(run.fast(seed=5).end.theta, one.end.theta)
    assert not torch.equal(run.fast(order="b").end.theta, one.end.theta)
    without = Run(Case("off", lambda: perceptron_like_dropout(), seed=8), recipe()).fast()
    assert not torch.equal(without.end.theta, one.end.theta)


def perceptron_like_dropout():
    net = dropout()
    net[2].p = 0.0
    return net


def test_dropout_is_another_draw_in_every_step():
    """Two passes over the same single batch, with a rate of zero movement, must not agree in their loss."""
    run = Run(named("dropout"), recipe(4, lr=1e-12, batch_size=500))
    assert len({row["train_loss"] for row in run.fast().history}) == 4


def test_history_has_one_row_per_epoch_with_the_mean_loss_over_its_examples():
    """A smaller last batch counts by its size."""
    run = RUNS["augmented"]
    history = run.fast().history
    assert [row["step"] for row in history] == [3, 6, 9, 12, 15, 18, 20]
    assert [row["epoch"] for row in history] == list(range(7))
    assert [row["lr"] for row in history] == [run.recipe.rates(len(run.data))[row["step"] - 1] for row in history]
    losses, sizes = [], []
    for state, (x, y) in zip(run.slow()[:-1], run.batches(0, 20), strict=True):
        buffers = {n: b.clone() for n, b in state.buffers.items()}
        out = run.case.space.call(run.case.module.train(), state.theta, buffers, x)
        losses.append(float(LOSSES["cross-entropy"](out, y).sum()))
        sizes.append(len(y))
    for row, begin in zip(history, range(0, 20, 3), strict=True):
        part = slice(begin, row["step"])
        assert row["train_loss"] == pytest.approx(sum(losses[part]) / sum(sizes[part]), rel=1e-9)


def test_watching_does_not_disturb():
    """Measuring in between leaves the module in evaluation mode: training goes on as if it had not been."""
    case = named("normalised")
    run = Run(case, recipe())
    seen = []

    def watch(progress, point):
        case.module.eval()
        torch.rand(5)
        seen.append((progress.step, progress.steps, progress.epoch))
        return {"loss": case.field("recomputed").loss(Point(point.theta, point.buffers)), "step2": 2.0 * progress.step}

    watched = run.fast(watch=watch)
    assert torch.equal(watched.end.theta, run.fast().end.theta)
    assert seen[0] == (4, 20, 0)
    assert seen[-1] == (20, 20, 4)
    assert [row["step2"] for row in watched.history] == [8.0, 16.0, 24.0, 32.0, 40.0]
    assert watched.history[-1]["loss"] == case.field("recomputed").loss(watched.end)
    assert watched.history[0]["loss"] != watched.history[-1]["loss"]


def test_rates_of_one_s_own():
    run = RUNS["convolution"]
    trained = run.fast(rates=[0.0] * 5)
    assert torch.equal(trained.end.theta, run.case.point.theta)
    assert trained.history[-1]["step"] == 5


def test_divergence_is_raised_with_step_epoch_and_rate():
    run = Run(named("regression"), recipe(40, lr=1e12, batch_size=10, momentum=0.0))
    with pytest.raises(Diverged, match=r"between steps \d+ and (4|8|12|16|20) of 40 \(epoch \d, lr 1e\+12\)"):
        run.fast()


def test_a_start_that_is_not_finite_is_refused_in_the_first_epoch():
    run = RUNS["perceptron"]
    theta = run.case.point.theta.clone()
    theta[0] = math.nan
    with pytest.raises(Diverged, match="the loss is nan between steps 0 and 4"):
        run.fast(start=Point(theta, run.case.point.buffers))


def test_a_last_step_to_infinity_is_divergence_too():
    """The loss of a step is read before its update: the last update must not escape."""
    run = RUNS["perceptron"]
    with pytest.raises(Diverged):
        run.fast(rates=[0.05, 0.05, math.inf])


def test_the_network_is_not_written():
    case = Case("own", convolution, shape=(1, 6, 6), examples=23)
    before = {n: t.clone() for n, t in case.module.state_dict().items()}
    Run(case, recipe()).fast()
    assert all(torch.equal(before[n], t) for n, t in case.module.state_dict().items())
    assert all(p.grad is None for p in case.module.parameters())


def test_plans_cover_every_example_once_in_an_epoch():
    x = torch.arange(23)
    for epoch in range(3):
        plan = epoch_plan(23, seed=0, epoch=epoch)
        seen = torch.cat([gather(x, plan, i, min(i + 10, 23)) for i in range(0, 23, 10)])
        assert sorted(seen.tolist()) == list(range(23))


def test_a_smaller_network_learns():
    run = Run(Case("learns", perceptron), recipe(300, lr=0.3, weight_decay=0.0, batch_size=37))
    history = run.fast().history
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
