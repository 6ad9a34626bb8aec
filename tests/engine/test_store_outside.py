"""Nothing outside a store's own folder is read, listed, moved or removed; no request goes to a stranger's address.

Keys that are paths, links where the store has folders or files, and run folders of strangers.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from small_stores import manifest, put, root
from sublevel.cli import main
from sublevel.engine.store import Leases, Store, cell_name, digest, object_name, roots
from sublevel.engine.store.address import user_address
from sublevel.engine.store.garbage import collect
from sublevel.engine.store.names import key_of, lease_name, partial_name, study_name
from sublevel.errors import StoreError

KEY = "ab" * 32
FOLDERS = ("tmp", "leases", "damaged", "partial", "objects", "cells", "studies")


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(each) for each in arguments])
    return end.value.code if isinstance(end.value.code, int) else 0


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs" / ".store")


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    """A folder of someone's own, years old, named as a store would name its files."""
    folder = tmp_path / "thesis"
    for name in ("chapter.tex", "ab/figure.pdf", KEY, f"{KEY}.json", f"{KEY}.0", f"ab/{KEY}", f"ab/{KEY}.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"years of work")
        os.utime(folder / name, (1e9, 1e9))
    return folder


def aged(store: Store) -> None:
    for path in store.path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (path.stat().st_mtime - 30 * 86400,) * 2)


# --- Keys.

PATHS = ["../../x", "", "..", "/etc/passwd", f"../{KEY}", KEY + "/.."]
OTHERS = ["AB" * 32, "ab" * 31, KEY + "\n", "é" * 64, None, 3, [KEY]]


@pytest.mark.parametrize("wrong", [*PATHS, *OTHERS])
def test_only_64_hexadecimal_digits_become_a_path(wrong: object) -> None:
    for named in (cell_name, object_name, study_name, partial_name, lambda key: lease_name(key, 0)):
        with pytest.raises(StoreError, match="a key of the store has 64 hexadecimal digits, got"):
            named(wrong)  # type: ignore[arg-type]
        assert KEY in named(KEY)


def test_a_key_is_told_in_a_short_plain_line(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        store.read_entry("\x1b[31m" + "x" * 10**6)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a\0b", "", "a/.."])
def test_no_name_leads_out_of_the_folder(store: Store, name: str) -> None:
    put(store, "a")
    outside = store.path.parent / "x"
    outside.write_bytes(b"x")
    files = store.files
    for act in (files.read, files.look, files.touch, files.remove, lambda n: files.move(n, "damaged/x")):
        with pytest.raises(OSError):
            act(name)
    for write in (files.write, files.create):
        with pytest.raises(OSError):
            write(name, b"y")
    assert outside.read_bytes() == b"x"


def test_files_that_are_no_keys_are_nobodys_entries(store: Store) -> None:
    key = put(store, "a")
    for name in ("cells/ab/notes.json", f"cells/ab/{KEY}.json~", "objects/ab/.nfs0001", f"objects/ab/{KEY[:-1]}"):
        (store.path / name).parent.mkdir(parents=True, exist_ok=True)
        (store.path / name).write_bytes(b"x")
    assert list(store.keys()) == [key]
    assert list(store.objects()) == [digest(b"a")]
    assert key_of(f"leases/{KEY}.17") == key_of(f"damaged/{KEY}.json.ab12") == KEY


def stranger(runs: Path, name: str, **changed: object) -> Path:
    """A run folder that came from elsewhere: one finished cell."""
    cell = {"cell": "train/dense/L0/s0", "kind": "train", "status": "done", "key": KEY}
    cell["labels"] = {"branch": "dense", "level": 0, "seed": 0}  # type: ignore[assignment]
    whole = manifest(name) | {"store": "../.store", "cells": [cell | {k: v for k, v in changed.items() if k == "key"}]}
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(whole | {k: v for k, v in changed.items() if k != "key"}))
    return folder


