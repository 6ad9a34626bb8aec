"""Image files of a folder, or of a tar or zip, by name and as bytes. Nothing is written, and nothing is run.

What a folder or an archive holds may come from anybody: every name is checked, a folder is entered once, and what is
unpacked is bounded (see `sublevel.data.bounds`).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sublevel.cache import file_hash
from sublevel.data.bounds import LARGEST_FILE, Allowance, Counted, whole
from sublevel.data.images import is_image
from sublevel.errors import DataError

_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_LARGEST_HEADER = 2**20
"""Bytes of a tar header that is itself stored as a file: a long name, or the attributes of POSIX."""


def listing_digest(root: Path) -> str:
    """The identity of the content: sha256 of an archive; of the names, sizes and times in a folder."""
    if root.is_file():
        return file_hash(root, "sha256")
    digest = hashlib.sha256()
    for name, path in _walk(root):
        status = path.stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(relative path, bytes)`` of every image file under the folder, or in the tar or zip, ``root``.

    Links in a folder are followed, and each folder is entered once: DataError where two paths lead to one folder. An
    archive is read once from front to back and only its regular files are looked at: links, devices, absolute paths
    and paths with ``..`` are passed over. Raises `DataError` for a damaged archive, a compression bomb, and a name that
    is not UTF-8.
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
    """Names and paths of the image files of a folder, with every real folder entered once."""
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
    """Note a folder. DataError if it was entered by another path, or if it is a link to a folder around ``root``."""
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
        archive = stack.enter_context(tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member))
        for member in archive:
            if member.isreg() and is_image(member.name):
                yield _checked(_plain(member.name), root), _read(archive.extractfile(member), member.name, member.size)
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise


class _Member(tarfile.TarInfo):
    """A header, which is refused where it is a bomb itself."""

    def _proc_member(self, archive: Any) -> Any:
        stored = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in (*stored, tarfile.SOLARIS_XHDTYPE) and self.size > _LARGEST_HEADER:
            raise ValueError(f"a header has {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _zip(root: Path) -> Iterator[tuple[str, bytes]]:
    allowance = Allowance(root.stat().st_size)
    with zipfile.ZipFile(root) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind in (0, stat.S_IFREG) and not member.is_dir() and is_image(member.filename):
                allowance.take(min(member.file_size, LARGEST_FILE))
                with archive.open(member) as file:
                    yield (
                        _checked(_plain(member.filename), root),
                        _read(file, member.filename, member.file_size),
                    )


def _read(file: IO[bytes] | None, name: str, size: int) -> bytes:
    """A member's bytes; what its header says of its size, sparse or not, is held to the bound before."""
    if file is None or size > LARGEST_FILE:
        raise ValueError(f"{name} has {size:,} bytes; an image has at most {LARGEST_FILE:,}")
    return whole(file, name)


def _plain(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _checked(name: str, root: Path) -> str:
    """The name, which becomes that of a class. DataError where it cannot be written in a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"the name {name!r} in {root} is not UTF-8: rename it") from None
    return name
