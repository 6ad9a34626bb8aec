"""Studies from Python: tensors and a factory of one's own, scripts without a guard, notebooks, results read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import sublevel as sl
import tiny_runs
from tiny_runs import python, tables

SCRIPT = """
import numpy as np
import torch
import sublevel as sl
{imports}

a = {{k: torch.from_numpy(v) for k, v in np.load("data.npz").items()}}
problem = sl.Problem({factory}, train=(a["train_x"][:, None], a["train_y"]),
                     test=(a["test_x"][:, None], a["test_y"]), validation=40)
study = sl.Study(problem, name="mine", levels=2, fraction=0.4, rewind="1it", branches=["imp", "reinit"],
                 train={{"epochs": 1, "batch_size": 50, "lr": 0.05}})
print("notes:", study.notes())
result = study.run(jobs=2, report=False)
print("ran", len(result.levels), len(result.failures))
"""

FACTORY = """
from torch import nn
def own(classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes))
"""

READ = """
import sublevel as sl, torch
result = sl.open("sublevel-runs/mine")
problem = result.problem
for _, row in result.levels.iterrows():
    t = result.ticket(row["branch"], row["level"], seed=row["seed"])
    for split in ("train", "test", "validation"):
        seen = problem.field(split).evaluate(t.end)
        assert seen.loss == row[f"{split}_loss"] and seen.error == row[f"{split}_error"], split
    part = problem.splits.test
    with torch.no_grad():
        wrong = float((t.module()(problem.prepare(part.x)).argmax(1) != part.y).float().mean())
    assert abs(wrong - row["test_error"]) < 1e-6
    assert int((t.mask & problem.space.prunable).sum()) == row["remaining"]
