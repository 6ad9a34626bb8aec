"""Every branch: its mask, where it starts, how it trains, against the protocol's table and the reference step."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import floor
from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl
import sublevel.study.branches
import tiny_runs
from sublevel.data.batches import epoch_plan, gather
from sublevel.geometry.paths import infer_spec, weight_matching
from sublevel.geometry.paths.matching import permute_vector
from sublevel.space import Point, project
from sublevel.study.builder import BRANCHES
from sublevel.study.cells import stored_mask, stored_point
from sublevel.train.engine import train
from sublevel.train.step import StepState, step

SEED, LEVELS, FRACTION, REWIND, STEPS = 4, 3, 0.3, 3, 8
RECIPE = {"epochs": 2, "batch_size": 50, "lr": 0.05, "schedule": "milestones", "milestones": ["5it"], "gamma": 0.2}
RECIPE["checkpoints"] = ["0it"]
DROP, FINETUNE_LR = 5, 0.05 * 0.2

EXTRA = [
    {"name": "imp", "order": "independent"},
    {"name": "imp", "options": {"rewind": "0it"}},
    {"name": "reinit", "label": "reinit-from-k", "options": {"from_step": "rewind"}},
    {"name": "random-prune", "label": "random-layers", "options": {"per_layer": True}},
]
LABELS = [*BRANCHES, "imp-independent", "imp-0it", "reinit-from-k", "random-layers"]
ITERATIVE = {"imp", "finetune", "imp-independent", "imp-0it"}
IMPS_MASK = {
    "finetune-mask",
    "reinit",
    "reinit-from-k",
    "reinit-signs",
    "ticket-signs",
    "shuffle-weights",
    "other-order",
}
LEARNED = {"edge-popup", "edge-popup-train", "continuous-sparsification"}
ANEW = LEARNED | {"gradual"}  # at every level
LAST_PRUNING = REWIND + (STEPS - REWIND) * 3 // 4
FIRST = {"reinit": 0, "at-init": 0, "imp-0it": 0, "edge-popup": STEPS // 2, "edge-popup-train": 0}
FIRST["gradual"] = LAST_PRUNING
FROM_K = {"imp", "oneshot", "random-prune", "random-layers", "imp-independent", "other-order", "other-mask"}
FROM_K |= {"permuted-mask"}


def net(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(),
        nn.Linear(12, classes),
    )  # fmt: skip


def tensors() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    a = {k: torch.from_numpy(v) for k, v in tiny_runs.arrays().items()}
    return {split: (a[f"{split}_x"][:, None], a[f"{split}_y"]) for split in ("train", "test")}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    """Every registered branch with its defaults, and the options; a new branch is tested with no further code."""
    problem = sl.Problem(net, **tensors(), validation=40)
    study = sl.Study(
        problem,
        seeds=[SEED],
        levels=LEVELS,
        fraction=FRACTION,
        rewind=f"{REWIND}it",
        branches=[*BRANCHES, *EXTRA],
        train=RECIPE,
        geometry={"paths": {"points": 3, "refine": 0, "successive": None, "to_dense": None,
                           "orders": {"branches": ["imp"], "levels": [1]}}},
        out=tmp_path_factory.mktemp("branches"),
    )  # fmt: skip
    done = study.run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures
    return done


def entry(result: sl.Result, name: str) -> dict:
    (key,) = [c["key"] for c in result.document["cells"] if c["cell"] == name]
    found = result.store.read_entry(key)
    assert found is not None
    return found


def moments(result: sl.Result, level: int) -> dict[str, torch.Tensor]:
    return result.store.get_tensors(entry(result, f"gradual/gradual/L{level}/s{SEED}")["objects"]["moments"])


def rewound(result: sl.Result) -> Point:
    return stored_point(result.store, entry(result, f"train/dense/L0/s{SEED}")["objects"][f"step-{REWIND}"])


def same(a: Point, b: Point) -> bool:
    return torch.equal(a.theta, b.theta) and all(torch.equal(a.buffers[n], b.buffers[n]) for n in a.buffers)


def ticket(result: sl.Result, label: str, level: int):
    return result.ticket(label, level, seed=SEED)


every = pytest.mark.parametrize("label", LABELS)
levels = pytest.mark.parametrize("level", range(1, LEVELS + 1))


@every
@levels
def test_the_count_is_exact(result: sl.Result, label: str, level: int) -> None:
    space = result.problem.space
    left = int(space.prunable.sum())
    for _ in range(level):
        left -= floor(FRACTION * left + 0.5)
    mask = ticket(result, label, level).mask
    assert int((mask & space.prunable).sum()) == left
    assert bool(mask[~space.prunable].all()), "biases and BatchNorm are never pruned"
    row = result.levels.query(f"branch == '{label}' and level == {level}").iloc[0]
    assert row["remaining"] == left
    assert row["density"] == pytest.approx(left / int(space.prunable.sum()))


@every
@levels
def test_pruned_coordinates_are_exactly_zero_and_the_others_moved(result: sl.Result, label: str, level: int) -> None:
    t = ticket(result, label, level)
    end = t.end.theta
    assert bool((end[~t.mask] == 0).all())
    assert not torch.signbit(end[~t.mask]).any()
    moved = float((end[t.mask] != t.start.theta[t.mask]).float().mean())
    assert moved == 0 if label == "edge-popup" else moved > 0.8


@pytest.mark.parametrize("label", [label for label in LABELS if label not in ANEW])
def test_masks_are_nested_where_they_must_be(result: sl.Result, label: str) -> None:
    masks = [ticket(result, label, level).mask for level in range(1, LEVELS + 1)]
    nested = [bool((b & ~a).sum() == 0) for a, b in pairwise(masks)]
    if label == "random-imp" or not label.startswith("random"):
        assert all(nested)
    else:
        assert not any(nested), "random masks of successive levels are independent draws"


@levels
def test_iterative_masks_keep_the_largest_of_what_was_left(result: sl.Result, level: int) -> None:
    """From the previous end point of the branch itself, by a sort that has nothing to do with the package's."""
    for label in ITERATIVE | {"oneshot"}:
        one_go = level == 1 or label == "oneshot"
        before = result.point("dense", seed=SEED) if one_go else ticket(result, label, level - 1).end
        prunable = result.problem.space.prunable
        among = prunable if one_go else prunable & ticket(result, label, level - 1).mask
        mask = ticket(result, label, level).mask
        kept, gone = before.theta[mask & prunable].abs(), before.theta[among & ~mask].abs()
        assert kept.min() >= gone.max(), label


