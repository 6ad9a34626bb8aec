"""An archive brings a study into another store, and a hostile one brings nothing."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from small_stores import put, root
from sublevel.engine.store import Root, Store, cell_name, digest, object_name, roots
from sublevel.engine.store.archive import Archive, write_archive
from sublevel.engine.store.merge import merge
from sublevel.errors import StoreError
from tiny_runs import cli, entries, inside, tables


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def study(store: Store) -> Root:
    """Two entries, one computed from an object that no entry has made; another study has a third."""
    keys = put(store, "a"), put(store, "b", reads=store.put(b"given"))
    put(store, "c", study="other")
    made = root(*keys, objects=(store.put(b"data"),))
    roots.finish(store, made)
    return made


def test_there_and_back(store: Store, study: Root, tmp_path: Path) -> None:
    path, again = tmp_path / "a.tar", tmp_path / "b.tar"
    assert write_archive(store, study, path) == 2
    write_archive(store, study, again)
    assert path.read_bytes() == again.read_bytes(), "the same study gives the same bytes"
    with tarfile.open(path) as tar:  # any other program can read it too
        assert len(tar.getnames()) == 1 + 4 + 2 + 1
    other = Store(tmp_path / "other")
    done = merge(other, Archive(path))
    assert (done.added, done.there, done.broken, done.studies) == (2, 0, 0, 1)
    assert {key: other.read_entry(key) for key in study.keys} == {key: store.read_entry(key) for key in study.keys}
    assert set(other.objects()) == {digest(data) for data in (b"a", b"b", b"given", b"data")}
    assert roots.roots(other) == [study]
    assert merge(other, Archive(path)).there == 2


def test_a_study_that_is_not_whole_is_not_exported(store: Store, study: Root, tmp_path: Path) -> None:
    (store.path / object_name(digest(b"a"))).unlink()
    with pytest.raises(StoreError, match="1 of 2 results of one are not in the store: run the study again"):
        write_archive(store, study, tmp_path / "a.tar")
    assert list(tmp_path.glob("*a.tar*")) == []


def test_merging_two_stores(store: Store, study: Root, tmp_path: Path) -> None:
    """What is whole on either side is whole in the end; what differs stays; what is damaged stays where it is."""
    other = Store(tmp_path / "other")
    a = put(other, "a")
    mine = {**(other.read_entry(a) or {}), "values": {"loss": 1.0}}
    other.write_entry(a, mine)
    roots.finish(other, root(a))
    broken = store.path / object_name(digest(b"c"))
    broken.write_bytes(b"x")
    done = merge(other, store.files)
    assert (done.added, done.there, done.different, done.broken) == (1, 1, 1, 1)
    assert other.read_entry(a) == mine
    assert set(other.keys()) == study.keys
    assert roots.roots(other) == [study]
    assert broken.read_bytes() == b"x", "the other store is only read"
    assert store.damaged() == []


# --- Hostile archives.

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **fields: object) -> Member:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    for field, value in fields.items():
        setattr(about, field, value)
    return about, data


def packed(members: list[Member], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for about, data in members:
            tar.addfile(about, io.BytesIO(data))
    return out.getvalue()


def unpacked(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        return [member(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]


def with_header(members: list[Member], change: Callable[[dict], None] = lambda header: None) -> list[Member]:
    """The members under a header that is true of them."""
    files = {about.name: [len(data), digest(data)] for about, data in members}
    header = {"format": 1, "files": files}
    change(header)
    return [member("archive.json", json.dumps(header).encode()), *members]


KEY = "ab" * 32
SEALED = json.dumps({"body": {"key": KEY, "objects": {"end": "../x"}}, "checksum": "0" * 64}).encode()

ADDED: dict[str, tuple[Member, str]] = {
    "parent": (member("../outside", b"x"), "no file of a store"),
    "parent inside": (member(f"objects/ab/../../../{'ab' * 32}", b"x"), "no file of a store"),
    "absolute": (member("/tmp/outside", b"x"), "no file of a store"),
    "newline": (member(object_name(digest(b"x")) + "\n", b"x"), "no file of a store"),
    "marker": (member("format.json", b"{}"), "no file of a store"),
    "a lease": (member(f"leases/{KEY}.0", b"{}"), "no file of a store"),
    "link": (member(object_name(KEY), type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain file"),
    "hard link": (member(object_name(KEY), type=tarfile.LNKTYPE, linkname="archive.json"), "no plain file"),
    "device": (member(object_name(KEY), type=tarfile.CHRTYPE, devmajor=1), "no plain file"),
    "fifo": (member(object_name(KEY), type=tarfile.FIFOTYPE), "no plain file"),
    "folder": (member("objects/ab", type=tarfile.DIRTYPE), "no plain file"),
    "sparse": (member(object_name(KEY), b"x", type=tarfile.GNUTYPE_SPARSE), "no plain file"),
    "another's name": (member(object_name(KEY), b"x"), "is damaged"),
    "no entry": (member(cell_name(KEY), b"{}"), "is damaged"),
    "an entry with a path": (member(cell_name(KEY), SEALED), "is damaged"),
    "no root": (member(f"studies/{KEY}.json", b"{}"), "is damaged"),
    "deep": (member(cell_name(KEY), b"[" * 100_000), "is damaged"),
}


@pytest.mark.parametrize("what", ADDED)
def test_nothing_of_a_hostile_archive_is_written(store: Store, study: Root, tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tar"
    write_archive(store, study, path)
    added, sentence = ADDED[what]
    members = unpacked(path)[1:]
    path.write_bytes(packed(with_header([*members, added])))
    before = sorted(tmp_path.rglob("*"))
    done = inside("import", "a.tar", "--store", "new", cwd=tmp_path) if what == "parent" else None
    with pytest.raises(StoreError, match=sentence) as caught:
        Archive(path)
    assert str(caught.value).startswith(f"{path} cannot be imported: ")
    assert sorted(tmp_path.rglob("*")) == before
    if done:
        assert done.returncode == 2
        assert done.stderr == "sublevel: a.tar cannot be imported: '../outside' is no file of a store\n"


def changed(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1500],
    "empty": lambda data: b"",
    "nulls": lambda data: bytes(2048),
    "name": changed(5),
    "size": changed(130),
    "header": changed(600),
    "content": changed(-3000),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_archive(store: Store, study: Root, tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tar"
    write_archive(store, study, path)
    path.write_bytes(DAMAGE[what](path.read_bytes()))
    with pytest.raises(StoreError, match="cannot be imported"):
        Archive(path)


HEADERS: dict[str, tuple[Callable[[dict], None], str]] = {
    "size": (lambda h: h["files"].update({cell_name(KEY): [10**15, "0" * 64]}), "are missing"),
    "another size": (lambda h: h["files"].update({k: [v[0] + 1, v[1]] for k, v in h["files"].items()}), "header says"),
    "not named": (lambda h: h["files"].clear(), "not in its header"),
    "format": (lambda h: h.update(format=2), "format is 2"),
    "no files": (lambda h: h.pop("files"), "is damaged"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies(store: Store, study: Root, tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.tar"
    write_archive(store, study, path)
    change, sentence = HEADERS[what]
    path.write_bytes(packed(with_header(unpacked(path)[1:], change)))
    with pytest.raises(StoreError, match=sentence):
        Archive(path)


def test_a_size_that_the_file_does_not_have(store: Store, study: Root, tmp_path: Path) -> None:
    """Eight gigabytes said and none there; a negative size, at which a reader might turn back for ever."""
    path = tmp_path / "a.tar"
    write_archive(store, study, path)
    members = unpacked(path)[1:]
    for size in (8 * 2**30, 2**60, -1024):
        about = member(object_name(KEY))[0]
        about.size = size
        bomb = about.tobuf(tarfile.GNU_FORMAT)
        whole = packed(with_header(members))
        end = whole.rindex(members[-1][1]) + -(-len(members[-1][1]) // 512) * 512
        path.write_bytes(whole[:end] + bomb + bytes(1024))
        with pytest.raises(StoreError, match="cut short"):
            Archive(path)


def test_compressed_and_extended_archives_are_refused(store: Store, study: Root, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "a.tar"
    write_archive(store, study, path)
    members = unpacked(path)
    for data in (gzip.compress(path.read_bytes()), packed([member("x" * 200), *members], tarfile.PAX_FORMAT)):
        path.write_bytes(data)
        with pytest.raises(StoreError, match="cannot be imported"):
            Archive(path)


@pytest.mark.full
def test_a_study_moves_to_another_store(finished: Path, tmp_path: Path) -> None:
    """Exported from one workshop, imported in another: the same command computes nothing and writes the same tables."""
    away = tmp_path / "away"
    shutil.copytree(finished, away, ignore=shutil.ignore_patterns("sublevel-runs"))
    done = cli("export", "tiny", away / "tiny.tar", cwd=finished)
    assert done.returncode == 0, done.stderr
    assert f"{len(entries(finished / 'sublevel-runs' / '.store'))} entries" in done.stdout
    done = cli("import", "tiny.tar", cwd=away)
    assert done.returncode == 0, done.stderr
    done = cli("run", "tiny.toml", cwd=away)
    assert "nothing to compute" in done.stdout, done.stdout + done.stderr
    assert tables(away / "sublevel-runs" / "tiny") == tables(finished / "sublevel-runs" / "tiny")
