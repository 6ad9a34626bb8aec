"""Token shards: long sequences of tokens in ``.bin`` or ``.npy`` files, as windows for a language model.

A folder holds ``train*.bin`` and ``test*.bin`` (or ``val*.bin``), or the same names with ``.npy``: one-dimensional
arrays of uint16 or uint32 tokens, as nanoGPT writes them. A header of 1,024 bytes, as llm.c writes it, is skipped. Each
file is cut into windows of ``length`` tokens; the label of a token is the next one. The files are memory-mapped, so
windows are read when they are needed. Only the labels of the chosen windows are in memory, 8 bytes for each token.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sublevel.data.sources import CLASSES, Dataset, source
from sublevel.data.streamed import Streamed
from sublevel.errors import ConfigError, DataError

KINDS = {"uint16": np.uint16, "uint32": np.uint32}
HEADER = 256
"""Numbers (int32) in a header of llm.c, the first of which is a key of `MAGIC`."""

MAGIC = {20240520: "uint16", 20240801: "uint32"}


@source("tokens")
def tokens(
    root: Path | None, *, length: int = 256, vocabulary: int | None = None, windows: int | None = None,
    dtype: str = "uint16",
) -> Dataset:  # fmt: skip
    """Read windows of ``length`` tokens from the shards in the folder ``root`` (see the module).

    ``vocabulary`` is the number of different tokens (default: the largest one in the chosen windows, plus 1).
    ``windows`` is the number of windows of each split, evenly spaced over its files (default: all). ``dtype``
    is that of ``.bin`` files without a header. Raises DataError for missing, damaged or short files, and for tokens
    outside the vocabulary.
    """
    if root is None or not root.is_dir():
        raise DataError(f"data source 'tokens': data.root must be a folder of .bin or .npy files, got {root}")
    for name, value in (("length", length), ("vocabulary", vocabulary), ("windows", windows)):
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"data.options.{name} is {value!r}; it must be a whole number of at least 1")
    if dtype not in KINDS:
        raise ConfigError(f"data.options.dtype is {dtype!r}; allowed: {', '.join(KINDS)}")
    train, test = (_files(root, names) for names in (("train",), ("test", "val")))
    parts = [_windows([_mapped(path, dtype) for path in files], length, windows, files) for files in (train, test)]
    (train_x, train_y), (test_x, test_y) = parts
    largest = 1 + max(int(max(y.max(), _largest(x))) for x, y in parts)
    if largest > (vocabulary or CLASSES):
        where = "data.options.vocabulary" if vocabulary else f"at most {CLASSES:,}; is data.options.dtype right?"
        raise DataError(f"{root} holds the token {largest - 1}; allowed: 0..{(vocabulary or CLASSES) - 1} ({where})")
    classes = tuple(map(str, range(vocabulary or largest)))
    origin = f"{len(train) + len(test)} token shards of the folder {root.name}, in windows of {length}"
    return Dataset("tokens", train_x, train_y, test_x, test_y, classes, origin)


def _files(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The shards of a split: those of the first name and suffix that has any."""
    for name in names:
        for suffix in (".bin", ".npy"):
            if found := sorted(root.glob(f"{name}*{suffix}")):
                return found
    raise DataError(f"{root} has no {' or '.join(f'{name}*.bin, {name}*.npy' for name in names)}")


def _mapped(path: Path, dtype: str) -> np.ndarray:
    """The tokens of a file, memory-mapped."""
    try:
        if path.suffix == ".npy":
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if found.ndim != 1 or found.dtype not in (np.uint16, np.uint32, np.int32, np.int64):
                raise ValueError(f"it holds {found.dtype} {list(found.shape)}; allowed: uint16 or uint32 [tokens]")
            return found
        start = np.fromfile(path, np.int32, 2)
        kind = MAGIC.get(int(start[0])) if len(start) else None
        size = path.stat().st_size - (4 * HEADER if kind else 0)
        width = np.dtype(KINDS[kind or dtype]).itemsize
        if size <= 0 or size % width:
            raise ValueError(f"its {size} bytes are no whole number of {kind or dtype} tokens")
        return np.memmap(path, KINDS[kind or dtype], "r", offset=4 * HEADER if kind else 0)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as tokens: {error}") from error


def _windows(arrays: list[np.ndarray], length: int, windows: int | None, files: list[Path]) -> tuple[Streamed, Tensor]:
    """The windows [N, T] of the files, read on demand, and their labels [N, T]."""
    counts = [max(0, (len(array) - 1) // length) for array in arrays]
    if not sum(counts):
        raise DataError(f"{files[0]} has {len(arrays[0])} tokens; a window of {length} needs {length + 1}")
    cut = [(array, n) for array, n in zip(arrays, counts, strict=True) if n]
    last, chosen = sum(counts) - 1, None
    if windows is not None and windows <= last:
        chosen = torch.linspace(0, last, windows, dtype=torch.float64).round().long().unique().numpy()
    x, y = (
        Streamed([array[i : n * length + i].reshape(n, length) for array, n in cut], chosen, dtype=torch.int64)
        for i in (0, 1)
    )
    return x, y[:]


def _largest(x: Streamed) -> int:
    """The largest token; all but the first of a window are labels too."""
    return max(int(x[begin : begin + 4096][:, 0].max()) for begin in range(0, len(x), 4096))
