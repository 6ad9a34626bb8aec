"""Where a store's files are, and the few things that can be done with them.

Nothing here renames a file into place for its caller, lists before it writes, or locks: a folder has these operations,
and so has object storage with conditional writes. Names are relative and have slashes: ``cells/cd/cd34...json``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sublevel.errors import StoreError


@dataclass(frozen=True)
class File:
    """A file as a listing tells of it: size in bytes, time of the last change in seconds by the store's clock."""

    name: str
    size: int
    modified: float


class Backend(Protocol):
    """Files by name. Every operation raises OSError where it cannot be done."""

    where: str
    """The place, as messages name it."""

    def read(self, name: str) -> bytes:
        """The bytes of a file. FileNotFoundError if there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file: whole or absent at any moment, and there after a power cut once this returns."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Make a file if there is none of that name; whether it was made. Of several that try, one succeeds."""
        ...

    def touch(self, name: str) -> None:
        """Set the time of the last change to now. FileNotFoundError if there is no such file."""
        ...

    def move(self, name: str, to: str) -> None:
        """Give a file another name. FileNotFoundError if there is none."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def look(self, name: str) -> File | None:
        """What a listing would say of one file."""
        ...

    def files(self, prefix: str) -> Iterator[File]:
        """All files whose name begins so, in the order of their names within a folder."""
        ...

    def now(self) -> float:
        """The time by the clock that ``modified`` is told by: the file server's, not this machine's."""
        ...

    def occupied(self) -> bool:
        """Whether there is anything but files being written."""
        ...


@contextmanager
def refusing(what: str, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """What the operating system refuses becomes one sentence: ``cannot write to the store in ...: No space left``."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise StoreError(f"{what}: {error.strerror or error}") from error


class Folder:
    """A store in a folder of a local or shared file system. A file is written in ``tmp``, fsynced, and renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.where = str(self.path)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        path = self._at(name)
        try:
            return _read(path)
        except FileNotFoundError:
            with suppress(FileNotFoundError):  # on NFS, opening the folder asks the server what is in it now
                os.close(os.open(os.path.dirname(path), os.O_RDONLY))
            return _read(path)

    def write(self, name: str, data: bytes) -> None:
        """Write beside, fsync, rename, fsync the folder."""
        path, temporary = self._at(name), self._at(f"tmp/{uuid.uuid4().hex}")
        try:
            _fill(temporary, data)
            _make(os.path.dirname(path))
            os.replace(temporary, path)
            _fsync(os.path.dirname(path))
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def create(self, name: str, data: bytes) -> bool:
        """Exclusive creation (O_EXCL); not fsynced: what it is for does not outlive a power cut."""
        path = self._at(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            with open(handle, "wb") as file:
                file.write(data)
        except OSError:
            with suppress(OSError):
                os.unlink(path)
            raise
        return True

    def touch(self, name: str) -> None:
        """Set the modification time; without a time in the call it is the file server that says it."""
        os.utime(self._at(name))

    def move(self, name: str, to: str) -> None:
        """Rename."""
        os.makedirs(os.path.dirname(self._at(to)), exist_ok=True)
        os.replace(self._at(name), self._at(to))

    def remove(self, name: str) -> None:
        """Unlink."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(name))

    def look(self, name: str) -> File | None:
        """Opened, not only looked at: on NFS the attributes of a file that is opened are the server's."""
        try:
            with open(self._at(name), "rb") as file:
                found = os.fstat(file.fileno())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return File(name, found.st_size, found.st_mtime)

    def files(self, prefix: str) -> Iterator[File]:
        """Walk the folder of the prefix; a file that vanishes meanwhile is left out, and so are links."""
        folder = prefix.rpartition("/")[0]
        try:
            with os.scandir(self._at(folder)) as found:
                inside = sorted(found, key=lambda e: e.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for each in inside:
            name = f"{folder}/{each.name}" if folder else each.name
            if not name.startswith(prefix) or each.is_symlink():
                continue
            if each.is_dir():
                yield from self.files(f"{name}/")
                continue
            with suppress(FileNotFoundError):
                about = each.stat()
                yield File(name, about.st_size, about.st_mtime)

    def now(self) -> float:
        """Make a file and read its time."""
        name = f"tmp/clock-{uuid.uuid4().hex}"
        self.create(name, b"")
        try:
            return os.stat(self._at(name)).st_mtime
        finally:
            self.remove(name)

    def occupied(self) -> bool:
        """Whether the folder has anything that the creation of a store does not leave behind, or is a file."""
        if self.path.is_dir():
            return any(p.name != "tmp" for p in self.path.iterdir())
        return self.path.exists()

    def _at(self, name: str) -> str:
        return f"{self.where}/{name}"


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _fill(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make(folder: str) -> None:
    """Make a folder that lasts: its name is in its parent, which is fsynced too."""
    if os.path.isdir(folder):
        return
    _make(os.path.dirname(folder))
    with suppress(FileExistsError):
        os.mkdir(folder)
    _fsync(os.path.dirname(folder))


def _fsync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
