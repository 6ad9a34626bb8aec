"""Criteria and selection from the study file: what a mask cell is given, and what branches make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scored import NAIVE
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.errors import ConfigError
from sublevel.prune import SCORES, ScoreContext, layer_counts, prune, score
from sublevel.prune.allocation import counts
from sublevel.risk.synflow import flow
from sublevel.rng import generator
from sublevel.study.cells import stored_point

TRAIN = {"epochs": 1, "batch_size": 50, "lr": 0.05}


def net(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(),
        nn.Linear(12, classes),
    )  # fmt: skip


def study(out: Path, **keys) -> sl.Study:
    a = {k: torch.from_numpy(v) for k, v in tiny_runs.arrays().items()}
    parts = {split: (a[f"{split}_x"][:, None], a[f"{split}_y"]) for split in ("train", "test")}
    given = {"levels": 2, "fraction": 0.5, "rewind": "1it", "train": TRAIN, "geometry": {}, "out": out} | keys
    return sl.Study(sl.Problem(net, **parts, validation=40), **given)


def by(criterion: str, name: str = "oneshot") -> dict:
    return {"name": name, "options": {"criterion": criterion}}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    branches = [
        *({**by(name), "levels": [2]} for name in sorted(SCORES)),
        by("movement", "imp"),
        by("woodfisher", "finetune"),
    ]
    done = study(tmp_path_factory.mktemp("criteria"), branches=branches).run(jobs=1, report=False)
    assert not len(done.failures), done.failures
    return done


def stored(result: sl.Result, cell: str, output: str):
    (key,) = [c["key"] for c in result.document["cells"] if c["cell"] == cell]
    entry = result.store.read_entry(key)
    assert entry is not None
    return stored_point(result.store, entry["objects"][output])


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_criterion_is_a_branch_with_exact_counts(result: sl.Result, name: str) -> None:
    """The mask is the criterion's own, for the dense end point, where its training began, and the sample."""
    p = result.problem
    end, start = result.point("dense", seed=0), p.init(0)
    field = p.field("train", size=1000)
    context = ScoreContext(p.space, p.space.full_mask(), start, flow(p.space, p.module, torch.zeros(1, 1, 6, 6)))
    ticket, keep = result.ticket(f"oneshot-{name}", 2, seed=0), counts(p.space, 0.5, 2)
    want = prune(name, end, field, generator(0, f"prune:oneshot-{name}:2"), context, keep)
    assert torch.equal(ticket.mask, want.mask)
    assert p.space.remaining(ticket.mask) == keep[0]
    assert torch.equal(ticket.start.theta, stored(result, "train/dense/L0/s0", "step-1").theta)


def test_movement_of_an_iterated_branch_is_from_its_own_rewound_start(result: sl.Result) -> None:
    one, two = (result.ticket("imp-movement", level, seed=0) for level in (1, 2))
    moved = one.end.theta.square() - one.start.theta.square()
    kept = two.mask & result.problem.space.prunable
    gone = one.mask & ~two.mask
    assert moved[kept].min() >= moved[gone].max()
    rewound = stored(result, "train/dense/L0/s0", "step-1").theta
    assert torch.equal(one.start.theta, rewound)


def test_finetuning_goes_on_from_where_the_surgeon_left_the_weights(result: sl.Result) -> None:
    p = result.problem
    dense, ticket = result.point("dense", seed=0), result.ticket("finetune-woodfisher", 1, seed=0)
    context = ScoreContext(p.space, p.space.full_mask())
    want = prune("woodfisher", dense, p.field("train", size=1000), torch.Generator(), context, counts(p.space, 0.5, 1))
    assert torch.equal(ticket.mask, want.mask)
    assert torch.equal(ticket.start.theta, want.theta)
    assert not torch.equal(want.theta, dense.project(want.mask).theta)
    assert all(torch.equal(ticket.start.buffers[k], b) for k, b in dense.buffers.items())


def test_cells_of_old_criteria_are_given_what_they_always_were(tmp_path: Path) -> None:
    """Results that stand in stores are found again: no input is added while it has its default."""
    plain = study(tmp_path, branches=["imp", "random-prune", by("random")], scope="layer").cells[0].nodes
    assert set(plain["mask/imp/L2/s0"].inputs) == {"criterion", "point", "parent", "keep"}
    drawn = {"criterion", "point", "parent", "keep", "seed", "stream"}
    assert set(plain["mask/random-prune/L2/s0"].inputs) == set(plain["mask/oneshot-random/L2/s0"].inputs) == drawn
    spared = study(tmp_path, protect=["0"], floor=2).cells[0].nodes["mask/imp/L1/s0"].inputs
    assert spared["protect"] == ["0.weight"]
    assert spared["floor"] == 2
    shared = study(tmp_path, protect=["0"], floor=2, scope="erk").cells[0].nodes["mask/imp/L1/s0"].inputs
    assert set(shared) == {"criterion", "point", "parent", "keep"}


