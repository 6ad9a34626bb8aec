"""What a known study reaches stays, what is young or leased stays, and the rest goes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import tiny_runs
from small_stores import manifest, put, root
from sublevel import open as open_run
from sublevel.cli import main
from sublevel.engine.store import Leases, Store, cell_name, digest, object_name, roots
from sublevel.engine.store.archive import Archive, write_archive
from sublevel.engine.store.garbage import collect
from sublevel.engine.store.merge import merge
from sublevel.errors import ConfigError, StoreError
from tiny_runs import cli, inside, tables


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def age(store: Store, seconds: float = 3601) -> None:
    """Make everything so much older."""
    for path in store.path.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def left(store: Store) -> tuple[set[str], set[str]]:
    return set(store.keys()), set(store.objects())


def test_what_is_reached_stays_and_the_rest_goes(store: Store) -> None:
    """An entry reaches its own objects, and those that it was computed from, whoever made them."""
    given, lone, data = store.put(b"given"), store.put(b"lone"), store.put(b"data of one's own")
    a, b = put(store, "a", reads=given), put(store, "b")
    age(store)
    before = left(store)
    counted = collect(store, [root(a, objects=(data,))], remove=False)
    assert left(store) == before, "counting removes nothing"
    done = collect(store, [root(a, objects=(data,))], remove=True)
    assert counted == done
    assert left(store) == ({a}, {digest(b"a"), given, data})
    assert (done.entries, done.objects, done.kept) == ({"one": 1}, 2, 1)
    assert lone not in left(store)[1]
    assert b not in left(store)[0]
    assert store.read_entry(a) is not None


@pytest.mark.parametrize(("seconds", "stays"), [(3500, True), (3700, False)])
def test_an_hour_is_left_alone(store: Store, seconds: float, stays: bool) -> None:
    put(store, "a")
    store.files.write("tmp/half", b"x")
    age(store, seconds)
    collect(store, [], remove=True)
    assert bool(left(store)[0]) is bool(left(store)[1]) is (store.path / "tmp" / "half").exists() is stays


def test_an_old_object_that_a_run_has_just_put_again_stays(store: Store) -> None:
    """Its entry is not written yet."""
    store.put(b"end")
    age(store)
    store.put(b"end")
    collect(store, [], remove=True)
    assert left(store)[1] == {digest(b"end")}


def test_the_objects_of_a_young_entry_stay_however_old(store: Store) -> None:
    key = put(store, "a", reads=store.put(b"start"))
    age(store)
    store.touch(key)
    collect(store, [], remove=True)
    assert left(store) == ({key}, {digest(b"a"), digest(b"start")})


def test_what_is_leased_stays(store: Store) -> None:
    key = put(store, "a")
    age(store)
    with Leases(store.files) as leases:
        leases.claim(key)
        collect(store, [], remove=True)
        assert left(store)[0] == {key}
    collect(store, [], remove=True)
    assert left(store) == (set(), set())


def test_a_run_that_was_killed_keeps_what_it_computed(store: Store) -> None:
    """Its root has the keys that it had found at its beginning; the others bear its name."""
    cached, own, other = put(store, "a", study="other"), put(store, "b"), put(store, "c", study="other")
    roots.begin(store, root(cached, finished=False))
    age(store)
    collect(store, roots.roots(store), remove=True)
    assert left(store)[0] == {cached, own}
    assert other not in left(store)[0]


def test_a_run_that_ends_reaches_what_it_reached_last(store: Store) -> None:
    a, b, c = (put(store, word) for word in "abc")
    roots.finish(store, root(a, b))
    roots.begin(store, root(c, finished=False))
    assert [r.keys for r in roots.roots(store)] == [frozenset({a, b, c})], "a run that is killed now loses nothing"
    roots.finish(store, root(b, c))
    roots.finish(store, root(a, name="two"))
    assert {r.name: r.keys for r in roots.roots(store)} == {"one": frozenset({b, c}), "two": frozenset({a})}


def test_a_study_by_its_name_or_digest(store: Store) -> None:
    known = [root("0" * 64), root("1" * 64, name="two")]
    assert roots.named(known, "two") == [known[1]]
    assert roots.named(known, known[0].digest[:8]) == [known[0]]
    with pytest.raises(ConfigError, match=r"knows no study 'tow'; did you mean 'two'\?"):
        roots.named(known, "tow")


def test_garbage_is_not_collected_by_a_damaged_root(store: Store) -> None:
    key = put(store, "a")
    roots.finish(store, root(key))
    path = store.path / root().file
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"two"'))
    with pytest.raises(StoreError, match="the entries of its study are not known"):
        roots.roots(store)
    roots.check(store)
    assert roots.roots(store) == []
    assert len(store.damaged()) == 1


def test_a_damaged_entry_does_not_stop_it(store: Store) -> None:
    a, b = put(store, "a"), put(store, "b")
    for key in (a, b):
        (store.path / cell_name(key)).write_bytes(b"{")
    age(store)
    collect(store, [root(a)], remove=True)
    assert left(store) == ({a}, set())


def test_an_entry_that_names_a_path_is_damaged(store: Store, tmp_path: Path) -> None:
    """Neither read nor moved: a name in an entry is a digest before it is part of a path."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    key = digest(b"a")
    for name in ("../../../outside", str(outside), "", 3):
        store.write_entry(key, {"key": key, "objects": {"end": name}})
        assert store.read_entry(key) is None
    assert outside.read_bytes() == b"x"
    assert object_name(key) == f"objects/{key[:2]}/{key}"


