"""Checked reads: a file of a store or of an archive is parsed whole, or is missing, or is damaged.

A file is damaged only if two complete, equal reads of it are both invalid. A read that fails is an OSError: nothing
is known of the file then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, TypeVar

from sublevel.engine.store.backend import File
from sublevel.engine.store.content import DIGEST, Document, digest, unsealed
from sublevel.engine.store.names import cell_name, key_of, object_name
from sublevel.errors import DamagedEntry

LONGEST = 1e12
"""Upper bound of the seconds of a cell."""

T = TypeVar("T")


class Readable(Protocol):
    """A source of results: a store's backend, or an archive."""

    where: str

    def read(self, name: str) -> bytes:
        """The bytes of a file. FileNotFoundError if it is missing."""
        ...

    def look(self, name: str) -> File | None:
        """The file as a listing shows it; None if it is missing."""
        ...

    def files(self, prefix: str) -> Iterator[File]:
        """All files whose name starts with ``prefix``."""
        ...


def checked_read(files: Readable, name: str, parse: Callable[[bytes], T | None]) -> T:
    """The content of a file, parsed; ``parse`` returns None for invalid bytes.

    Raises FileNotFoundError if the file is missing, DamagedEntry if two complete, equal reads of it are invalid, and
    another OSError if that is not known: a read that was cut short does not prove damage.
    """
    first = files.read(name)
    found = parse(first)
    if found is not None:
        return found
    about, second = files.look(name), files.read(name)
    found = parse(second)
    if found is not None:
        return found
    if about is None or first != second or about.size != len(second):
        raise OSError(errno.EIO, "it reads differently each time", name)
    raise DamagedEntry(f"{name} in {files.where} is damaged", key_of(name))


def object_parser(name: str) -> Callable[[bytes], bytes | None]:
    """A parser that returns the bytes of the object of a digest, and None for other bytes."""
    return lambda data: data if digest(data) == name else None


def read_or_none(files: Readable, name: str, parse: Callable[[bytes], T | None]) -> T | None:
    """The content of a file, parsed; None if it is missing or damaged. OSError if that is not known."""
    with suppress(FileNotFoundError, DamagedEntry):
        return checked_read(files, name, parse)
    return None


def object_or_none(files: Readable, name: str) -> bytes | None:
    """The object of a digest; None if it is missing or damaged. OSError if that is not known."""
    return read_or_none(files, object_name(name), object_parser(name))


def entry_or_none(files: Readable, key: str) -> Document | None:
    """The entry of a key; None if it is missing or damaged. OSError if that is not known."""
    return read_or_none(files, cell_name(key), lambda data: parse_entry(data, key))


def parse_entry(data: bytes, key: str) -> Document | None:
    """The entry of a key from its bytes; None if they are damaged, of another key, or of another shape."""
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


def kept_objects(body: Document) -> set[str]:
    """The digests of the objects that an entry names, without those that were released."""
    return set(body["objects"].values()) - set(body.get("released", ()))
