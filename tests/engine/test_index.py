"""The index says what the entries say, whatever has become of it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from small_stores import put
from sublevel.cli import main
from sublevel.engine.store import Store, cell_name
from sublevel.engine.store.index import index_path, look


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


def keys(store: Store, **how: bool) -> list[str]:
    return [seen.key for seen in look(store, **how)]


def test_it_follows_the_store(store: Store) -> None:
    a, b = put(store, "a"), put(store, "b", study="two")
    assert keys(store) == sorted([a, b])
    assert {seen.key: seen.labels["study"] for seen in look(store)} == {a: "one", b: "two"}
    assert not list(store.path.rglob("*.sqlite*")), "a store on a shared disk has no SQLite in it"
    c = put(store, "c")
    (store.path / cell_name(a)).unlink()
    (store.path / cell_name(b)).write_bytes(b"damaged")
    assert keys(store) == [c]
    assert (store.path / cell_name(b)).exists(), "a look moves nothing"


def test_it_reads_an_entry_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a = put(store, "a")
    assert keys(store) == [a]
    read = []
    monkeypatch.setattr(store.files, "read", read.append)
    assert keys(store) == [a]
    assert read == []


def damaged(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def older(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 0")
        db.execute("DROP TABLE cells")
        db.execute("CREATE TABLE cells (something TEXT)")


def wrong(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE cells SET key = 'x'")


def in_the_way(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [damaged, older, wrong, in_the_way, os.remove])
def test_it_is_made_anew(store: Store, harm) -> None:
    a = put(store, "a")
    assert keys(store) == [a]
    harm(index_path(store))
    assert keys(store) == [a]


def test_one_that_another_process_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a = put(store, "a")
    assert keys(store) == [a]
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0))
    db = connect(index_path(store))
    db.execute("BEGIN EXCLUSIVE")
    assert keys(store) == [a]
    db.close()


def test_the_commands(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = put(store, "a"), put(store, "b", study="two")
    for arguments, said in (
        (("ls", "--stored"), "2 entries"),
        (("ls", "--stored", a[:6]), "1 entries"),
        (("ls", "--stored", "study=two", "status=done"), "1 entries"),
        (("verify", "--rebuild"), "index: 2 entries"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--store", str(store.path)])
        assert end.value.code == 0
        assert said in capsys.readouterr().out
