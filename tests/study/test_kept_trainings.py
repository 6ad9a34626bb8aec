"""A long training that is cut short: its cell goes on from what was kept, and its tables are those of a whole run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import sublevel as sl
import tiny_runs
from sublevel.engine.events import Event
from sublevel.engine.partial import Partial
from sublevel.engine.store import Folder
from sublevel.space import Point
from sublevel.study.compute import CellCheckpointer
from sublevel.train.resume import Snapshot
from tiny_runs import tables

KEY = "ab" * 32
BRANCHES = ["imp", "gradual", "edge-popup", "continuous-sparsification"]
KEYS: dict[str, Any] = {
    "branches": BRANCHES,
    "seeds": [3],
    "geometry": {},
    "train": {"epochs": 6, "checkpoints": ["9it"]},
}


def snapshot() -> Snapshot:
    state = {"theta": torch.arange(4.0), "moment:count": torch.tensor(3)}
    saved = {2: Point(torch.ones(4), {"n.mean": torch.tensor([0.1])})}
    return Snapshot(state, 5, 0.1 + 0.2, 7, [{"step": 4, "train_loss": 1 / 3}], saved)


def test_what_is_kept_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    partial = Partial(Folder(tmp_path), KEY)
    assert CellCheckpointer(partial).load() is None
    CellCheckpointer(partial).save(snapshot())
    found, true = CellCheckpointer(Partial(Folder(tmp_path), KEY)).load(), snapshot()
    assert found is not None
    assert (found.step, found.total, found.seen, found.history) == (5, 0.1 + 0.2, 7, true.history)
    assert {n: t.tolist() for n, t in found.state.items()} == {n: t.tolist() for n, t in true.state.items()}
    assert torch.equal(found.saved[2].theta, true.saved[2].theta)
    assert torch.equal(found.saved[2].buffers["n.mean"], true.saved[2].buffers["n.mean"])


def test_what_is_no_training_is_not_read(tmp_path: Path) -> None:
    """Whole, by its checksum, and still not what a training keeps."""
    partial = Partial(Folder(tmp_path), KEY)
    odd = (
        {"step": 1, "colour": 2},
        {"step": "1"},
        {"step": -1},
        {"step": 1, "total": "x"},
        {"step": 1, "history": [1]},
    )
    for about, data in (({}, b""), ({"step": 1}, b"no tensors"), *((about, save({})) for about in odd)):
        partial.write(about, data)
        assert CellCheckpointer(partial).load() is None


class Cut:
    """Interrupts the run in the middle of the training of a branch, and remembers the steps that were reported."""

    def __init__(self, branch: str = "") -> None:
        self.branch, self.steps = branch, dict[str, list[int]]()

    def __call__(self, event: Event) -> None:
        said = event.about.get("said", {})
        if event.node is None or "step" not in said:
            return
        name = event.node.id
        self.steps.setdefault(name, []).append(said["step"])
        if self.branch and f"/{self.branch}/" in f"/{name}" and len(self.steps[name]) == 3:
            raise KeyboardInterrupt


def study() -> sl.Study:
    return sl.Study("tiny.toml", **KEYS)


@pytest.mark.parametrize("branch", ["dense", *(pytest.param(name, marks=pytest.mark.full) for name in BRANCHES)])
def test_an_interrupted_cell_goes_on_inside(branch: str, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(workshop)
    monkeypatch.setenv("SUBLEVEL_KEEP", "0")
    monkeypatch.setattr("sublevel.engine.partial.SHARE", 0)
    first, second = Cut(branch), Cut()
    with pytest.raises(KeyboardInterrupt):
        study().run(jobs=1, listener=first, report=False)
    store = workshop / "sublevel-runs" / ".store"
    (left,) = os.listdir(store / "partial")
    result = study().run(jobs=1, listener=second, report=False)
    assert len(result.failures) == 0
    (cut,) = (name for name, steps in first.steps.items() if len(steps) == 3 and name in second.steps)
    assert second.steps[cut][0] == first.steps[cut][-1], "the epoch that was told of last is the only one told twice"
    assert len(second.steps[cut]) < 6
    assert os.listdir(store / "partial") == []
    assert left
    whole = sl.Study("tiny.toml", out="whole", **KEYS).run(jobs=1, report=False)
    assert tables(result.folder) == tables(whole.folder)


@pytest.mark.full
def test_a_worker_that_is_killed_leaves_its_training_to_the_next(workshop: Path) -> None:
    """SIGKILL in the middle of the dense network's training; what its successor computes is what it would have."""
    keep = {"SUBLEVEL_KEEP": "0"}
    pause = workshop / "pause"
    store = workshop / "sublevel-runs" / ".store"
    run = ("run", "small.toml", "--jobs", "1", "--set", "train.epochs=40")
    running = tiny_runs.Running(*run, cwd=workshop, TINY_PAUSE=str(pause), **keep)
    tiny_runs.until(lambda: (store / "partial").is_dir() and any((store / "partial").iterdir()))
    pause.touch()
    tiny_runs.until(lambda: tiny_runs.paused(pause))
    running.kill_group()
    pause.unlink()
    assert any((store / "partial").iterdir())
    again = tiny_runs.cli(*run, cwd=workshop, **keep)
    assert again.returncode == 0, again.stderr
    assert not any((store / "partial").iterdir())
    whole = tiny_runs.cli(*run, "--out", "whole", cwd=workshop)
    assert whole.returncode == 0, whole.stderr
    assert tables(workshop / "sublevel-runs" / "small") == tables(workshop / "whole" / "small")