@levels
def test_masks_that_are_imps(result: sl.Result, level: int) -> None:
    imp = ticket(result, "imp", level).mask
    for label in IMPS_MASK:
        assert torch.equal(ticket(result, label, level).mask, imp), label
    space = result.problem.space
    per_layer = [int(imp[layer.coordinates].sum()) for layer in space.prunable_layers]
    by_layer = ticket(result, "random-layers", level).mask
    assert [int(by_layer[layer.coordinates].sum()) for layer in space.prunable_layers] == per_layer
    anywhere = ticket(result, "random-prune", level).mask
    assert [int(anywhere[layer.coordinates].sum()) for layer in space.prunable_layers] != per_layer
    assert not torch.equal(by_layer, imp)


@levels
def test_where_each_branch_starts(result: sl.Result, level: int) -> None:
    """Weights and buffers alike."""
    k, dense = rewound(result), result.point("dense", seed=SEED)
    assert not torch.equal(k.buffers["1.running_mean"], dense.buffers["1.running_mean"])
    for label in FROM_K:
        assert same(ticket(result, label, level).start, k), label
    before = {"finetune": "finetune", "finetune-mask": "imp"}
    for label, previous in before.items():
        expected = dense if level == 1 else ticket(result, previous, level - 1).end
        assert same(ticket(result, label, level).start, expected), label
    fresh = result.problem.init(SEED, f"reinit:{level}")
    for label in ("reinit", "reinit-from-k"):
        start = ticket(result, label, level).start
        assert same(start, fresh), label
        assert bool((start.buffers["1.running_mean"] == 0).all())
        stored = entry(result, f"train/{label}/L{level}/s{SEED}")["objects"]
        (name,) = [digest for output, digest in stored.items() if output.startswith("step-")]
        mask = ticket(result, label, level).mask
        assert same(stored_point(result.store, name), fresh.project(mask)), "what the ticket draws is what was trained"


