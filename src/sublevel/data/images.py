"""Image files as bytes and as pixels: walking a folder or an archive, and decoding one file at a time."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sublevel.data.cache import file_hash
from sublevel.errors import DataError

Pixels = np.ndarray
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, RuntimeError)


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

    An archive is read once from front to back and only its regular files are looked at: links, devices,
    absolute paths and paths with ``..`` are passed over, and nothing is written. Raises `DataError` for a
    damaged archive.
    """
    if root.is_dir():
        for name, path in _walk(root):
            yield name, path.read_bytes()
        return
    try:
        with root.open("rb") as file:
            start = file.read(6)
        yield from _zip(root) if start[:4] == b"PK\x03\x04" else _tar(root, start)
    except _DAMAGE as problem:
        raise DataError(f"{root} cannot be read as a tar or zip archive: {problem}") from problem


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    wanted = image_suffixes()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if _is_image(name, wanted) and path.is_file():
                yield name, path


def _tar(root: Path, start: bytes) -> Iterator[tuple[str, bytes]]:
    wanted = image_suffixes()
    with ExitStack() as stack:
        opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), open)
        plain: IO[bytes] = stack.enter_context(opener(root, "rb"))
        archive = stack.enter_context(tarfile.open(fileobj=plain, mode="r|"))
        for member in archive:
            if member.isreg() and _is_image(member.name, wanted):
                yield _plain(member.name), archive.extractfile(member).read()  # type: ignore[union-attr]
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise


def _zip(root: Path) -> Iterator[tuple[str, bytes]]:
    wanted = image_suffixes()
    with zipfile.ZipFile(root) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind in (0, stat.S_IFREG) and not member.is_dir() and _is_image(member.filename, wanted):
                yield _plain(member.filename), archive.read(member)


def _plain(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _is_image(name: str, wanted: frozenset[str]) -> bool:
    parts = name.removeprefix("./").split("/")
    if parts[0] == "" or any(part.startswith((".", "__MACOSX")) for part in parts):  # absolute, .. or hidden
        return False
    return os.path.splitext(name)[1].lower() in wanted


def image_suffixes() -> frozenset[str]:
    """The file name endings that Pillow can open, in lower case with their dot."""
    from PIL import Image

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def decode(content: bytes, name: str, channels: int | None, size: int | None) -> Pixels:
    """Pixels of one image file: uint8 ``[H, W]`` if grey, ``[H, W, 3]`` if colour.

    ``channels`` 1 or 3 converts; None keeps what the file has. ``size`` resizes to ``size x size``, bilinear.
    16-bit grey images keep their upper 8 bits. Raises `DataError` with the name of a file that cannot be
    read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_formats(PurePosixPath(name).suffix.lower())) as file:
            image = _eight_bit(file)
            mode = {1: "L", 3: "RGB", None: "L" if image.mode in ("1", "L", "LA", "La") else "RGB"}[channels]
            image = image if image.mode == mode else image.convert(mode)
            if size is not None and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except Exception as problem:  # the decoders of Pillow raise many kinds: OSError, SyntaxError, struct.error, ...
        raise DataError(f"image {name} cannot be read: {problem}") from problem


@lru_cache
def _formats(suffix: str) -> list[str]:
    """All formats, that of the file name's ending first: trying others takes longer than decoding."""
    from PIL import Image

    first = Image.registered_extensions().get(suffix)
    return sorted(Image.OPEN, key=lambda kind: kind != first)


def _eight_bit(image: Any) -> Any:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("it has 32-bit float pixels; allowed: 8-bit and 16-bit images")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def stack(names: list[str], pixels: list[Pixels]) -> Tensor:
    """One uint8 tensor ``[N, C, H, W]`` of decoded images; C is 3 if any is in colour. Empties ``pixels`` as
    it goes.

    Raises `DataError` with two file names when the sizes differ.
    """
    first = pixels[0].shape[:2]
    for name, image in zip(names, pixels, strict=True):
        if image.shape[:2] != first:
            raise DataError(
                f"images are of unequal sizes (height x width): {names[0]} is {first[0]} x {first[1]}, "
                f"{name} is {image.shape[0]} x {image.shape[1]}; data.options.size=32 resizes all to 32 x 32"
            )
    channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    out = np.empty((len(pixels), channels, *first), np.uint8)
    for i in reversed(range(len(out))):
        image = pixels.pop()
        out[i] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(out)
