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

A file is damaged if it was read whole, twice alike, and is wrong; nothing else is moved. A read that fails is a
StoreError, and a result that could not be read is not computed again.
"""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sublevel.engine.store.address import opened
from sublevel.engine.store.backend import Backend, File, refusing
from sublevel.engine.store.content import DIGEST, Document, canonical, digest, sealed, serialised, unsealed
from sublevel.engine.store.names import CELLS, DAMAGED, OBJECTS, TMP, cell_name, key_of, object_name
from sublevel.errors import DamagedEntry, StoreError

LONGEST = 1e12
"""Seconds: no cell took as long."""

FORMAT = 1
MARKER = "format.json"


T = TypeVar("T")


class Readable(Protocol):
    """What a file can be read from: the files of a store, or an archive."""

    where: str

    def read(self, name: str) -> bytes:
        """The bytes of a file. FileNotFoundError if there is none."""
        ...

    def look(self, name: str) -> File | None:
        """What a listing would say of one file."""
        ...


def checked_read(files: Readable, name: str, understood: Callable[[bytes], T | None]) -> T:
    """What is in a file, as ``understood`` gives it; that is None for what is wrong.

    Raises FileNotFoundError if there is no such file, DamagedEntry if it was read whole, twice alike, and is wrong, and
    another OSError where that is not known: a body that was cut short is no damage.
    """
    first = files.read(name)
    found = understood(first)
    if found is not None:
        return found
    about, second = files.look(name), files.read(name)
    found = understood(second)
    if found is not None:
        return found
    if about is None or first != second or about.size != len(second):
        raise OSError(errno.EIO, "it reads differently each time", name)
    raise DamagedEntry(f"{name} in {files.where} is damaged", key_of(name))


def whole_object(name: str) -> Callable[[bytes], bytes | None]:
    """The bytes of the object of a digest, None for any others."""
    return lambda data: data if digest(data) == name else None


def whole(files: Readable, name: str, understood: Callable[[bytes], T | None]) -> T | None:
    """What is in a file; None where it is missing or damaged. OSError where that is not known."""
    with suppress(FileNotFoundError, DamagedEntry):
        return checked_read(files, name, understood)
    return None


def entry_in(files: Readable, key: str) -> Document | None:
    """The entry of a key, as `whole` finds it."""
    return whole(files, cell_name(key), lambda data: parsed_entry(data, key))


def parsed_entry(data: bytes, key: str) -> Document | None:
    """The entry of a key from its bytes; None for what is damaged, another's, or names objects as no store does."""
    body = unsealed(data)
    if body is None or body.get("key") != key or not isinstance(body.get("objects"), dict):
        return None
    if not all(isinstance(body.get(part, {}), dict) for part in ("labels", "inputs", "values", "failure")):
        return None
    seconds, released, kind = body.get("seconds", 0.0), body.get("released", []), body.get("kind", "")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < LONGEST:
        return None
    if not isinstance(kind, str) or not isinstance(released, list):
        return None
    names = [*body["objects"].values(), *released]
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
        if not (self.object_whole(name) and self._touched(object_name(name))):
            self.write(object_name(name), data)
        return name

    def get(self, name: str) -> bytes:
        """The object of that digest. DamagedEntry if it is missing or its bytes are others, StoreError if it cannot be
        read.
        """
        at = object_name(name)
        try:
            with refusing(f"cannot read the store in {self.where}", but=FileNotFoundError):
                return checked_read(self.files, at, whole_object(name))
        except FileNotFoundError:
            raise DamagedEntry(f"object {name[:12]} is missing from {self.where}", name) from None
        except DamagedEntry:
            raise DamagedEntry(f"object {name[:12]} in {self.where} is damaged: its SHA-256 is another", name) from None

    def object_whole(self, name: str) -> bool:
        """Whether the object of a digest is there; one that is damaged is set aside."""
        try:
            self.get(name)
        except DamagedEntry:
            self.set_aside(object_name(name), whole_object(name))
            return False
        return True

    def write_entry(self, key: str, body: Document) -> None:
        """Keep a cell's entry; its objects must be there."""
        self.write(cell_name(key), sealed(body))

    def read_entry(self, key: str) -> Document | None:
        """A cell's entry, whole and with all its objects, or None. StoreError if it cannot be read.

        What is damaged is set aside, so that the cell is computed again; `set_aside` tells what.
        """
        body = self.find(cell_name(key), lambda data: parsed_entry(data, key))
        if body is None:
            return None
        found = [self.object_whole(name) for name in sorted(there(body))]  # every damaged one is set aside
        return body if all(found) else None

    def find(self, name: str, understood: Callable[[bytes], T | None]) -> T | None:
        """What is in a file, as in `checked_read`; None where it is missing or damaged. Then it is set aside."""
        try:
            with refusing(f"cannot read the store in {self.where}", but=FileNotFoundError):
                return checked_read(self.files, name, understood)
        except FileNotFoundError:
            return None
        except DamagedEntry:
            self.set_aside(name, understood)
            return None

    def touch(self, key: str) -> None:
        """Say that an entry is in use; one that is not there is no error."""
        self._touched(cell_name(key))

    def set_aside(self, name: str, understood: Callable[[bytes], object]) -> None:
        """Move a damaged file out of the way, keeping it for a look.

        What another run has mended since it was read is put back: ``understood`` gives None for what is wrong.
        """
        aside = f"{DAMAGED}{name.rpartition('/')[2]}.{uuid.uuid4().hex[:8]}"
        try:
            self.files.move(name, aside)
            if understood(self.files.read(aside)) is not None:
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
        """Names of what has been set aside."""
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
        with refusing(f"cannot read the store in {self.where}"):
            yield from self.files.files(prefix)

    def check_writable(self) -> None:
        """Fail now, with one sentence, rather than after an hour of training."""
        name = f"{TMP}probe-{uuid.uuid4().hex}"
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

    def _check_format(self) -> bool:
        """Whether the marker is there and says what it should. A damaged one is written anew if an entry is whole."""
        try:
            found = checked_read(self.files, MARKER, _format)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except DamagedEntry:
            if any(entry_in(self.files, key) for key in self.keys()):
                return False
            raise StoreError(f"{self.where}/{MARKER} is damaged, and no entry in the store is whole") from None
        if found != FORMAT:
            raise StoreError(
                f"the store in {self.where} has format {found}, this version of sublevel reads format {FORMAT}; "
                "use the version that wrote it, or another store (--store)"
            )
        return True


def _format(data: bytes) -> Any:
    """The format that a marker names; None for what is none."""
    try:
        found = json.loads(data)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, int | str) else None
