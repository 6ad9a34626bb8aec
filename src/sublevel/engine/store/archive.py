"""Archives: a study's entries and objects as one tar file, and the way back into a store.

    archive.json                 {"format": 1, "files": {name: [bytes, SHA-256]}}
    cells/.. objects/.. studies/..   as in a store

An archive is untrusted. Only regular files of a plain tar are read, with the names, sizes and checksums in
``archive.json``. Everything is checked before anything is written. No path in an archive becomes a path on this disk.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sublevel.engine.store.backend import File, store_errors
from sublevel.engine.store.content import canonical, digest, sealed
from sublevel.engine.store.entries import Store
from sublevel.engine.store.names import cell_name, check_length, object_name
from sublevel.engine.store.reading import kept_objects, object_or_none, parse_entry
from sublevel.engine.store.roots import Root, parse_root, used
from sublevel.errors import StoreError
from sublevel.files import replacing
from sublevel.foreign import LARGEST, load_json, opened

FORMAT = 1
HEADER = "archive.json"
BLOCK = tarfile.BLOCKSIZE
NAME = re.compile(r"(?:cells/(..)/(?=\1)[0-9a-f]{64}\.json|objects/(..)/(?=\2)[0-9a-f]{64}|studies/[0-9a-f]{64}\.json)")


def write_archive(store: Store, root: Root, path: Path) -> int:
    """Write everything that a study reaches; return the number of entries. StoreError if some of it is missing.

    The same study in the same store gives the same bytes.
    """
    bodies = {key: store.read_entry(key) for key in sorted(root.keys)}
    lost = sum(body is None for body in bodies.values())
    if lost:
        raise StoreError(f"{lost} of {len(bodies)} results of {root.name} are not in the store: run the study again")
    must = {name for body in bodies.values() for name in kept_objects(body or {})} | root.objects
    may = {name for body in bodies.values() for name in used(body or {})} - must
    with store_errors(f"cannot read the store in {store.where}"):
        objects = must | {name for name in may if object_or_none(store.files, name) is not None}
    names = [*map(object_name, sorted(objects)), *map(cell_name, bodies)]
    for name in sorted(must):
        store.get(name)
    with store_errors(f"cannot read the store in {store.where}"):
        about = {name: [len(data), digest(data)] for name in names for data in [store.files.read(name)]}
    last = sealed(root.document())
    header = canonical({"format": FORMAT, "files": about | {root.file: [len(last), digest(last)]}})
    with store_errors(f"cannot write {path}"), replacing(path) as beside, open(beside, "xb") as file:
        _add(file, HEADER, header)
        for name in names:
            _add(file, name, store.files.read(name))
        _add(file, root.file, last)
        file.write(bytes(2 * BLOCK))
    return len(bodies)


class Archive:
    """A checked archive: every file matches the header, and is a valid file of a store."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        with store_errors(f"cannot read {path}"), opened(path) as file:
            members = _members(file, path)
            about = self._header(file, next(members, None))
            try:
                for name, start, size in members:
                    self._admit(file, about, name, start, size)
            except MemoryError:
                raise self._refused("it has a file that does not fit into the memory") from None
        missing = set(about) - set(self._places)
        if missing:
            raise self._refused(f"{len(missing)} files of its header are missing, such as {min(missing)}")

    def read(self, name: str) -> bytes:
        """The bytes of a file. Callers check them again."""
        if name not in self._places:
            raise FileNotFoundError(name)
        start, size = self._places[name]
        with store_errors(f"cannot read {self._path}"), opened(self._path) as file:
            file.seek(start)
            return file.read(size)

    def look(self, name: str) -> File | None:
        """The file as a listing shows it; None if it is missing."""
        return File(name, self._places[name][1], 0.0) if name in self._places else None

    def files(self, prefix: str) -> Iterator[File]:
        """All files whose name starts with ``prefix``."""
        for name, (_, size) in sorted(self._places.items()):
            if name.startswith(prefix):
                yield File(name, size, 0.0)

    def _header(self, file: BinaryIO, first: tuple[str, int, int] | None) -> dict[str, tuple[int, str]]:
        if first is None or first[0] != HEADER or first[2] > LARGEST:
            raise self._refused(f"it does not begin with {HEADER}")
        try:
            document = load_json(file.read(first[2]))
            form, files = document["format"], {name: (int(n), str(sha)) for name, (n, sha) in document["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._refused(f"its {HEADER} is damaged") from None
        if form != FORMAT:
            raise self._refused(f"its format is {form}, and this version of sublevel reads format {FORMAT}")
        return files

    def _admit(self, file: BinaryIO, about: dict[str, tuple[int, str]], name: str, start: int, size: int) -> None:
        """Check one file: its name, its size before it is read, then its content."""
        if not NAME.fullmatch(name):
            raise self._refused(f"{name!r} is no file of a store")
        if name not in about or name in self._places:
            raise self._refused(f"{name} is {'there twice' if name in self._places else 'not in its header'}")
        if size != about[name][0]:
            raise self._refused(f"{name} has {size} bytes, its header says {about[name][0]}")
        try:
            check_length(name, size)
        except OSError as error:
            raise self._refused(f"{name} is too large: {error.strerror}") from None
        file.seek(start)
        data = file.read(size)
        if digest(data) != about[name][1] or not _proper(name, data):
            raise self._refused(f"{name} is damaged")
        self._places[name] = (start, size)

    def _refused(self, why: str) -> StoreError:
        return StoreError(f"{self._path} cannot be imported: {why}")


def _proper(name: str, data: bytes) -> bool:
    """Whether the content of a file is valid for its name."""
    kind, stem = name.partition("/")[0], name.rpartition("/")[2].removesuffix(".json")
    if kind == "objects":
        return digest(data) == stem
    if kind == "cells":
        return parse_entry(data, stem) is not None
    root = parse_root(data)
    return root is not None and root.digest == stem


def _add(file: BinaryIO, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    file.write(about.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK))


def _members(file: BinaryIO, path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of each file of a tar. Links, devices and extensions are refused."""
    end, at = os.fstat(file.fileno()).st_size, 0
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if block == bytes(BLOCK):
            return
        try:
            about = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.TarError, ValueError):
            raise StoreError(f"{path} cannot be imported: it is no tar file, or is cut short") from None
        if about.type != tarfile.REGTYPE or not 0 <= about.size <= end - at - BLOCK:
            what = "is cut short" if about.type == tarfile.REGTYPE else "is no plain file"
            raise StoreError(f"{path} cannot be imported: {about.name!r} {what}")
        yield about.name, at + BLOCK, about.size
        at += BLOCK + about.size + -about.size % BLOCK
