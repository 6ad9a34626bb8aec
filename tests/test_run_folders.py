"""Run folders, logs and archives of somebody else's with pipes and links where files are: no wait, nothing outside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import sublevel as sl
from small_stores import manifest, put, root
from sublevel.cli import main
from sublevel.engine.events import Event
from sublevel.engine.log import Log, read_log
from sublevel.engine.store import Store, roots
from sublevel.errors import ConfigError, DataError, StoreError
from sublevel.foreign import LARGEST
from sublevel.report.writer import stale
from sublevel.study import manifest as manifests
from tiny_runs import furnish


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(each) for each in words])
    return end.value.code if isinstance(end.value.code, int) else 0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a store and one run, of one cell that the store does not have."""
    key = put(store := Store(tmp_path / "runs" / ".store"), "a")
    roots.finish(store, root(key))
    cell = {"cell": "mask/imp/L1/s0", "kind": "mask", "status": "done", "key": key}
    labels = {"branch": "imp", "level": 1, "seed": 0}
    (tmp_path / "runs" / "one").mkdir()
    document = manifest("one") | {"store": "../.store", "cells": [cell | {"labels": labels}]}
    (tmp_path / "runs" / "one" / "study.json").write_text(json.dumps(document))
    return tmp_path / "runs"


def test_a_pipe_is_not_waited_for(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody writes to it: opening one to read would last for ever. The other runs are there."""
    pipes = runs / "pipes"
    pipes.mkdir()
    for name in ("study.json", "events.jsonl", "summary.json"):
        os.mkfifo(pipes / name)
    os.mkfifo(runs / ".costs.json")
    assert command("ls", "--out", runs) == 0
    said = capsys.readouterr().out
    assert "one" in said
    assert f"{pipes}/study.json cannot be read: it is no plain file" in said
    for words in (("report", pipes), ("status", pipes), ("import", pipes / "study.json"), ("gc", "--out", runs)):
        assert command(*words) == 2
        assert "it is no plain file" in capsys.readouterr().err
    with pytest.raises(DataError, match="it is no plain file"):
        sl.load_ticket(pipes / "study.json")
    with pytest.raises(StoreError, match=r"cannot write .*events\.jsonl"):
        Log(pipes, {})(Event("begin", about={"cells": 1, "cached": 0}))


@pytest.mark.parametrize("name", ["tables", "figures"])
def test_nothing_is_written_through_a_link(runs: Path, tmp_path: Path, name: str, capsys) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "levels.csv").write_text("years of work")
    (runs / "one" / name).symlink_to(tmp_path / "thesis")
    assert command("report", "--no-figures", runs / "one") == 2
    assert f"{name} is a link, and nothing is written through it: remove it" in capsys.readouterr().err
    assert [p.read_text() for p in (tmp_path / "thesis").iterdir()] == ["years of work"]
    (runs / "one" / name).unlink()
    for file in ("report.html", "summary.json"):
        (runs / "one" / file).symlink_to(tmp_path / "thesis" / "levels.csv")
    assert command("report", "--no-figures", runs / "one") == 0
    assert (tmp_path / "thesis" / "levels.csv").read_text() == "years of work"
    assert not (runs / "one" / "report.html").is_symlink()


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").symlink_to(tmp_path / "notes")
    with pytest.raises(StoreError, match=r"cannot write .*events\.jsonl"):
        Log(tmp_path / "run", {})(Event("begin", about={"cells": 1, "cached": 0}))
    assert (tmp_path / "notes").read_text() == "mine\n"


def test_only_figures_of_ours_are_stale(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.svg")
    (tmp_path / "b.svg").write_text("<svg/>")
    assert stale(tmp_path, []) == []


def test_a_log_of_any_size_is_read_or_refused(tmp_path: Path) -> None:
    """Sparse: it takes no room on the disk."""
    log = tmp_path / "events.jsonl"
    for size, refused in ((2**26, False), (2**40, True)):
        with log.open("wb") as file:
            file.truncate(size)
        if refused:
            with pytest.raises(StoreError, match=r"has 1,099,511,627,776 bytes; allowed: 1,073,741,824"):
                read_log(log)
        else:
            assert read_log(log).about == {}


def test_a_file_of_the_store_that_does_not_fit_into_the_memory_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    key = put(store, "a")
    path = next((tmp_path / "store" / "objects").glob("*/*"))
    try:
        os.truncate(path, 2**43)
    except OSError:
        pytest.skip("this file system has no files of that size")
    with pytest.raises(StoreError, match="cannot read the store"):
        store.read_entry(key)
    assert store.damaged() == []


def test_a_study_whose_manifest_could_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(furnish(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(manifests, "LARGEST", 2**16 + 5_000)
    for go in (lambda study: study.run(jobs=1), lambda study: study.plan()):
        with pytest.raises(ConfigError, match=r"the study has 18 cells: its study.json would have .* split the study"):
            go(sl.Study("small.toml"))
    assert not (tmp_path / "sublevel-runs").exists()


def test_messages_are_cut_where_the_manifest_would_be_too_large() -> None:
    long = {"kind": "error", "message": "x" * 10**6, "digest": "", "traceback": "y" * 10**6}
    cells = [{"cell": f"train/{i}", "error": long} for i in range(20)] + [{"cell": "mask"}]
    found = json.loads(text := manifests.text({"cells": cells}))["cells"]
    assert len(text) < LARGEST
    assert found[0] == {"cell": "train/0", "error": {"kind": "error", "message": "x" * 9_997 + "..."}}
    assert found[-1] == {"cell": "mask"}
    assert json.loads(manifests.text({"cells": cells[:3]}))["cells"][0]["error"] == long


def test_a_store_that_no_manifest_can_name_is_refused_before_training(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(furnish(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    odd = os.fsdecode(b"st\xff")
    assert command("run", "small.toml", "--store", odd) == 2
    assert "st\\udcff' cannot be named in a manifest: it holds text that is not UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "sublevel-runs").exists()
    Store(tmp_path / odd).write("tmp/x", b"x")
    assert command("ls", "--stored", "--store", odd) == 0
    assert command("verify", "--store", odd) == 0
    assert sl.Study("small.toml", out=odd).store_at == f"{tmp_path / odd}/.store"
