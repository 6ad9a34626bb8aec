"""Gradual pruning in a study: against a straight loop from the initialisation, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.data.batches import epoch_plan, gather
from sublevel.errors import ConfigError
from sublevel.space import project
from sublevel.study import costs
from sublevel.study.cells import stored_point
from sublevel.study.tickets import retrain
from sublevel.train.step import StepState, step

SEED, STEPS = 2, 12
BEGIN, END, EVERY = 1, 9, 3  # pruned at 4, 7 and 9
LAST = [0.5, 0.1]  # densities
DECAY = 1e-3


def net(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)
    )


def problem() -> sl.Problem:
    a = {k: torch.from_numpy(v) for k, v in tiny_runs.arrays().items()}
    split = {name: (a[f"{name}_x"][:, None], a[f"{name}_y"]) for name in ("train", "test")}
    return sl.Problem(net, **split, validation=40)


def study(out: Path, **keys) -> sl.Study:
    options = {"begin": f"{BEGIN}it", "end": f"{END}it", "every": f"{EVERY}it"} | keys.pop("options", {})
    train = {"length": f"{STEPS}it", "batch_size": 50, "lr": 0.05, "weight_decay": DECAY, "dtype": "float64"}
    keys = {"prune": {"densities": LAST}, "geometry": {"paths": {"points": 3, "refine": 0}}} | keys
    branches = [{"name": "gradual", "options": options}]
    return sl.Study(problem(), seeds=[SEED], branches=branches, train=train, out=out, **keys)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    done = study(tmp_path_factory.mktemp("gradual")).run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures
    return done


@pytest.mark.parametrize("level", [1, 2])
def test_the_solution_is_that_of_a_straight_loop(result: sl.Result, level: int) -> None:
    """One loop from the initialisation: step, prune when it is time, momentum kept for what stays. In float64."""
    p = result.problem
    prunable, size = p.space.prunable, int(p.space.prunable.sum())
    last = {1: round(size * LAST[0]), 2: round(size * LAST[1])}[level]
    begin = p.init(SEED)
    state, mask = StepState(begin.theta, torch.zeros_like(begin.theta), begin.buffers), p.space.full_mask()
    for now in range(STEPS):
        epoch, i = divmod(now, 4)
        plan = epoch_plan(len(p.splits.train), seed=SEED, epoch=epoch, order="", pad=0, flip=False)
        x = p.prepare(gather(p.splits.train.x, plan, 50 * i, 50 * (i + 1)))
        batch = (x, p.splits.train.y[plan.index[50 * i : 50 * (i + 1)]])
        rate = {"loss": p.per_example_loss(), "lr": 0.05, "momentum": 0.9, "weight_decay": DECAY}
        state, _ = step(p.space, p.module, state, mask, batch, **rate)
        if now + 1 in (4, 7, 9):
            share = (1 - (now + 1 - BEGIN) / (END - BEGIN)) ** 3
            keep = round(last + (size - last) * share)
            among = (mask & prunable).nonzero().squeeze(1)
            mask = ~prunable
            mask[among[state.theta[among].abs().argsort(descending=True)[:keep]]] = True
            state = StepState(project(state.theta, mask), project(state.velocity, mask), state.buffers)
    found = result.ticket("gradual", level, seed=SEED)
    assert torch.equal(found.mask, mask)
    assert int((mask & prunable).sum()) == last
    torch.testing.assert_close(found.end.theta, state.theta, rtol=0, atol=1e-10)


def test_the_first_part_is_on_the_curve_of_the_solution_itself(result: sl.Result) -> None:
    rows = result.history.query("branch == 'gradual' and level == 1")
    assert rows["step"].tolist() == [4, 8, 9, 12]
    dense = result.history.query("branch == 'dense'")
    assert rows["train_loss"].iloc[0] == dense["train_loss"].iloc[0], "the dense run, until the first pruning"
    assert rows["train_loss"].iloc[1] != dense["train_loss"].iloc[1]


def test_another_data_order_is_another_end_under_one_mask(result: sl.Result, tmp_path: Path) -> None:
    orders = {"paths": {"points": 3, "refine": 0, "successive": None, "to_dense": None, "orders": {"levels": [1]}}}
    done = study(tmp_path, geometry=orders).run(jobs=1, report=False)
    assert len(done.failures) == 0
    (key,) = [c["key"] for c in done.document["cells"] if c["cell"] == f"train/gradual/L1/s{SEED}/sibling"]
    entry = done.store.read_entry(key)
    assert entry is not None
    other, found = stored_point(done.store, entry["objects"]["end"]).theta, result.ticket("gradual", 1, seed=SEED)
    assert bool((other[~found.mask] == 0).all())
    assert not torch.equal(other, found.end.theta)
    assert entry["inputs"]["moments"] is not None, "both go on with the momentum of the pruning run"


def test_a_ticket_does_not_pretend_to_hold_the_momentum(result: sl.Result) -> None:
    with pytest.raises(ConfigError, match="the momentum of an earlier run, which no ticket holds"):
        retrain(result.ticket("gradual", 1, seed=SEED), result.problem)


def test_what_is_protected_stays_and_other_scores_choose(tmp_path: Path) -> None:
    """With a score that looks at the loss, the optimal brain surgeon's update on the way included."""
    for criterion in ("taylor", "woodfisher", "random", "movement"):
        done = study(
            tmp_path, options={"criterion": criterion}, protect=["0"], prune={"densities": [0.6]}, geometry={}
        ).run(jobs=1, report=False)
        assert len(done.failures) == 0, (criterion, done.failures)
        space, mask = done.problem.space, done.ticket(f"gradual-{criterion}", 1, seed=SEED).mask
        first, second = (int(mask[layer.coordinates].sum()) for layer in space.prunable_layers)
        assert (first, first + second) == (36, round(0.6 * int(space.prunable.sum())))


REFUSED = [
    ({"end": "12it"}, r"branch 'gradual': prunes from step 1 to step 12 of 12, every 3; it must end after it begins"),
    ({"begin": "9it"}, r"prunes from step 9 to step 9 of 12"),
    ({"every": "0it"}, r"every 0; .* with a step or more between prunings"),
    ({"every": "often"}, r"branch 'gradual': every: a length of training is steps or epochs.*got 'often'"),
    ({"every": 3}, r"option 'every' of branch 'gradual' is a str, got 3"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_a_schedule_that_cannot_be_is_refused(tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        study(tmp_path, options=options).plan(jobs=1)
    assert not any(tmp_path.iterdir())


def test_by_default_it_prunes_each_hundredth_of_three_quarters_of_the_way_from_k(tmp_path: Path) -> None:
    made = sl.Study(
        problem(), levels=1, fraction=0.5, rewind="200it", branches=["gradual"], out=tmp_path,
        train={"length": "2000it", "batch_size": 50},
    )  # fmt: skip
    nodes = made.cells[0].nodes
    inputs = nodes["gradual/gradual/L1/s0"].inputs
    assert (inputs["at"][0], inputs["at"][-1], len(inputs["at"])) == (200 + 13, 200 + 1350, 104)
    assert nodes["train/gradual/L1/s0"].inputs["first"] == 1550
    size = int(made.problem.space.prunable.sum())
    assert inputs["keep"][-1] == [size - (size + 1) // 2]
    # both parts together cost what the dense run does, and no more
    cost = costs.units(made.problem)
    both = cost(nodes["gradual/gradual/L1/s0"]) + cost(nodes["train/gradual/L1/s0"])
    assert both == pytest.approx(cost(nodes["train/dense/L0/s0"]))
