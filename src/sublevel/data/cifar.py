"""CIFAR-10 and CIFAR-100 from the original binary archives (Krizhevsky 2009).

A record is one label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then 3,072 bytes in channel, row,
column order. The archive is read member by member in memory, without extracting files or opening pickles.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from sublevel.cache import file_hash
from sublevel.data.download import Remote, obtain
from sublevel.data.sources import Dataset, source
from sublevel.errors import DataError

_HOME = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Release:
    """The contents of an archive: folder, record files, file of class names, label bytes per record."""

    name: str
    remote: Remote
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    label_bytes: int

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is read."""
        return (*self.train, *self.test, self.meta)


def _remote(file: str, md5: str) -> Remote:
    return Remote(file, (_HOME + file,), md5)


CIFAR10 = Release(
    name="cifar10",
    remote=_remote("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    meta="batches.meta.txt",
    label_bytes=1,
)
CIFAR100 = Release(
    name="cifar100",
    remote=_remote("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    meta="fine_label_names.txt",
    label_bytes=2,
)


@source("cifar10")
def cifar10(root: Path | None) -> Dataset:
    """CIFAR-10, 50,000 + 10,000 colour images of 32 x 32 in 10 classes."""
    return _read(CIFAR10, root)


@source("cifar100")
def cifar100(root: Path | None) -> Dataset:
    """CIFAR-100, 50,000 + 10,000 colour images of 32 x 32, with the 100 fine labels."""
    return _read(CIFAR100, root)


def _read(release: Release, root: Path | None) -> Dataset:
    if root is not None and root.is_file():
        return read_archive(release, root, release.remote.md5)
    for folder in [root / release.folder, root] if root is not None else []:
        if (folder / release.train[0]).is_file():
            return read_folder(release, folder)
    return read_archive(release, obtain(release.remote, release.name, root), release.remote.md5)


def read_folder(release: Release, folder: Path) -> Dataset:
    """The data set in an extracted folder. Raises `DataError` for a missing or truncated file."""
    missing = [name for name in release.files if not (folder / name).is_file()]
    if missing:
        raise DataError(_incomplete(release, str(folder), missing))
    contents = {name: (folder / name).read_bytes() for name in release.files}
    return _assemble(release, contents, str(folder), f"{release.name}, extracted folder {release.folder}")


def read_archive(release: Release, path: Path, md5: str) -> Dataset:
    """The data set in the archive ``path``. Raises `DataError` if its md5 is not ``md5``."""
    got = file_hash(path, "md5")
    if got != md5:
        raise DataError(
            f"{path} is not the original {release.remote.file}: expected md5 {md5}, got {got} "
            f"({path.stat().st_size:,} bytes); it is at {release.remote.urls[0]}"
        )
    contents = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isreg() and name in release.files:
                    contents[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{path} cannot be read as a gzip-compressed tar: {problem}") from problem
    missing = [name for name in release.files if name not in contents]
    if missing:
        raise DataError(_incomplete(release, str(path), missing))
    return _assemble(release, contents, str(path), f"{release.name}, {release.remote.file}, md5 {md5}")


def _incomplete(release: Release, where: str, missing: list[str]) -> str:
    return (
        f"{where} has no {', '.join(missing)}; {release.name} needs {', '.join(release.files)}, "
        f"which are in {release.remote.urls[0]} (md5 {release.remote.md5})"
    )


def _assemble(release: Release, contents: dict[str, bytes], where: str, origin: str) -> Dataset:
    classes = tuple(line.strip() for line in contents[release.meta].decode().splitlines() if line.strip())
    train_x, train_y = _records(release, contents, release.train, where)
    test_x, test_y = _records(release, contents, release.test, where)
    return Dataset(release.name, train_x, train_y, test_x, test_y, classes, origin)


def _records(release: Release, contents: dict[str, bytes], names: tuple[str, ...], where: str) -> tuple[Tensor, Tensor]:
    size = release.label_bytes + _PIXELS
    for name in names:
        if len(contents[name]) % size or not contents[name]:
            raise DataError(f"{name} in {where} has {len(contents[name]):,} bytes; expected a multiple of {size:,}")
    rows = [np.frombuffer(contents[name], np.uint8).reshape(-1, size) for name in names]
    x = np.concatenate([r[:, release.label_bytes :] for r in rows]).reshape(-1, 3, 32, 32)
    y = np.concatenate([r[:, release.label_bytes - 1] for r in rows]).astype(np.int64)
    return torch.from_numpy(x), torch.from_numpy(y)
