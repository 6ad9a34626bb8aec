"""A store in a folder of a local or shared file system.

A file is reached from the store's own folder one folder at a time, and no step follows a link: whatever stands in a
store, nothing outside it is read, listed, moved or removed. The store's own folder may be a link, or below one.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sublevel.engine.store.backend import File, holds, patient, patiently
from sublevel.engine.store.names import TMP

INSIDE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for a folder of the store, and for a file: neither a link, nor a pipe that nobody writes to."""

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

UNSYNCED = {errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that cannot fsync a folder at all; its names last without it, or nothing can make them."""


class Folder:
    """A file is written in ``tmp``, fsynced, and renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.where = str(self.path)

    @patient
    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self._opened(name) as handle:
            try:
                return _drained(handle)
            except (MemoryError, OverflowError):
                raise OSError(errno.EFBIG, "it does not fit into the memory", name) from None

    @patient
    def write(self, name: str, data: bytes) -> None:
        """Write beside, fsync, rename, fsync the folder."""
        beside = uuid.uuid4().hex
        with self._at(f"{TMP}{beside}", make=True) as (tmp, _):
            try:
                _fill(beside, tmp, data, sync=True)
                with self._at(name, make=True) as (folder, last):
                    os.replace(beside, last, src_dir_fd=tmp, dst_dir_fd=folder)
                    _fsync(folder)
            except OSError:
                with suppress(OSError):
                    os.unlink(beside, dir_fd=tmp)
                raise

    def create(self, name: str, data: bytes) -> bool:
        """Exclusive creation (O_EXCL); not fsynced: what it is for does not outlive a power cut.

        Where an attempt failed and the next finds the file, its content tells whether the first made it after all.
        """
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            with self._at(name, make=True) as (folder, last):
                try:
                    _fill(last, folder, data, sync=False)
                except FileExistsError:
                    return False
                except OSError:
                    with suppress(OSError):
                        os.unlink(last, dir_fd=folder)
                    raise
            return True

        made = patiently(attempt)
        return made or (attempts > 1 and holds(self, name, data))

    @patient
    def touch(self, name: str) -> None:
        """Set the modification time; without a time in the call it is the file server that says it."""
        with self._at(name) as (folder, last):
            os.utime(last, dir_fd=folder, follow_symlinks=False)

    @patient
    def move(self, name: str, to: str) -> None:
        """Rename."""
        with self._at(name) as (folder, last), self._at(to, make=True) as (other, new):
            os.replace(last, new, src_dir_fd=folder, dst_dir_fd=other)

    @patient
    def remove(self, name: str) -> None:
        """Unlink."""
        with suppress(FileNotFoundError), self._at(name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    @patient
    def look(self, name: str) -> File | None:
        """Opened, not only looked at: on NFS the attributes of a file that is opened are the server's."""
        try:
            with self._opened(name) as handle:
                found = os.fstat(handle)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return File(name, found.st_size, found.st_mtime)

    def files(self, prefix: str) -> Iterator[File]:
        """Walk the folder of the prefix; a file that vanishes meanwhile is left out, and so are links and pipes.

        OSError where the folder of the prefix is itself a link.
        """
        folder = prefix.rpartition("/")[0]
        for name, about in patiently(lambda: self._listed(folder)):
            if not name.startswith(prefix):
                continue
            if stat.S_ISDIR(about.st_mode):
                yield from self.files(f"{name}/")
            elif stat.S_ISREG(about.st_mode):
                yield File(name, about.st_size, about.st_mtime)

    def _listed(self, folder: str) -> list[tuple[str, os.stat_result]]:
        """Name in the store and status of what is in a folder, by name; nothing of a folder that is not there."""
        found = []
        try:
            with self._at(f"{folder}/." if folder else ".") as (at, _), os.scandir(at) as inside:
                for each in sorted(inside, key=lambda e: e.name):
                    with suppress(FileNotFoundError):
                        about = each.stat(follow_symlinks=False)
                        found.append((f"{folder}/{each.name}" if folder else each.name, about))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return found

    @patient
    def now(self) -> float:
        """Make a file and read its time."""
        name = f"{TMP}clock-{uuid.uuid4().hex}"
        try:
            with self._at(name, make=True) as (folder, last):
                _fill(last, folder, b"", sync=False)
                return os.stat(last, dir_fd=folder, follow_symlinks=False).st_mtime
        finally:
            with suppress(OSError):
                self.remove(name)

    @patient
    def occupied(self) -> bool:
        """Whether the folder has anything that the creation of a store does not leave behind, or is a file."""
        if self.path.is_dir():
            return any(p.name != TMP[:-1] for p in self.path.iterdir())
        return self.path.exists()

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A file of the store, to read. OSError for what is no plain file."""
        with self._at(name) as (folder, last):
            try:
                handle = os.open(last, PLAIN, dir_fd=folder)
            except OSError as error:
                raise _said(error, name, folder, last) from error
        try:
            kind = os.fstat(handle).st_mode
            if stat.S_ISDIR(kind):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
            if not stat.S_ISREG(kind):
                raise OSError(errno.EINVAL, "it is no plain file", name)
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _at(self, name: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """The folder that a file stands in, opened, and the file's name there; ``make`` what is missing on the way."""
        *steps, last = name.split("/")
        if "\0" in name or any(step in ("", ".", "..") for step in steps) or last in ("", ".."):
            raise OSError(errno.EINVAL, "it is no name of a file in a store", name)
        at = self._root(make)
        try:
            for i, step in enumerate(steps):
                try:
                    below = _step(step, at, make)
                except OSError as error:
                    raise _said(error, "/".join(steps[: i + 1]), at, step) from error
                os.close(at)
                at = below
            yield at, last
        finally:
            os.close(at)

    def _root(self, make: bool) -> int:
        try:
            return os.open(self.where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not make:
                raise
            _make(self.where)
            return os.open(self.where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _step(name: str, at: int, make: bool) -> int:
    """Open a folder in a folder; one that is made lasts, since its name is in its parent, which is fsynced."""
    try:
        return os.open(name, INSIDE, dir_fd=at)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=at)
        _fsync(at)
    return os.open(name, INSIDE, dir_fd=at)


def _said(error: OSError, name: str, at: int, last: str) -> OSError:
    """The error with the name of the file in the store, and a sentence where a link is in the way."""
    with suppress(OSError):
        if stat.S_ISLNK(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
            return OSError(errno.ELOOP, "it is a link, which nothing in a store may be", name)
    return OSError(error.errno, error.strerror, name)


def _drained(handle: int) -> bytes:
    """All bytes from here to the end."""
    parts = []
    while part := os.read(handle, os.fstat(handle).st_size + 1):
        parts.append(part)
    return b"".join(parts)


def _fill(name: str, folder: int, data: bytes, sync: bool) -> None:
    """Make a file that is not there yet."""
    handle = os.open(name, FRESH, 0o666, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def _make(folder: str) -> None:
    """Make the store's own folder and those above it, and let them last."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make(above)
    with suppress(FileExistsError):
        os.mkdir(folder)
    handle = os.open(above, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def _fsync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
