"""Objects and entries: results by the content of what they were made from.

    STORE/format.json            {"format": 1}
    STORE/objects/ab/ab12...     tensors as safetensors bytes, named by their SHA-256
    STORE/cells/cd/cd34...json   one entry per cell: inputs, values, digests of its objects, a checksum
    STORE/studies/ef56...json    what a study reaches, so that the rest can be collected
    STORE/leases/cd34....0       who computes a cell at the moment
    STORE/damaged/               what failed its checksum, set aside
    STORE/tmp/                   files being written

A file is whole or absent, at any moment of a kill, and two writers of one name write the same bytes or an equivalent
entry. An entry is written after its objects. Every read is checked. Nothing is pickled; loading runs no code.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sublevel.errors import DamagedEntry, StoreError
from sublevel.study.store.address import opened
from sublevel.study.store.backend import Backend, refusing
from sublevel.study.store.content import DIGEST, Document, canonical, digest, sealed, serialised, unsealed

FORMAT = 1
MARKER = "format.json"


def object_name(name: str) -> str:
    """Where the object of a digest stands."""
    return f"objects/{name[:2]}/{name}"


def cell_name(key: str) -> str:
    """Where the entry of a key stands."""
    return f"cells/{key[:2]}/{key}.json"


def parsed_entry(data: bytes, key: str) -> Document | None:
    """The entry of a key from its bytes; None for what is damaged, another's, or names objects as no store does."""
    body = unsealed(data)
    if body is None or body.get("key") != key or not isinstance(body.get("objects"), dict):
        return None
    names = body["objects"].values()
    return body if all(isinstance(name, str) and DIGEST.fullmatch(name) for name in names) else None


def there(body: Document) -> set[str]:
    """The digests of the objects that an entry has: all that it names, but those that were let go."""
    return set(body["objects"].values()) - set(body.get("released", ()))