def test_new_initialisations_differ_between_levels_and_from_the_dense_one(result: sl.Result) -> None:
    starts = [ticket(result, "reinit", level).start.theta for level in range(1, LEVELS + 1)]
    starts.append(result.problem.init(SEED).theta)
    assert len({float(s.double().sum()) for s in starts}) == len(starts)


@levels
def test_new_magnitudes_keep_every_sign_and_nothing_else(result: sl.Result, level: int) -> None:
    """Of prunable weights; biases, affine parameters and buffers are those of step k."""
    k, start = rewound(result), ticket(result, "reinit-signs", level).start
    prunable = result.problem.space.prunable
    drawn = result.problem.init(SEED, f"reinit-signs:{level}").theta
    assert torch.equal(start.theta[prunable].sign(), k.theta[prunable].sign())
    assert torch.equal(start.theta[prunable].abs(), drawn[prunable].abs())
    assert not torch.equal(start.theta[prunable].abs(), k.theta[prunable].abs())
    assert torch.equal(start.theta[~prunable], k.theta[~prunable])
    assert all(torch.equal(start.buffers[n], k.buffers[n]) for n in k.buffers)


@levels
def test_shuffled_survivors_are_the_same_values_of_each_layer_in_other_places(result: sl.Result, level: int) -> None:
    k, t = rewound(result), ticket(result, "shuffle-weights", level)
    for layer in result.problem.space.prunable_layers:
        kept = t.mask[layer.coordinates]
        before, after = (theta[layer.coordinates] for theta in (k.theta, t.start.theta))
        assert torch.equal(after[kept].sort().values, before[kept].sort().values)
        assert not torch.equal(after[kept], before[kept])
        assert torch.equal(after[~kept], before[~kept])
    rest = ~result.problem.space.prunable
    assert torch.equal(t.start.theta[rest], k.theta[rest])


@levels
def test_another_seeds_mask_is_that_of_imp_for_that_seed(result: sl.Result, level: int) -> None:
    mask = ticket(result, "other-mask", level).mask
    theirs = entry(result, f"mask/imp/L{level}/s{SEED + 1}")["objects"]["mask"]
    assert torch.equal(mask, stored_mask(result.store, theirs))
    assert not torch.equal(mask, ticket(result, "imp", level).mask)


@levels
def test_a_permuted_mask_keeps_the_units_that_the_other_seed_kept(result: sl.Result, level: int) -> None:
    mask, space = ticket(result, "permuted-mask", level).mask, result.problem.space
    theirs = ticket(result, "other-mask", level).mask
    assert not torch.equal(mask, theirs)
    dense = [
        stored_point(result.store, entry(result, f"train/dense/L0/s{seed}")["objects"]["end"])
        for seed in (SEED, SEED + 1)
    ]
    found = weight_matching(space, *dense)
    assert torch.equal(mask, permute_vector(space, infer_spec(space), found.permutations, theirs))
    units = [sorted(space.views(m.float())["4.weight"].sum(1).tolist()) for m in (mask, theirs)]  # of a hidden layer
    assert units[0] == units[1]


