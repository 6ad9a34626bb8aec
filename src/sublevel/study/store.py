"""The store: results by the content of what they were made from.

    STORE/format.json            {"format": 1}
    STORE/objects/ab/ab12...     tensors as safetensors bytes, named by their SHA-256
    STORE/cells/cd/cd34...json   one entry per cell: inputs, values, digests of its objects, a checksum
    STORE/damaged/               what failed its checksum, set aside
    STORE/tmp/                   files being written

A file is written in tmp, fsynced and renamed: it is whole or absent, at any moment of a kill, and two writers of one
name write the same bytes or an equivalent entry. An entry is written after its objects. Every read is checked. Nothing
is pickled; loading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sublevel.errors import DamagedEntry, StoreError

FORMAT = 1

Document = dict[str, Any]


def canonical(document: object) -> bytes:
    """JSON with sorted keys and no spaces: equal documents give equal bytes.

    >>> canonical({"b": 0.1, "a": [1, None]})
    b'{"a":[1,null],"b":0.1}'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def serialised(tensors: Mapping[str, Any]) -> bytes:
    """Named tensors as safetensors bytes; those that share memory, which it refuses, are copied."""
    from safetensors.torch import save

    plain: dict[str, Any] = {}
    storages: set[int] = set()
    for name, tensor in sorted(tensors.items()):
        t = tensor.detach().cpu().contiguous()
        plain[name] = t.clone() if t.untyped_storage().data_ptr() in storages else t
        storages.add(t.untyped_storage().data_ptr())
    return save(plain)


class Store:
    """A folder of results, shared by any number of runs and processes.

    Opening one writes nothing. Raises StoreError where the folder is not a store of this format, or cannot be written.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path).resolve()
        self._marker = self.path / "format.json"
        if self._marker.exists():
            self._check_format(self._marker)
        elif not create:
            raise StoreError(f"there is no store in {self.path}")
        elif self._is_something_else() and not self._marker.exists():
            raise StoreError(f"{self.path} is not empty and not a store: it has no format.json")

    def put(self, data: bytes) -> str:
        """Keep an object and return its digest; one that is there and damaged is set aside and written anew."""
        name = digest(data)
        path = self.object_path(name)
        if path.is_file() and path.read_bytes() != data:
            self.set_aside(path)
        if not path.exists():
            self._write(path, data)
        return name

    def get(self, name: str) -> bytes:
        """The object of that digest. DamagedEntry if it is missing or its bytes are others."""
        try:
            data = self.object_path(name).read_bytes()
        except FileNotFoundError:
            raise DamagedEntry(f"object {name[:12]} is missing from {self.path}", name) from None
        if digest(data) != name:
            raise DamagedEntry(
                f"object {name[:12]} in {self.path} is damaged: its SHA-256 is {digest(data)[:12]}", name
            )
        return data

    def object_path(self, name: str) -> Path:
        """Where an object stands."""
        return self.path / "objects" / name[:2] / name

    def cell_path(self, key: str) -> Path:
        """Where an entry stands."""
        return self.path / "cells" / key[:2] / f"{key}.json"

    def write_entry(self, key: str, body: Document) -> None:
        """Keep a cell's entry; its objects must be there."""
        self._write(self.cell_path(key), canonical({"body": body, "checksum": digest(canonical(body))}))

    def read_entry(self, key: str) -> Document | None:
        """A cell's entry, whole and with all its objects, or None.

        What is damaged is set aside, so that the cell is computed again; `set_aside` tells what.
        """
        path = self.cell_path(key)
        try:
            entry = json.loads(path.read_bytes())
            body: Document = entry["body"]
            whole = entry["checksum"] == digest(canonical(body)) and body["key"] == key
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError):
            whole, body = False, {}
        if not whole:
            self.set_aside(path)
            return None
        return body if self._objects_whole(body) else None

    def set_aside(self, path: Path) -> None:
        """Move a damaged file out of the way, keeping it for a look."""
        target = self.path / "damaged" / f"{path.name}.{uuid.uuid4().hex[:8]}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{path} is damaged and cannot be set aside: {error.strerror or error}") from error

    def damaged(self) -> list[str]:
        """Names of what has been set aside."""
        folder = self.path / "damaged"
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def keys(self) -> Iterator[str]:
        """The keys of all entries."""
        for path in sorted((self.path / "cells").glob("??/*.json")):
            yield path.stem

    def size(self) -> int:
        """Bytes on disk, in objects and entries."""
        return sum(p.stat().st_size for kind in ("objects", "cells") for p in (self.path / kind).glob("??/*"))

    def check_writable(self) -> None:
        """Fail now, with one sentence, rather than after an hour of training."""
        path = self.path / "tmp" / f"probe-{uuid.uuid4().hex}"
        self._write(path, b"probe")
        path.unlink(missing_ok=True)

    def put_tensors(self, tensors: Mapping[str, Any]) -> str:
        """Keep named tensors as one safetensors object; the bytes do not depend on the order of the names."""
        return self.put(serialised(tensors))

    def get_tensors(self, name: str) -> dict[str, Any]:
        """The tensors of an object, on the CPU."""
        from safetensors.torch import load

        return load(self.get(name))

    def _objects_whole(self, body: Document) -> bool:
        whole = True
        for name in body["objects"].values():
            try:
                self.get(name)
            except DamagedEntry:
                whole = False
                self.set_aside(self.object_path(name))
        return whole

    def _is_something_else(self) -> bool:
        """Whether there is anything that the creation of a store does not leave behind."""
        if self.path.is_dir():
            return any(p.name != "tmp" for p in self.path.iterdir())
        return self.path.exists()

    def _check_format(self, marker: Path) -> None:
        try:
            found = json.loads(marker.read_bytes())["format"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StoreError(f"{marker} cannot be read: {error}") from error
        if found != FORMAT:
            raise StoreError(
                f"the store in {self.path} has format {found}, this version of sublevel reads format {FORMAT}; "
                "use the version that wrote it, or another store (--store)"
            )

    def _write(self, path: Path, data: bytes) -> None:
        """Write beside, fsync, rename, fsync the folder; the first write marks the folder as a store."""
        if path != self._marker and not self._marker.exists():
            self._write(self._marker, canonical({"format": FORMAT}))
        temporary = self.path / "tmp" / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _fsync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise StoreError(f"cannot write to the store in {self.path}: {error.strerror or error}") from error


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
