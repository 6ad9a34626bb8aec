"""The sweep of the rewind step, in small: what its branches share, and where each begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.study.cells import stored_point
from sublevel.study.documents import read

STEPS = {"imp": 3, "imp-0it": 0, "imp-20it": 20, "imp-2ep": 6, "imp-4ep": 12}


def net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, classes))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    """The preset with one seed, on a small network, and three steps in an epoch."""
    a = {name: torch.from_numpy(v) for name, v in tiny_runs.arrays().items()}
    splits = {part: (a[f"{part}_x"][:, None], a[f"{part}_y"]) for part in ("train", "test")}
    problem = sl.Problem(net, **splits, validation=40)
    keys = {name: value for name, value in read("rewind-sweep").items() if name not in ("data", "model")}
    keys |= {"seeds": 1, "train": keys["train"] | {"batch_size": 70}}
    done = sl.Study(problem, out=tmp_path_factory.mktemp("sweep"), **keys).run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures
    return done


def test_every_step_is_rewound_to_in_one_study(result: sl.Result) -> None:
    """The start of a branch is the dense run's point at its step, and all start from one dense run."""
    keys = {c["cell"]: c["key"] for c in result.document["cells"]}
    dense = result.store.read_entry(keys["train/dense/L0/s0"])
    assert dense is not None
    for branch, k in STEPS.items():
        for name in (branch, branch.replace("imp", "oneshot")):
            at = stored_point(result.store, dense["objects"][f"step-{k}"])
            assert torch.equal(result.ticket(name, 6, seed=0).start.theta, at.theta), name
            assert result.levels.query(f"branch == '{name}' and level == 6")["steps"].tolist() == [21 - k]
    assert torch.equal(result.ticket("imp-0it", 6, seed=0).start.theta, result.problem.init(0).theta)
    assert len({keys[f"mask/{b}/L1/s0"] for b in STEPS}) == 1, "one dense end, one first mask"
    assert len({keys[f"mask/{b}/L2/s0"] for b in STEPS}) == len(STEPS)
    assert len({keys[f"mask/{b.replace('imp', 'oneshot')}/L6/s0"] for b in STEPS}) == 1


def test_the_stability_of_every_step_is_measured(result: sl.Result) -> None:
    """A copy that leaves the dense run at each of the steps for another data order, and the barrier to it."""
    left = [c["cell"] for c in result.document["cells"] if c["cell"].startswith("train/dense/L0/s0/reordered/")]
    assert sorted(int(cell.rpartition("-")[2]) for cell in left) == sorted(STEPS.values())
    barriers = result.paths.query("path == 'instability' and split == 'train'")
    assert sorted(set(barriers["step"])) == sorted(STEPS.values())


def test_the_sweep_is_planned_with_its_cost(tmp_path: Path) -> None:
    """Branches name every checkpoint that they go back to, so the whole preset can be put together."""
    said = read("rewind-sweep")
    assert {b["options"]["rewind"] for b in said["branches"][1:] if isinstance(b, dict) and "options" in b} <= set(
        said["train"]["checkpoints"]
    )
    plan = sl.Study("rewind-sweep", out=tmp_path).plan(jobs=2)
    assert plan.cells["train"]["all"] == 150
    assert plan.seconds > 0
    assert not any(tmp_path.iterdir())