@levels
def test_a_tickets_signs_and_normalisation_are_those_of_its_end(result: sl.Result, level: int) -> None:
    start, space = ticket(result, "ticket-signs", level).start, result.problem.space
    end, mask = ticket(result, "imp", level).end, ticket(result, "imp", level).mask
    kept, rest = mask & space.prunable, ~space.prunable
    assert torch.equal(start.theta[kept].sign(), end.theta[kept].sign())
    assert not torch.isclose(start.theta[kept].abs(), end.theta[kept].abs()).any()
    assert torch.equal(start.theta[rest], end.theta[rest])
    assert all(torch.equal(start.buffers[name], b) for name, b in end.buffers.items())


def test_pruned_before_training_is_pruned_by_the_initialisation(result: sl.Result) -> None:
    begin = result.problem.init(SEED)
    for level in range(1, LEVELS + 1):
        t = ticket(result, "at-init", level)
        assert same(t.start, begin)
        assert same(ticket(result, "imp-0it", level).start, begin)
        prunable = result.problem.space.prunable
        kept, gone = begin.theta[t.mask & prunable].abs(), begin.theta[~t.mask].abs()
        assert kept.min() >= gone.max()


def test_a_step_to_rewind_to_without_a_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    problem = sl.Problem(net, **tensors(), validation=40)
    for rewind, said in (("2it", r'add "2it" to train.checkpoints'), ("8it", "past the end"), ("soon", "got 'soon'")):
        branches = [{"name": "imp", "options": {"rewind": rewind}}]
        study = sl.Study(problem, levels=1, rewind="3it", branches=branches, train=RECIPE, out=tmp_path)
        with pytest.raises(sl.errors.ConfigError, match=said):
            study.plan(jobs=1)
        assert not any(tmp_path.iterdir())


def reference(
    result: sl.Result,
    start: Point,
    mask: torch.Tensor,
    first: int,
    lr: float | None,
    order: str,
    seed: int = SEED,
    velocity: torch.Tensor | None = None,
) -> Point:
    """The same run, a step at a time, with nothing but the reference step."""
    p = result.problem
    data, per_epoch = p.splits.train, 4
    state = StepState(project(start.theta, mask), torch.zeros_like(start.theta), start.buffers)
    state = state if velocity is None else replace(state, velocity=velocity)
    for now in range(first, STEPS):
        epoch, i = divmod(now, per_epoch)
        plan = epoch_plan(len(data), seed=seed, epoch=epoch, order=order, pad=0, flip=False)
        x = p.prepare(gather(data.x, plan, 50 * i, 50 * (i + 1)))
        rate = lr if lr is not None else 0.05 * (0.2 if now >= DROP else 1.0)
        batch = (x, data.y[plan.index[50 * i : 50 * (i + 1)]])
        state, _ = step(
            p.space, p.module, state, mask, batch, loss=p.per_example_loss(), lr=rate, momentum=0.9, weight_decay=1e-4
        )
    return Point(state.theta, state.buffers)


@every
@levels
def test_the_end_is_that_of_the_reference(result: sl.Result, label: str, level: int) -> None:
    """Schedule from step k, from step 0, or at a constant rate; momentum zero at the start; the data order by name."""
    t = ticket(result, label, level)
    first = FIRST.get(label, REWIND)
    lr = FINETUNE_LR if label.startswith("finetune") else 0.0 if label == "edge-popup" else None
    order = f"level-{level}" if label == "imp-independent" else ""
    seed = SEED + (label == "other-order")
    velocity = moments(result, level)["velocity"] if label == "gradual" else None
    expected = reference(result, t.start, t.mask, first, lr, order, seed, velocity)
    assert torch.allclose(t.end.theta, expected.theta, atol=2e-6, rtol=1e-4)
    for name, buffer in expected.buffers.items():
        assert torch.allclose(t.end.buffers[name].double(), buffer.double(), atol=1e-5), name
    row = result.levels.query(f"branch == '{label}' and level == {level}").iloc[0]
    assert row["steps"] == STEPS - first


