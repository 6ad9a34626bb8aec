"""``train.trajectory``: every training stores its own points at the steps that it passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.errors import ConfigError
from sublevel.study.cells import stored_mask, stored_point

STUDY = {
    "name": "trajectory",
    "levels": 1,
    "fraction": 0.4,
    "rewind": "2it",
    "branches": ["imp", "finetune", "reinit", {"name": "imp", "order": "independent"}],
    "geometry": {"paths": {"points": 3, "refine": 0, "instability": {"steps": ["4it"], "orders": 2}}},
}
TRAIN = {"epochs": 2, "batch_size": 70, "lr": 0.05, "checkpoints": ["4it"]}


def net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def study(where: Path, **train: object) -> sl.Study:
    a = {name: torch.from_numpy(v) for name, v in tiny_runs.arrays().items()}
    splits = {part: (a[f"{part}_x"][:, None], a[f"{part}_y"]) for part in ("train", "test")}
    return sl.Study(sl.Problem(net, **splits, validation=40), out=where, train=TRAIN | train, **STUDY)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    return study(tmp_path_factory.mktemp("trajectory"), trajectory=["2it", "5it"]).run(jobs=1, report=False)


def test_every_training_stores_its_start_and_what_it_passes(result: sl.Result) -> None:
    assert len(result.failures) == 0
    stored = {}
    for cell in result.document["cells"]:
        if cell["kind"] == "train":
            entry = result.store.read_entry(cell["key"])
            assert entry is not None
            stored[cell["cell"]] = sorted(entry["objects"])
    assert stored.pop("train/dense/L0/s0") == ["end", "step-2", "step-4", "step-5"]
    assert stored.pop("train/reinit/L1/s0") == ["end", "step-0", "step-2", "step-5"]
    left = {name: steps for name, steps in stored.items() if "reordered" in name}
    assert len(left) == 2, "two other data orders"
    assert all(steps == ["end", "step-5"] for steps in left.values()), "step 2 lies before they leave at step 4"
    others = {name: steps for name, steps in stored.items() if name not in left}
    assert len(others) == 3
    assert all(steps == ["end", "step-2", "step-5"] for steps in others.values())


def test_a_stored_point_lies_on_the_path_of_its_run(result: sl.Result) -> None:
    """Imp's point at the rewind step is the masked start; the one before the end leads to the end."""
    keys = {c["cell"]: c["key"] for c in result.document["cells"]}
    entry, mask = (result.store.read_entry(keys[f"{kind}/imp/L1/s0"]) for kind in ("train", "mask"))
    assert entry is not None
    assert mask is not None
    kept = stored_mask(result.store, mask["objects"]["mask"])
    start, late, end = (stored_point(result.store, entry["objects"][n]).theta for n in ("step-2", "step-5", "end"))
    dense = result.store.read_entry(keys["train/dense/L0/s0"])
    assert dense is not None
    rewound = stored_point(result.store, dense["objects"]["step-2"]).theta
    assert torch.equal(start, torch.where(kept, rewound, torch.zeros(())))
    assert not late[~kept].any()
    assert 0 < float((end - late).norm()) < float((end - start).norm())


def test_three_data_orders_give_three_barriers(result: sl.Result) -> None:
    found = result.paths.query("path == 'instability' and split == 'train' and buffers == 'recomputed'")
    assert found["pair"].tolist() == ["0-1", "0-2", "1-2"]
    assert (found["distance"] > 0).all()


def test_storing_more_changes_no_end_point(result: sl.Result, tmp_path: Path) -> None:
    plain = study(tmp_path).run(jobs=1, report=False)
    columns = ["branch", "level", "seed", "train_loss", "test_loss", "weight_norm"]
    assert plain.levels[columns].equals(result.levels[columns])


def test_a_step_past_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.trajectory: 7it is step 7, past the end at step 6"):
        study(tmp_path, trajectory=["7it"]).plan(jobs=1)
