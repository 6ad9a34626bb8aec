"""A long training that is cut short: its cell goes on from what was kept, and its tables are those of a whole run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import sublevel as sl
import tiny_runs
from sublevel.engine.store import Folder
from sublevel.errors import ConfigError
from sublevel.space import Point
from sublevel.study.graph import Node
from sublevel.study.partial import Partial
from sublevel.study.schedule import Listener
from sublevel.train.resume import Standing
from tiny_runs import tables

KEY, OTHER = "ab" * 32, "cd" * 32
BRANCHES = ["imp", "gradual", "edge-popup", "continuous-sparsification"]
KEYS: dict[str, Any] = {
    "branches": BRANCHES,
    "seeds": [3],
    "geometry": {},
    "train": {"epochs": 6, "checkpoints": ["9it"]},
}


def standing() -> Standing:
    state = {"theta": torch.arange(4.0), "moment:count": torch.tensor(3)}
    saved = {2: Point(torch.ones(4), {"n.mean": torch.tensor([0.1])})}
    return Standing(state, 5, 0.1 + 0.2, 7, [{"step": 4, "train_loss": 1 / 3}], saved)


@pytest.fixture
def partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Partial:
    monkeypatch.setenv("SUBLEVEL_KEEP", "0")
    return Partial(Folder(tmp_path), KEY)


def test_what_is_kept_is_read_back_bit_by_bit(partial: Partial, tmp_path: Path) -> None:
    assert partial.kept() is None
    partial.keep(standing())
    found, true = Partial(Folder(tmp_path), KEY).kept(), standing()
    assert found is not None
    assert (found.step, found.total, found.seen, found.history) == (5, 0.1 + 0.2, 7, true.history)
    assert {n: t.tolist() for n, t in found.state.items()} == {n: t.tolist() for n, t in true.state.items()}
    assert torch.equal(found.saved[2].theta, true.saved[2].theta)
    assert torch.equal(found.saved[2].buffers["n.mean"], true.saved[2].buffers["n.mean"])
    assert Partial(Folder(tmp_path), OTHER).kept() is None
    partial.drop()
    partial.drop()
    assert partial.kept() is None


def test_nothing_that_is_damaged_or_of_another_cell_is_read(partial: Partial, tmp_path: Path) -> None:
    partial.keep(standing())
    path = tmp_path / "partial" / KEY
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert partial.kept() is None, at
        path.write_bytes(data[:at])
        assert partial.kept() is None, at
    (tmp_path / "partial" / OTHER).write_bytes(data)
    assert Partial(Folder(tmp_path), OTHER).kept() is None


def test_it_is_time_after_so_many_seconds_and_not_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLEVEL_KEEP", "60")
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    partial = Partial(Folder(tmp_path), KEY)
    due = []
    for _ in range(4):
        clock[0] += 25
        due.append(partial.due())
        if due[-1]:
            partial.keep(standing())
    assert due == [False, False, True, False]
    monkeypatch.setenv("SUBLEVEL_KEEP", "soon")
    with pytest.raises(ConfigError, match="SUBLEVEL_KEEP is a number of seconds, 0 or more; got 'soon'"):
        Partial(Folder(tmp_path), KEY)


class Cut(Listener):
    """Interrupts the run in the middle of the training of a branch, and remembers the steps that were reported."""

    def __init__(self, branch: str = "") -> None:
        self.branch, self.steps = branch, dict[str, list[int]]()

    def progressed(self, node: Node, row: Mapping[str, Any]) -> None:
        if "step" not in row:
            return
        self.steps.setdefault(node.id, []).append(row["step"])
        if self.branch and f"/{self.branch}/" in f"/{node.id}" and len(self.steps[node.id]) == 3:
            raise KeyboardInterrupt


def study() -> sl.Study:
    return sl.Study("tiny.toml", **KEYS)


@pytest.mark.parametrize("branch", ["dense", *(pytest.param(name, marks=pytest.mark.full) for name in BRANCHES)])
def test_an_interrupted_cell_goes_on_inside(branch: str, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(workshop)
    monkeypatch.setenv("SUBLEVEL_KEEP", "0")
    monkeypatch.setattr("sublevel.study.partial.SHARE", 0)
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