def test_the_dense_run_is_that_of_the_reference(result: sl.Result) -> None:
    p = result.problem
    expected = reference(result, p.init(SEED), p.space.full_mask(), 0, None, "")
    assert torch.allclose(result.point("dense", seed=SEED).theta, expected.theta, atol=2e-6, rtol=1e-4)


def test_a_shared_order_replays_and_an_independent_one_does_not(result: sl.Result) -> None:
    shared, own = ticket(result, "imp", 1), ticket(result, "imp-independent", 1)
    assert torch.equal(shared.mask, own.mask)
    assert same(shared.start, own.start)
    assert not torch.equal(shared.end.theta, own.end.theta)
    p = result.problem
    replayed = reference(result, shared.start, shared.mask, REWIND, None, "level-1")
    assert torch.allclose(replayed.theta, own.end.theta, atol=2e-6, rtol=1e-4)
    sibling = entry(result, f"train/imp/L1/s{SEED}/sibling")["objects"]["end"]
    end = stored_point(result.store, sibling)
    assert not torch.equal(end.theta, shared.end.theta)
    assert bool((end.theta[~shared.mask] == 0).all())
    assert p.space.dim == len(end.theta)


def test_rewinding_differs_from_going_on_only_through_momentum(result: sl.Result) -> None:
    p = result.problem
    for momentum, equal in ((0.0, True), (0.9, False)):
        recipe = sl.Recipe(batch_size=50, momentum=momentum).with_length("2ep")
        setup = p.setup(recipe=recipe, seed=SEED)
        dense = train(setup, p.init(SEED), checkpoints=[REWIND])
        again = train(setup, dense.checkpoints[REWIND], mask=p.space.full_mask(), first=REWIND)
        assert same(again.end, dense.end) is equal


def test_cells_that_branches_share_are_one(result: sl.Result) -> None:
    keys = {c["cell"]: c["key"] for c in result.document["cells"]}
    first = f"L1/s{SEED}"
    assert keys[f"mask/finetune/{first}"] == keys[f"mask/imp/{first}"] == keys[f"mask/oneshot/{first}"]
    assert keys[f"mask/imp-independent/{first}"] == keys[f"mask/imp/{first}"]
    assert keys[f"train/finetune-mask/{first}"] == keys[f"train/finetune/{first}"]
    assert keys[f"train/oneshot/{first}"] == keys[f"train/imp/{first}"]
    assert keys[f"train/imp-independent/{first}"] != keys[f"train/imp/{first}"]
    second = f"L2/s{SEED}"
    assert len({keys[f"train/{b}/{second}"] for b in ("imp", "oneshot", "finetune", "finetune-mask")}) == 4


def test_every_solution_is_in_the_table_once(result: sl.Result) -> None:
    rows = [tuple(r) for r in result.levels[["branch", "level", "seed"]].itertuples(index=False)]
    assert rows == [("dense", 0, SEED), *((b, n, SEED) for b in LABELS for n in range(1, LEVELS + 1))]
    assert len(result.history.query(f"branch == 'dense' and seed == {SEED}")) == 2


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_counts_under_both_scopes(tmp_path: Path, scope: str) -> None:
    problem = sl.Problem(net, **tensors(), validation=40)
    study = sl.Study(problem, levels=2, fraction=0.5, scope=scope, branches=["imp", "random-prune"],
                     train={"length": "2it", "batch_size": 50}, out=tmp_path)  # fmt: skip
    done = study.run(jobs=1, report=False)
    sizes = [layer.size for layer in problem.space.prunable_layers]
    for label in ("imp", "random-prune"):
        mask = done.ticket(label, 2).mask
        left = [int(mask[layer.coordinates].sum()) for layer in problem.space.prunable_layers]
        once = [n - floor(0.5 * n + 0.5) for n in sizes]
        exact = [n - floor(0.5 * n + 0.5) for n in once]
        if scope == "layer":
            assert left == exact
        else:
            total = sum(sizes) - floor(0.5 * sum(sizes) + 0.5)
            assert sum(left) == total - floor(0.5 * total + 0.5)
            assert left != exact