@pytest.mark.parametrize(
    "keys",
    [
        {"scope": "erk"},
        {"scope": "erk", "protect": ["6"], "floor": 9},
        {"protect": ["0*"], "floor": 5},
        {"scope": "layer", "protect": ["0.weight"]},
        {"rounding": "open_lth"},
    ],
    ids=str,
)
def test_selection_from_the_study_file(tmp_path: Path, keys: dict) -> None:
    done = study(tmp_path, branches=["imp", "random-prune"], **keys).run(jobs=1, report=False)
    assert not len(done.failures), done.failures
    space = done.problem.space
    total = counts(space, 0.5, 2, rounding=keys.get("rounding", "exact"))[0]
    for label in ("imp", "random-prune"):
        mask = done.ticket(label, 2).mask
        left = dict(zip((x.name for x in space.prunable_layers), layer_counts(space, mask), strict=True))
        if keys.get("scope") != "layer":
            assert space.remaining(mask) == total
        if "protect" in keys:
            spared = "6.weight" if keys["protect"] == ["6"] else "0.weight"
            assert left[spared] == next(x.size for x in space.prunable_layers if x.name == spared)
        assert min(left.values()) >= keys.get("floor", 0)
        if keys.get("scope"):
            assert list(left.values()) == counts(space, 0.5, 2, **keys)


def test_open_lth_removes_one_more_a_level(tmp_path: Path) -> None:
    nodes = study(tmp_path, rounding="open_lth").cells[0].nodes
    assert [nodes[f"mask/imp/L{n}/s0"].inputs["keep"] for n in (1, 2)] == [[419], [208]]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"protect": ["conv*"]}, r"protect: 'conv\*' matches no prunable layer; allowed: 0.weight, 4.weight, 6.weight"),
        ({"protect": ["*"]}, r"protect = \['\*'\] covers every prunable layer: nothing is left to prune"),
        (
            {"protect": ["4"]},
            r"level 1 leaves 420 weights, fewer than the 768 that protect = \['4'\] and floor",
        ),
        ({"floor": -1}, "floor: .*greater than or equal to 0, got -1"),
        ({"criterion": "snap"}, "unknown pruning score 'snap'; did you mean 'snip'"),
        ({"branches": [by("snap")]}, "unknown pruning score 'snap'; did you mean 'snip'"),
        ({"branches": [by("snip"), by("snip")]}, "two branches are called 'oneshot-snip': give one of them a label"),
        ({"branches": [{"name": "reinit", "options": {"criterion": "snip"}}]}, "unknown option of branch 'reinit'"),
        ({"rounding": "up"}, "rounding: .*'exact' or 'open_lth', got 'up'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(tmp_path: Path, keys: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _ = study(tmp_path, **keys).cells


def test_scores_that_are_nan_fail_their_cell_with_the_criterion_and_the_layer(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sublevel.prune.registry.SCORES", dict(SCORES))

    @score("half")
    def half(point, field, generator):
        return (point.theta - point.theta.median()).sqrt()

    done = study(tmp_path, criterion="half", levels=1).run(jobs=1, report=False)
    (error,) = done.failures.query("cell == 'mask/imp/L1/s0'")["error"]
    assert error.startswith("criterion 'half' gave nan for ")
    assert error.endswith(" of the weights of 0.weight")


@pytest.mark.full
def test_the_number_of_jobs_changes_no_mask(tmp_path: Path) -> None:
    """Every criterion, one job and two worker processes, in stores of their own."""
    folder = tiny_runs.furnish(tmp_path)
    lines = ", ".join(f'{{ name = "oneshot", options = {{ criterion = "{name}" }} }}' for name in sorted(NAIVE))
    text = tiny_runs.SMALL.replace('branches = ["imp", "finetune"]', f"branches = [{lines}]")
    (folder / "small.toml").write_text(text.replace("levels = 2", "levels = 1"))
    found = []
    for jobs in (1, 2):
        ran = tiny_runs.cli("run", "small.toml", "--jobs", jobs, "--out", f"out-{jobs}", cwd=folder)
        assert ran.returncode == 0, ran.stderr
        done = sl.open(folder / f"out-{jobs}" / "small")
        masks = {c["cell"]: c["key"] for c in done.document["cells"] if c["cell"].startswith("mask/")}
        found.append({cell: done.store.read_entry(key)["objects"] for cell, key in masks.items()})
    assert len(found[0]) == len(NAIVE)
    assert found[0] == found[1]