# --- The command.


def gc(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["gc", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store of an earlier version knows no studies: the runs beside it are what it is kept for."""
    at = ("--out", tmp_path, "--store", store.path)
    a, b, c = put(store, "a"), put(store, "b"), put(store, "c", study="old")
    age(store)
    assert gc(*at) == 2
    assert "knows no study, so all of it would go" in capsys.readouterr().err
    about = {"cell": "train/dense/L0/s0", "kind": "train", "labels": {}}
    cells = [about | {"key": a, "status": "done"}, about | {"key": "", "status": "skipped"}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.json").write_text(json.dumps(manifest("run") | {"store": "../store", "cells": cells}))
    roots.finish(store, root(b))
    assert gc("--dry-run", *at) == 0
    said = capsys.readouterr().out
    assert "would remove 1 entries, 1 objects" in said
    assert "1 entries of old would be removed" in said
    assert left(store)[0] == {a, b, c}
    assert gc(*at) == 0
    assert left(store)[0] == {a, b}
    assert gc("--forget", "one", *at) == 0
    assert "run " in capsys.readouterr().out
    assert left(store)[0] == {a}
    assert gc("--forget", "two", *at) == 2
    assert "knows no study 'two'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_run_loses_nothing_until_it_is_forgotten(copied: Path) -> None:
    """The run folder and the store's root are one study; what it does not reach is nothing."""
    runs = copied / "sublevel-runs"
    store = Store(runs / ".store")
    age(store)
    before = left(store)
    said = inside("gc", cwd=copied).stdout
    assert "removed 0 entries, 0 objects" in said
    assert [line.split()[0] for line in said.splitlines()[:-1]] == ["tiny"]
    assert left(store) == before
    assert inside("gc", "--forget", "tiny", cwd=copied).returncode == 0
    assert left(store) == (set(), set())


def test_objects_that_are_let_go_leave_a_whole_entry(store: Store, tmp_path: Path) -> None:
    """Of finished studies alone, and not what another entry was given, or what is young."""
    a, b, c = put(store, "a"), put(store, "b", study="two"), put(store, "c")
    finished, open_ = root(a), root(b, name="two", finished=False)
    release = lambda body: body["objects"].values()  # noqa: E731
    assert collect(store, [finished, open_, root(c, name="three")], remove=True, release=release).objects == 0
    age(store)
    given = {digest(b"c")}
    counted = collect(store, [finished, open_, root(c, objects=tuple(given))], remove=False, release=release)
    assert counted.objects == 1
    before = store.read_entry(a)
    done = collect(store, [finished, open_, root(c, objects=tuple(given))], remove=True, release=release)
    assert (done.objects, done.kept) == (1, 3)
    assert set(store.objects()) == {digest(b"b"), *given}
    after = store.read_entry(a)
    assert before is not None
    assert after == before | {"released": [digest(b"a")]}
    assert store.damaged() == []
    assert merge(Store(tmp_path / "other"), store.files).broken == 0
    assert write_archive(store, finished, tmp_path / "a.tar") == 1
    assert merge(Store(tmp_path / "third"), Archive(tmp_path / "a.tar")).added == 1


@pytest.mark.full
def test_weights_that_were_let_go_are_trained_again_when_they_are_needed(tmp_path: Path) -> None:
    workshop = tiny_runs.furnish(tmp_path)
    more = ("--set", "geometry.legs.size=60", "--set", "geometry.paths.points=3")
    assert cli("run", "small.toml", *more, "--jobs", 1, "--out", "true", cwd=workshop).returncode == 0
    assert cli("run", "small.toml", "--jobs", 1, cwd=workshop).returncode == 0
    before, store = tables(workshop / "sublevel-runs" / "small"), Store(workshop / "sublevel-runs" / ".store")
    age(store)
    assert cli("gc", "--weights", "none", cwd=workshop).returncode == 0
    bodies = filter(None, map(store.read_entry, store.keys()))
    assert set(store.objects()) == {body["objects"]["mask"] for body in bodies if "mask" in body["objects"]}
    again = cli("run", "small.toml", cwd=workshop)
    assert "nothing to compute" in again.stdout, again.stdout
    assert tables(workshop / "sublevel-runs" / "small") == before
    with pytest.raises(StoreError, match="let go"):
        open_run(workshop / "sublevel-runs" / "small").point("imp", 2)
    grown = cli("run", "small.toml", *more, cwd=workshop)
    assert grown.returncode == 0, grown.stdout + grown.stderr
    assert tables(workshop / "sublevel-runs" / "small") == tables(workshop / "true" / "small")
    assert open_run(workshop / "sublevel-runs" / "small").point("imp", 2) is not None
