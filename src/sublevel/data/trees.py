"""Read the image files of a folder, a tar or a zip, as names and bytes. Nothing is written or executed.

Folders and archives are untrusted: every name is checked, each folder is entered once, and the unpacked size is limited
(see `sublevel.data.bounds`).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sublevel.cache import file_hash
from sublevel.data.bounds import LARGEST_FILE, Allowance, Counted, whole
from sublevel.data.images import is_image
from sublevel.errors import DataError
from sublevel.foreign import opened_zip

_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_LARGEST_HEADER = 2**20
"""Maximum bytes of a tar header stored as a member: a long name, or POSIX attributes."""

_OTHERS = 2**17
"""Maximum members of a tar that are no images, such as folders, and parts of headers; `_EACH` more for each image.

Each costs some 30 microseconds to read and may compress to two bytes.
"""

_EACH = 8
_PART = 128
"""Bytes of a header stored as a member that count as a member: it may hold 25 attributes."""


def listing_digest(root: Path) -> str:
    """A digest of the content: sha256 of an archive, or of the names, sizes and times in a folder."""
    if root.is_file():
        return file_hash(root, "sha256")
    digest = hashlib.sha256()
    for name, path in _walk(root):
        status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(relative path, bytes)`` of every image file under the folder, or in the tar or zip, ``root``.

    Links in a folder are followed; if two paths lead to one folder, a DataError is raised. An archive is read once from
    front to back. Only its regular files are read: links, devices, absolute paths and paths with ``..`` are skipped.
    Raises `DataError` for a damaged archive, a compression bomb, and a name that is not UTF-8.
    """
    if root.is_dir():
        yield from _folder(root)
        return
    try:
        with root.open("rb") as file:
            start = file.read(6)
        yield from _zip(root) if start[:4] == b"PK\x03\x04" else _tar(root, start)
    except DataError:
        raise
    except Exception as problem:  # a damaged archive fails in many ways: zlib.error, struct.error, MemoryError, ...
        why = str(problem) or type(problem).__name__
        raise DataError(f"{root} cannot be read as a tar or zip archive: {why}") from problem


def _folder(root: Path) -> Iterator[tuple[str, bytes]]:
    for name, path in _walk(root):
        try:
            with path.open("rb") as file:
                yield _checked(name, root), whole(file, name)
        except (OSError, ValueError) as problem:
            raise DataError(f"image {name} in {root} cannot be read: {problem}") from problem


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the image files of a folder; enters every real folder once."""
    seen: dict[tuple[int, int], str] = {}
    for here, folders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        _enter(Path(here), root, seen)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for file in sorted(files):
            path = Path(here, file)
            name = path.relative_to(root).as_posix()
            if is_image(name) and path.is_file():
                yield name, path


def _enter(folder: Path, root: Path, seen: dict[tuple[int, int], str]) -> None:
    """Record a folder. Raises DataError if another path led to it, or if it is a link to a parent of ``root``."""
    status = folder.stat()
    name = folder.relative_to(root).as_posix()
    before = seen.setdefault((status.st_dev, status.st_ino), name)
    around = folder != root and os.path.realpath(root).startswith(os.path.join(os.path.realpath(folder), ""))
    if before != name or around:
        other = "a folder that holds the whole tree" if around else repr(before)
        raise DataError(
            f"{name!r} in {root} is a link to {other}: its images would count more than once; remove the link"
        )


def _unreadable(error: OSError) -> None:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def _tar(root: Path, start: bytes) -> Iterator[tuple[str, bytes]]:
    allowance = Allowance(root.stat().st_size)
    with ExitStack() as stack:
        opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), open)
        plain: Any = Counted(stack.enter_context(opener(root, "rb")), allowance.take)
        archive = stack.enter_context(_Tar.open(fileobj=plain, mode="r|"))
        for member in archive:
            if member.isreg() and is_image(member.name):
                archive.others -= _EACH
                yield _checked(_plain(member.name), root), _read(archive.extractfile(member), member.name, member.size)
            else:
                archive.count(1)
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise


class _Member(tarfile.TarInfo):
    """A tar header. A header stored as a member, such as a long name, counts by its size."""

    def _proc_member(self, archive: Any) -> Any:
        stored = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in (*stored, tarfile.SOLARIS_XHDTYPE):
            if self.size > _LARGEST_HEADER:
                raise ValueError(f"a header has {self.size:,} bytes")
            archive.count(self.size // _PART)
        return super()._proc_member(archive)  # type: ignore[misc]


class _Tar(tarfile.TarFile):
    """A tar that counts its members. ValueError for too many (`_OTHERS`) that are no images."""

    tarinfo = _Member
    others = 0

    def count(self, n: int) -> None:
        """Count ``n`` more members."""
        self.others += n
        if self.others > _OTHERS:
            raise ValueError(f"it has more than {_OTHERS:,} members and headers that are no images")


def _zip(root: Path) -> Iterator[tuple[str, bytes]]:
    allowance = Allowance(root.stat().st_size)
    with opened_zip(root) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind in (0, stat.S_IFREG) and not member.is_dir() and is_image(member.filename):
                allowance.take(min(member.file_size, LARGEST_FILE))
                name = _checked(_plain(member.filename), root)
                with archive.open(member) as file:
                    yield name, _read(file, member.filename, member.file_size)


def _read(file: IO[bytes] | None, name: str, size: int) -> bytes:
    """A member's bytes, after checking the size in its header, sparse or not."""
    if file is None or size > LARGEST_FILE:
        raise ValueError(f"{name} has {size:,} bytes; an image has at most {LARGEST_FILE:,}")
    return whole(file, name)


def _plain(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _checked(name: str, root: Path) -> str:
    """Check a name, which becomes a class name. Raises DataError if it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"the name {name!r} in {root} is not UTF-8: rename it") from None
    return name
