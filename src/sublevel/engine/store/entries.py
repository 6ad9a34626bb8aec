"""Objects and entries: results, found by the content of what they were made from.

    STORE/format.json            {"format": 1}
    STORE/objects/ab/ab12...     tensors as safetensors bytes, named by their SHA-256
    STORE/cells/cd/cd34...json   one entry per cell: inputs, values, digests of its objects, a checksum
    STORE/studies/ef56...json    the keys that a study reaches; the rest can be collected
    STORE/leases/cd34....0       which run computes a cell now
    STORE/damaged/               damaged files, set aside
    STORE/tmp/                   files being written

Writes are atomic, even under kill -9. Two writers of one name write the same bytes, or equivalent entries. An entry is
written after its objects. Every read is checked. Nothing is pickled; loading runs no code.

Damaged files (see `reading`) are moved to ``damaged/``; no other file is moved. A read that fails is a StoreError, and
the result is not computed again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sublevel.engine.store.address import opened
from sublevel.engine.store.backend import Backend, File, store_errors
from sublevel.engine.store.content import Document, canonical, digest, sealed, serialised
from sublevel.engine.store.names import CELLS, DAMAGED, OBJECTS, TMP, cell_name, key_of, object_name
from sublevel.engine.store.reading import checked_read, entry_or_none, kept_objects, object_parser, parse_entry
from sublevel.errors import DamagedEntry, StoreError
from sublevel.foreign import load_json, load_tensors

FORMAT = 1
MARKER = "format.json"

T = TypeVar("T")


class Store:
    """Results, shared by any number of runs and processes; ``where`` is a folder, a URL (``s3://...``) or a `Backend`.

    Opening a store writes nothing. Raises StoreError if the place cannot be read or is no store of this format.
    """

    def __init__(self, where: str | Path | Backend, *, create: bool = True) -> None:
        self.files: Backend = opened(where) if isinstance(where, str | Path) else where
        with store_errors(f"cannot read a store in {self.where}"):
            self._marked = self._find(create)

    def _find(self, create: bool) -> bool:
        """Whether the place is marked as a store. If ``create``, an empty place is accepted too."""
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
        """The folder of a store in a file system."""
        return Path(self.files.where)

    def put(self, data: bytes) -> str:
        """Store an object and return its digest. A damaged copy is set aside and replaced.

        An object that exists is touched, so that garbage collection does not remove it before its entry is written.
        """
        name = digest(data)
        if not (self.object_whole(name) and self._touched(object_name(name))):
            self.write(object_name(name), data)
        return name

    def get(self, name: str) -> bytes:
        """The object of a digest. DamagedEntry if it is missing or damaged, StoreError if it cannot be read."""
        at = object_name(name)
        try:
            with store_errors(f"cannot read the store in {self.where}", but=FileNotFoundError):
                return checked_read(self.files, at, object_parser(name))
        except FileNotFoundError:
            raise DamagedEntry(f"object {name[:12]} is missing from {self.where}", name) from None
        except DamagedEntry:
            raise DamagedEntry(f"object {name[:12]} in {self.where} is damaged: its SHA-256 is another", name) from None

    def object_whole(self, name: str) -> bool:
        """Whether the object of a digest is stored; set it aside if it is damaged."""
        try:
            self.get(name)
        except DamagedEntry:
            self.set_aside(object_name(name), object_parser(name))
            return False
        return True

    def write_entry(self, key: str, body: Document) -> None:
        """Store a cell's entry, after its objects."""
        self.write(cell_name(key), sealed(body))

    def read_entry(self, key: str) -> Document | None:
        """A cell's entry if it and all its objects are stored, else None. StoreError if that cannot be read.

        Damaged files are set aside, so that the cell is computed again.
        """
        body = self.find(cell_name(key), lambda data: parse_entry(data, key))
        if body is None:
            return None
        found = [self.object_whole(name) for name in sorted(kept_objects(body))]  # every damaged one is set aside
        return body if all(found) else None

    def find(self, name: str, parse: Callable[[bytes], T | None]) -> T | None:
        """The content of a file (see `checked_read`); None if it is missing, or damaged and now set aside."""
        try:
            with store_errors(f"cannot read the store in {self.where}", but=FileNotFoundError):
                return checked_read(self.files, name, parse)
        except FileNotFoundError:
            return None
        except DamagedEntry:
            self.set_aside(name, parse)
            return None

    def touch(self, key: str) -> None:
        """Mark an entry as in use; a missing one is no error."""
        self._touched(cell_name(key))

    def set_aside(self, name: str, parse: Callable[[bytes], object]) -> None:
        """Move a damaged file to ``damaged/``, for inspection.

        If ``parse`` accepts it now, another run has repaired it since: it is moved back.
        """
        aside = f"{DAMAGED}{name.rpartition('/')[2]}.{uuid.uuid4().hex[:8]}"
        try:
            self.files.move(name, aside)
            if parse(self.files.read(aside)) is not None:
                self.files.move(aside, name)
            else:
                self.files.touch(aside)  # the hour for which it is kept begins now
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{name} in {self.where} is damaged and cannot be set aside: {error.strerror or error}"
            ) from error

    def damaged(self) -> list[str]:
        """The names of the files that were set aside."""
        return [file.name.removeprefix(DAMAGED) for file in self._listed(DAMAGED)]

    def keys(self) -> Iterator[str]:
        """The keys of all entries."""
        yield from filter(None, (key_of(file.name) for file in self._listed(CELLS) if file.name.endswith(".json")))

    def objects(self) -> Iterator[str]:
        """The digests of all objects."""
        yield from filter(None, (key_of(file.name) for file in self._listed(OBJECTS)))

    def size(self) -> int:
        """Bytes in objects and entries."""
        return sum(file.size for kind in (OBJECTS, CELLS) for file in self._listed(kind))

    def _listed(self, prefix: str) -> Iterator[File]:
        with store_errors(f"cannot read the store in {self.where}"):
            yield from self.files.files(prefix)

    def check_writable(self) -> None:
        """Fail now, with one sentence, rather than after an hour of training."""
        name = f"{TMP}probe-{uuid.uuid4().hex}"
        self.write(name, b"probe")
        with store_errors(f"cannot write to the store in {self.where}"):
            again = self.files.create(name, b"again")
            self.files.remove(name)
        if again:
            raise StoreError(
                f"the storage of {self.where} creates an existing file again, so two runs could claim one cell: it "
                "cannot hold a store"
            )

    def put_tensors(self, tensors: Mapping[str, Any]) -> str:
        """Store named tensors as one safetensors object, whose bytes do not depend on the order of the names."""
        return self.put(serialised(tensors))

    def get_tensors(self, name: str) -> dict[str, Any]:
        """The tensors of an object, on the CPU. ValueError if it is no safetensors file."""
        return load_tensors(self.get(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file; the first write marks the place as a store. StoreError if that fails."""
        with store_errors(f"cannot write to the store in {self.where}"):
            if not self._marked:
                self.files.write(MARKER, canonical({"format": FORMAT}))
                self._marked = True
            self.files.write(name, data)

    def _touched(self, name: str) -> bool:
        """Touch a file; return whether it exists. A file of another user that cannot be touched keeps its time."""
        try:
            self.files.touch(name)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _check_format(self) -> bool:
        """Whether a valid marker exists. A damaged one is replaced if any entry is valid."""
        try:
            found = checked_read(self.files, MARKER, _format)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except DamagedEntry:
            if any(entry_or_none(self.files, key) for key in self.keys()):
                return False
            raise StoreError(f"{self.where}/{MARKER} is damaged, and no entry in the store is whole") from None
        if found != FORMAT:
            raise StoreError(
                f"the store in {self.where} has format {found}, this version of sublevel reads format {FORMAT}; "
                "use the version that wrote it, or another store (--store)"
            )
        return True


def _format(data: bytes) -> Any:
    """The format that a marker names; None for invalid bytes."""
    try:
        found = load_json(data)["format"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int | str) else None
