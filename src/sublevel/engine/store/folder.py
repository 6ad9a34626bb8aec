"""A store in a folder of a local or shared file system.

Paths are opened one folder at a time from the store's root, without following links. So no link inside a store leads to
a file outside it being read, listed, moved or removed. The root itself may be a link, or below one.
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
from sublevel.engine.store.names import TMP, check_length

INSIDE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags to open a folder or a file of the store: links and pipes are refused."""

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

UNSYNCED = {errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems that cannot fsync a folder at all; there is nothing else to do."""


class Folder:
    """The files below a folder. A file is written in ``tmp``, fsynced, and renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.where = str(self.path)

    @patient
    def read(self, name: str) -> bytes:
        """The bytes of a file. OSError if it is a document that is too large to be one."""
        parts = []
        with self._opened(name) as handle:
            check_length(name, os.fstat(handle).st_size)
            try:
                while part := os.read(handle, os.fstat(handle).st_size + 1):
                    parts.append(part)
                return b"".join(parts)
            except (MemoryError, OverflowError):
                raise OSError(errno.EFBIG, "it does not fit into the memory", name) from None

    @patient
    def write(self, name: str, data: bytes) -> None:
        """Write a temporary file, fsync it, rename it, fsync the folder."""
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
        """Exclusive creation (O_EXCL), without fsync: leases need not survive a power cut.

        If an attempt failed and the next one finds the file, its content shows whether the first attempt created it.
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
        """Set the modification time to the file server's now, by passing no time."""
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
        """Open the file to stat it: on NFS this fetches the server's attributes instead of cached ones."""
        try:
            with self._opened(name) as handle:
                found = os.fstat(handle)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return File(name, found.st_size, found.st_mtime)

    def files(self, prefix: str) -> Iterator[File]:
        """Walk the folder of the prefix. Skip links, pipes, and files that vanish meanwhile.

        OSError if the folder of the prefix is a link.
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
        """Name and status of everything in a folder, sorted; empty if the folder is missing."""
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
        """Create a file and read its time."""
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
        """Whether the path is a file, or a folder with anything but ``tmp`` in it."""
        if self.path.is_dir():
            return any(p.name != TMP[:-1] for p in self.path.iterdir())
        return self.path.exists()

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """Open a file to read it. OSError unless it is a regular file."""
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
        """Open the folder of a file; yield its descriptor and the file's base name. ``make`` missing folders."""
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
    """Open a subfolder; create it if asked, and fsync the parent so that it survives a power cut."""
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
    """The error with the file's name in the store, and a clear message if a link is in the way."""
    with suppress(OSError):
        if stat.S_ISLNK(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
            return OSError(errno.ELOOP, "it is a link, which nothing in a store may be", name)
    return OSError(error.errno, error.strerror, name)


def _fill(name: str, folder: int, data: bytes, sync: bool) -> None:
    """Create a file, which must not exist yet."""
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
    """Create the store's root and its parents, and fsync each parent."""
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