def test_a_strangers_run_moves_no_file(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`settings` is one name above the store; five steps up are enough to reach it from `cells`."""
    put(store, "a")
    runs = store.path.parent
    for ups in range(1, 6):
        folder = stranger(runs, f"s{ups}", key="../" * ups + "settings")
        for place in (store.path, runs, tmp_path):
            (place / "settings.json").write_text("{}")
        for words in (("report", folder), ("compare", folder, folder), ("export", folder, tmp_path / "a.tar")):
            assert command(*words) == 2
            said = capsys.readouterr().err
            key = "../" * ups + "settings"
            assert f"{folder.name}/study.json is damaged: cells.0.key is '{key}', expected a key of 64 hex" in said
        command("ticket", "export", folder, tmp_path / "t.safetensors", "--branch", "imp", "--level", "1")
        for place in (store.path, runs, tmp_path):
            assert (place / "settings.json").read_text() == "{}"
    assert store.damaged() == []


# --- Links.


@pytest.mark.parametrize("linked", FOLDERS)
def test_a_folder_that_is_a_link_is_left_alone(
    store: Store, thesis: Path, linked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a command says of it, nothing below the link's target is touched."""
    key = put(store, "a")
    roots.finish(store, root(key))
    store.files.write("tmp/half", b"x")
    aged(store)
    at = store.path / linked
    if at.exists():
        at.rename(store.path.parent / "moved")
    at.symlink_to(thesis)
    before = contents(thesis)
    where = ("--out", store.path.parent)
    for words in (("gc",), ("verify",), ("gc", "--dry-run"), ("ls", "--stored"), ("gc", "--forget", "one")):
        command(*words, *where)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
    again = Store(store.path)
    for act in (lambda: again.put(b"new"), lambda: Leases(again.files).claim(KEY), again.check_writable):
        with suppress(StoreError):
            act()
    assert contents(thesis) == before
    assert (thesis / "chapter.tex").stat().st_mtime == 1e9
    with pytest.raises(OSError, match="it is a link, which nothing in a store may be"):
        list(again.files.files(f"{linked}/"))


def test_links_deeper_in_the_store_are_left_alone(store: Store, thesis: Path) -> None:
    """A folder of objects, a file among them, a lease: none is followed, and the links themselves are not listed."""
    key = put(store, "a")
    roots.finish(store, root(key))
    for name in ("objects/ab", "cells/ab", "tmp/deep", "damaged/deep"):
        (store.path / name).parent.mkdir(exist_ok=True)
        (store.path / name).symlink_to(thesis / "ab")
    for name in (f"leases/{KEY}.0", f"partial/{KEY}", "tmp/file"):
        (store.path / name).parent.mkdir(exist_ok=True)
        (store.path / name).symlink_to(thesis / KEY)
    aged(store)
    before = contents(thesis)
    for act in (lambda: store.read_entry(KEY), lambda: store.get(KEY)):
        with pytest.raises(StoreError, match="it is a link"):
            act()
    collect(store, roots.roots(store), remove=True)
    assert list(store.keys()) == [key]
    assert contents(thesis) == before
    assert store.read_entry(key) is not None


def test_a_pipe_in_the_store_is_not_waited_for(store: Store) -> None:
    (store.path / "cells/ab").mkdir(parents=True)
    put(store, "a")
    os.mkfifo(store.path / cell_name(KEY))
    with pytest.raises(StoreError, match="it is no plain file"):
        store.read_entry(KEY)


def test_a_store_that_is_itself_a_link_or_below_one_works(tmp_path: Path) -> None:
    """The healthy neighbour: results on a larger disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "large").symlink_to(tmp_path / "disk")
    (tmp_path / ".store").symlink_to(tmp_path / "large" / "results", target_is_directory=True)
    store = Store(tmp_path / ".store")
    key = put(store, "a")
    aged(store)
    assert collect(store, [root(key)], remove=True).entries.total() == 0
    assert Store(tmp_path / "disk" / "results").read_entry(key) is not None
    assert collect(store, [], remove=True).entries.total() == 1
    assert not list(store.keys())


def test_a_link_put_in_the_place_of_a_folder_meanwhile(store: Store, thesis: Path) -> None:
    """Between the listing and the removal: the folder is reached anew for each file."""
    files = store.files
    put(store, "a")
    files.write(f"tmp/{KEY}", b"x")
    (listed,) = [file.name for file in files.files("tmp/")]
    (store.path / "tmp").rename(store.path / "tmp-before")
    (store.path / "tmp").symlink_to(thesis)
    with pytest.raises(OSError, match="it is a link"):
        files.remove(listed)
    assert (thesis / KEY).exists()


# --- Addresses.


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server of a stranger, and what it was asked for."""
    asked: list[str] = []

    class Asked(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(404)
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/store", asked
        listening.shutdown()
        thread.join()


def test_no_request_goes_to_an_address_of_a_stranger(
    store: Store, server: tuple[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp", reason="fsspec asks over HTTP with aiohttp")
    url, asked = server
    roots.finish(store, root(put(store, "a")))
    runs = store.path.parent
    folder = stranger(runs, "strange", store=url)
    for words in (("report", folder), ("compare", folder, folder), ("export", folder, tmp_path / "a.tar")):
        assert command(*words) == 2
        assert "an address that was not used on this machine before" in capsys.readouterr().err
    for words in (("gc", "--dry-run", "--out", runs), ("gc", "--out", runs), ("ls", "--out", runs)):
        assert command(*words) == 0
    assert asked == []
    with pytest.raises(StoreError, match="there is no store"):
        Store(user_address(url), create=False)
    assert asked, "the healthy neighbour: what the user names is asked"


def test_an_address_that_was_named_once_is_known_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `run --store`: `report` of that run needs no further word; by another process, too."""
    from sublevel.engine.store import address

    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(address, "_named", set())
    with pytest.raises(StoreError, match="use it once"):
        address.trusted("s3://bucket/a", tmp_path)
    for _ in range(2):
        assert user_address("s3://bucket/a/") == "s3://bucket/a"
        address._named.clear()
    assert address.trusted("s3://bucket/a", tmp_path) == "s3://bucket/a"
    assert (tmp_path / "cache" / "stores" / "named").read_text() == "s3://bucket/a\n"
    for other in ("s3://bucket", "s3://bucket/ab", "s3://bucket/a/b", "http://bucket/a"):
        with pytest.raises(StoreError, match="use it once"):
            address.trusted(other, tmp_path)
    assert address.trusted(str(tmp_path), tmp_path) == str(tmp_path), "a folder needs no word"