print("read", len(result.levels))
"""


def computed(workshop: Path) -> int:
    """How many cells the last run computed; two that are one by their keys count once."""
    manifest = workshop / "sublevel-runs" / "mine" / "study.json"
    return json.loads(manifest.read_text())["last_run"]["computed"]


@pytest.mark.slow
def test_a_script_without_a_guard_and_a_factory_beside_it(workshop: Path) -> None:
    (workshop / "own_nets.py").write_text(FACTORY)
    (workshop / "script.py").write_text(SCRIPT.format(imports="from own_nets import own", factory="own"))
    done = python("script.py", cwd=workshop)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ran 5 0") == 1, "workers must not run the script again"
    assert "notes: []" in done.stdout
    read = python("-c", READ, cwd=workshop)
    assert read.stdout == "read 5\n", read.stderr


@pytest.mark.slow
def test_a_factory_in_the_script_itself_runs_in_this_process(workshop: Path) -> None:
    (workshop / "script.py").write_text(SCRIPT.format(imports=FACTORY, factory="own"))
    done = python("script.py", cwd=workshop)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ran 5 0") == 1
    assert computed(workshop) == 14
    assert "cells run one at a time" in done.stdout
    again = python("script.py", cwd=workshop)
    assert "ran 5 0" in again.stdout
    assert computed(workshop) == 0, "the source of a script can be read: its cells are kept"


@pytest.mark.full
def test_from_a_prompt_without_a_file(workshop: Path) -> None:
    """As in a console: __main__ has no file, and what was typed has no source that can be read."""
    code = SCRIPT.format(imports=FACTORY, factory="own")
    done = python("-c", f"exec({code!r})", cwd=workshop)
    assert done.returncode == 0, done.stderr
    assert "ran 5 0" in done.stdout
    assert "not cached" in done.stdout
    versioned = code.replace("validation=40", "validation=40, version='1'")
    for expected in ("not cached", "not cached"):
        done = python("-c", f"exec({versioned!r})", cwd=workshop)
        assert expected not in done.stdout, done.stderr
    assert computed(workshop) == 0, "with a version they are kept"


@pytest.fixture
def result(finished: Path, monkeypatch: pytest.MonkeyPatch) -> sl.Result:
    monkeypatch.chdir(finished)
    monkeypatch.syspath_prepend(finished)
    return sl.open("sublevel-runs/tiny")


def test_tables_by_name(result: sl.Result) -> None:
    assert len(result.levels) == 2 * 13
    assert {"branch", "level", "seed", "density", "train_loss", "train_error", "test_loss", "test_error"} <= set(
        result.levels.columns
    )
    assert set(result.paths["path"]) == {"successive", "to-dense", "orders"}
    assert min(len(t) for t in (result.spectra, result.volumes, result.legs)) > 0
    assert len(result.failures) == 0
    with pytest.raises(AttributeError, match=r"its tables are .*levels"):
        _ = result.barriers


def test_the_tables_on_disk_are_the_tables(result: sl.Result) -> None:
    import pandas as pd

    for name, table in result.tables.items():
        read = pd.read_csv(result.folder / "tables" / f"{name}.csv")
        assert list(read.columns) == list(table.columns)
        assert len(read) == len(table)
        for column in table.select_dtypes("float"):
            assert read[column].astype(float).equals(table[column]) or table[column].isna().all(), (name, column)


def test_a_stored_solution_computes_what_its_table_says(result: sl.Result) -> None:
    problem = result.problem
    for branch, level, seed in (("dense", 0, 3), ("imp", 2, 5), ("reinit", 1, 3), ("finetune", 2, 3)):
        row = result.levels.query(f"branch == '{branch}' and level == {level} and seed == {seed}").iloc[0]
        ticket = result.ticket(branch, level, seed=seed)
        part = problem.splits.test
        with torch.no_grad():
            wrong = (ticket.module()(problem.prepare(part.x)).argmax(1) != part.y).double().mean()
        assert float(wrong) == pytest.approx(row["test_error"], abs=1e-12)
        assert problem.field("train").evaluate(ticket.end).loss == pytest.approx(row["train_loss"], rel=1e-6)
        assert torch.equal(ticket.end.theta, result.point(branch, level, seed=seed).theta)
        again = ticket.module()
        assert all(not p.isnan().any() for p in again.parameters())
        first = next(p for p in problem.module.parameters())
        assert first.shape == next(again.parameters()).shape


def test_what_is_not_there(result: sl.Result) -> None:
    with pytest.raises(sl.SublevelError, match=r"unknown branch 'impp' \(this run\); did you mean 'imp'\?"):
        result.ticket("impp", 1, seed=3)
    with pytest.raises(sl.SublevelError, match="unknown branch 'nonsense'"):
        result.point("nonsense", seed=3)
    with pytest.raises(sl.SublevelError, match=r"at level 9"):
        result.point("imp", 9, seed=3)
    with pytest.raises(sl.SublevelError, match=r"with seed 0"):
        result.point("imp", 1)
    with pytest.raises(sl.SublevelError, match=r"not the folder of a run"):
        sl.open("sublevel-runs/absent")


@pytest.mark.full
def test_a_report_elsewhere(result: sl.Result, tmp_path: Path) -> None:
    path = result.report(tmp_path / "deep" / "mine.html")
    assert path == tmp_path / "deep" / "mine.html"
    assert "<html" in path.read_text(encoding="utf-8")[:2000]


def test_a_run_and_its_store_can_be_moved_together(copied: Path, tmp_path: Path) -> None:
    shutil.move(copied / "sublevel-runs", tmp_path / "moved")
    moved = sl.open(tmp_path / "moved" / "tiny")
    assert len(moved.levels) == 26
    assert tables(tmp_path / "moved" / "tiny")


def test_a_damaged_manifest_is_one_sentence(copied: Path) -> None:
    manifest = copied / "sublevel-runs" / "tiny" / "study.json"
    manifest.write_text(manifest.read_text()[:-100])
    with pytest.raises(sl.SublevelError, match=r"study.json is damaged.*run the study again"):
        sl.open(manifest.parent)


def test_a_result_that_was_lost_is_said(copied: Path) -> None:
    for path in tiny_runs.entries(copied / "sublevel-runs" / ".store")[:5]:
        path.unlink()
    result = sl.open(copied / "sublevel-runs" / "tiny")
    assert len(result.failures) >= 5
    assert set(result.failures["kind"]) == {"lost"}
    assert "run the study again" in result.failures["error"].iloc[0]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [({"train": None}, "both train and test"), ({"test": [1, 2, 3]}, r"must give pairs \(input, label\)")],
)
def test_data_that_cannot_be_meant(keys: dict, sentence: str) -> None:
    pair = (torch.zeros(20, 1, 6, 6, dtype=torch.uint8), torch.arange(20) % 2)
    with pytest.raises(sl.SublevelError, match=sentence):
        sl.Problem("lenet-300-100", **({"train": pair, "test": pair} | keys))


def test_a_problem_says_its_data_itself() -> None:
    with pytest.raises(sl.SublevelError, match="the problem already sets data"):
        sl.Study(sl.Problem("lenet-300-100"), data={"name": "cifar10"})


def test_a_dataset_that_reads_differently_twice_is_refused() -> None:
    class Noisy(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, i: int):
            return torch.rand(1, 6, 6), i % 2

    with pytest.raises(sl.SublevelError, match="two readings of the train data differ"):
        sl.Problem("lenet-300-100", train=Noisy(), test=Noisy())


@pytest.mark.full
def test_code_reloaded_in_one_session_is_the_new_code(workshop: Path) -> None:
    """Edit, reload, run again in one process: the numbers are those of a fresh process."""
    (workshop / "live_net.py").write_text(FACTORY)
    session = workshop / "session.py"
    session.write_text(
        "import importlib, os, pathlib, sys, numpy as np, torch, sublevel as sl, live_net\n"
        "def losses(out):\n"
        "    p = sl.Problem(live_net.own, data='arrays', root='data.npz', validation=40)\n"
        "    keys = dict(levels=1, train={'length': '3it', 'batch_size': 50}, out=out)\n"
        "    return sl.Study(p, **keys).run(jobs=1, report=False).levels['train_loss'].tolist()\n"
        "first = losses('one')\n"
        "path = pathlib.Path('live_net.py')\n"
        "path.write_text(path.read_text().replace('nn.ReLU', 'nn.Tanh') + '\\n\\n')\n"
        "importlib.reload(live_net)\n"
        "print(first == losses('one'), losses('one'))\n"
    )
    done = python(session, cwd=workshop)
    assert done.stdout.startswith("False "), done.stderr + done.stdout
    fresh = python("-c", session.read_text().partition("first =")[0] + "print(losses('two'))", cwd=workshop)
    assert fresh.stdout.strip() == done.stdout.partition(" ")[2].strip()
