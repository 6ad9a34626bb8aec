"""A document of somebody else's is refused by its size or its number of values, before it takes memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from small_stores import put
from sublevel.engine.store import Leases, Store, cell_name
from sublevel.engine.store.archive import Archive
from sublevel.engine.store.content import sealed, unsealed
from sublevel.errors import StoreError
from sublevel.foreign import LARGEST, MOST_VALUES, load_json, load_tensors

KEY = "ab" * 32

# Each opens with a sign that begins a value of its own: the second and third once took 800 and 700 MB.
DENSE = {
    "lists": b"[],",
    "lists in lists": b"[" * 90 + b"]" * 90 + b",",
    "groups": b'{"":' * 90 + b"0" + b"}" * 90 + b",",
}


@pytest.mark.parametrize("part", DENSE.values(), ids=DENSE)
def test_the_number_of_values_is_bounded(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    values = part.count(b"[") + part.count(b"{") + 1
    few, many = (b"[" + part * n + b"0]" for n in (100, MOST_VALUES // values + 1))
    assert len(many) < LARGEST
    assert len(load_json(few)) == 101
    monkeypatch.setattr(json, "loads", lambda data: pytest.fail("it was parsed"))
    for data in (many, many.decode()):
        with pytest.raises(ValueError, match="more than 1,048,576 values"):
            load_json(data)
    assert unsealed(b'{"body":{"x":' + many + b'},"checksum":""}') is None


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(ValueError, match="more than 1,048,576 values"):
        sealed({"x": [0] * MOST_VALUES})
    assert unsealed(sealed({"x": [0] * 1000})) == {"x": [0] * 1000}


def tensors(n: int) -> bytes:
    """A safetensors file of n empty tensors."""
    about = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{i}":{about}' for i in range(n)) + "}").encode()
    return len(header).to_bytes(8, "little") + header


def test_the_number_of_tensors_is_bounded() -> None:
    """Two million empty ones, which an archive may hold under their digest, took gigabytes."""
    assert len(load_tensors(tensors(50))) == 50
    with pytest.raises(ValueError, match="more than 1,048,576 values"):
        load_tensors(tensors(200_000))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def stretched(path: Path, size: int = 2**36) -> None:
    """Let a file end in zeros that take no room on the disk."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, size)
    os.utime(path, (1e9, 1e9))


def test_a_lease_of_any_size_is_taken_over(store: Store) -> None:
    put(store, "a")
    stretched(store.path / "leases" / f"{KEY}.0")
    with Leases(store.files) as leases:
        assert leases.claim(KEY)


@pytest.mark.parametrize("what", ["entry", "root", "marker"])
def test_a_document_of_any_size_is_refused_and_stays(store: Store, what: str) -> None:
    key = put(store, "a")
    name = {"entry": cell_name(key), "root": f"studies/{KEY}.json", "marker": "format.json"}[what]
    stretched(store.path / name)
    with pytest.raises(StoreError, match=r"has 68,719,476,736 bytes; allowed: 16,777,216"):
        store.find(name, unsealed)
    assert store.damaged() == []


def test_an_archive_with_a_document_of_any_size_is_refused(tmp_path: Path) -> None:
    import tarfile

    name, size = cell_name(KEY), 2**33 - 512
    header = json.dumps({"format": 1, "files": {name: [size, KEY]}}).encode()
    path = tmp_path / "a.tar"
    with path.open("wb") as out:
        for member, n, data in (("archive.json", len(header), header), (name, size, b"")):
            info = tarfile.TarInfo(member)
            info.size = n
            out.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        out.truncate(out.tell() + size + 1024)
    with pytest.raises(StoreError, match=r"is too large: it has 8,589,934,080 bytes; allowed: 16,777,216"):
        Archive(path)