class Store:
    """Results, shared by any number of runs and processes; ``where`` is a folder, a URL (``s3://...``) or a `Backend`.

    Opening one writes nothing. Raises StoreError where the place is no store of this format, or cannot be read.
    """

    def __init__(self, where: str | Path | Backend, *, create: bool = True) -> None:
        self.files: Backend = opened(where) if isinstance(where, str | Path) else where
        with refusing(f"cannot read a store in {self.where}"):
            self._marked = self._find(create)

    def _find(self, create: bool) -> bool:
        """Whether the place is marked as a store; it may be one that is still to be made, if ``create``."""
        marked = self._check_format()
        if not marked and self.files.look(MARKER) is None:
            if not create:
                raise StoreError(f"there is no store in {self.where}")
            if self.files.occupied() and not self._check_format():  # another run may have made it meanwhile
                raise StoreError(f"{self.where} is not empty and not a store: it has no {MARKER}")
        return marked

    @property
    def where(self) -> str:
        """The place, for messages."""
        return self.files.where

    @property
    def path(self) -> Path:
        """The folder of a store that is in one."""
        return Path(self.files.where)

    def put(self, data: bytes) -> str:
        """Keep an object and return its digest; one that is there and damaged is set aside and written anew.

        One that is there is touched: it counts as new to the collection of garbage, whose work would take it away
        before its entry is written.
        """
        name = digest(data)
        at = object_name(name)
        try:
            with refusing(f"cannot read the store in {self.where}", but=FileNotFoundError):
                if self.files.read(at) == data and self._touched(at):
                    return name
            self.set_aside(at)
        except FileNotFoundError:
            pass
        self.write(at, data)
        return name

    def get(self, name: str) -> bytes:
        """The object of that digest. DamagedEntry if it is missing or its bytes are others."""
        try:
            data = self.files.read(object_name(name))
        except FileNotFoundError:
            raise DamagedEntry(f"object {name[:12]} is missing from {self.where}", name) from None
        if digest(data) != name:
            raise DamagedEntry(
                f"object {name[:12]} in {self.where} is damaged: its SHA-256 is {digest(data)[:12]}", name
            )
        return data

    def write_entry(self, key: str, body: Document) -> None:
        """Keep a cell's entry; its objects must be there."""
        self.write(cell_name(key), sealed(body))

    def read_entry(self, key: str) -> Document | None:
        """A cell's entry, whole and with all its objects, or None.

        What is damaged is set aside, so that the cell is computed again; `set_aside` tells what.
        """
        try:
            body = parsed_entry(self.files.read(cell_name(key)), key)
        except FileNotFoundError:
            return None
        except OSError:
            body = None
        if body is None:
            self.set_aside(cell_name(key))
            return None
        return body if self._objects_whole(body) else None

    def touch(self, key: str) -> None:
        """Say that an entry is in use; one that is not there is no error."""
        self._touched(cell_name(key))

    def set_aside(self, name: str) -> None:
        """Move a damaged file out of the way, keeping it for a look."""
        try:
            self.files.move(name, f"damaged/{name.rpartition('/')[2]}.{uuid.uuid4().hex[:8]}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{name} in {self.where} is damaged and cannot be set aside: {error.strerror or error}"
            ) from error

    def damaged(self) -> list[str]:
        """Names of what has been set aside."""
        return [file.name.partition("/")[2] for file in self.files.files("damaged/")]

    def keys(self) -> Iterator[str]:
        """The keys of all entries."""
        for file in self.files.files("cells/"):
            if file.name.endswith(".json"):
                yield file.name.rpartition("/")[2].removesuffix(".json")

    def objects(self) -> Iterator[str]:
        """The digests of all objects."""
        for file in self.files.files("objects/"):
            yield file.name.rpartition("/")[2]

    def size(self) -> int:
        """Bytes in objects and entries."""
        return sum(file.size for kind in ("objects/", "cells/") for file in self.files.files(kind))

    def check_writable(self) -> None:
        """Fail now, with one sentence, rather than after an hour of training."""
        name = f"tmp/probe-{uuid.uuid4().hex}"
        self.write(name, b"probe")
        with refusing(f"cannot write to the store in {self.where}"):
            again = self.files.create(name, b"again")
            self.files.remove(name)
        if again:
            raise StoreError(
                f"the storage of {self.where} makes a file that is there already once more: two runs could not tell "
                "who computes what, so it cannot hold a store"
            )

    def put_tensors(self, tensors: Mapping[str, Any]) -> str:
        """Keep named tensors as one safetensors object; the bytes do not depend on the order of the names."""
        return self.put(serialised(tensors))

    def get_tensors(self, name: str) -> dict[str, Any]:
        """The tensors of an object, on the CPU."""
        from safetensors.torch import load

        return load(self.get(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file; the first write marks the place as a store. StoreError where that is impossible."""
        with refusing(f"cannot write to the store in {self.where}"):
            if not self._marked:
                self.files.write(MARKER, canonical({"format": FORMAT}))
                self._marked = True
            self.files.write(name, data)

    def _touched(self, name: str) -> bool:
        """Touch a file and say whether it is there; another user's, which cannot be touched, stays as old as it is."""
        try:
            self.files.touch(name)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _objects_whole(self, body: Document) -> bool:
        whole = True
        for name in there(body):
            try:
                self.get(name)
            except DamagedEntry:
                whole = False
                self.set_aside(object_name(name))
        return whole

    def _check_format(self) -> bool:
        """Whether the marker is there and says what it should. A damaged one is written anew if an entry is whole."""
        try:
            found = json.loads(self.files.read(MARKER))["format"]
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (ValueError, KeyError, TypeError, OSError) as error:
            if any(parsed_entry(self.files.read(cell_name(key)), key) for key in self.keys()):
                return False
            raise StoreError(f"{self.where}/{MARKER} cannot be read: {error}") from error
        if found != FORMAT:
            raise StoreError(
                f"the store in {self.where} has format {found}, this version of sublevel reads format {FORMAT}; "
                "use the version that wrote it, or another store (--store)"
            )
        return True
