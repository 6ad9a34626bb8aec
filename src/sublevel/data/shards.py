"""Data larger than memory: arrays in ``.npy`` files, read row by row on demand.

A folder holds ``train_x-*.npy``, ``train_y-*.npy``, ``test_x-*.npy`` and ``test_y-*.npy``; the shards of an array are
concatenated in the order of their names. Labels are read completely. The files are memory-mapped, so the operating
system caches recent rows and frees them when it needs the memory.

Training in a random order of examples reads the disk in random order, which is slow on a hard disk or a file server.
`Recipe.block` plans an order of long runs (see `sublevel.data.batches.epoch_plan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sublevel.data.bounds import check_fits
from sublevel.data.sources import Dataset, integers, numbered, source
from sublevel.data.streamed import Streamed
from sublevel.errors import DataError

SAMPLES = (np.uint8, np.float32, np.int64)
LABELS = (np.uint8, np.int32, np.int64, np.float32)


@source("shards")
def shards(root: Path | None, *, classes: Sequence[str] | None = None) -> Dataset:
    """Read the arrays of the folder ``root`` on demand (see the module).

    Samples are uint8 ``[N, C, H, W]``, float32 of any shape or int64 tokens ``[N, T]``; labels integers ``[N]`` or
    float32 targets. ``classes`` names the labels. Raises DataError for a missing array, shards that differ in type or
    shape, or unreadable files.
    """
    if root is None or not root.is_dir():
        raise DataError(f"data source 'shards': data.root must be a folder of .npy files, got {root}")
    x = {split: Streamed(_arrays(root, f"{split}_x", SAMPLES)) for split in ("train", "test")}
    labels = {split: np.concatenate(_arrays(root, f"{split}_y", LABELS)) for split in ("train", "test")}
    y = {split: integers(torch.from_numpy(each)) for split, each in labels.items()}
    names = numbered(*y.values(), names=classes)
    count = sum(1 for _ in root.glob("*.npy"))
    return Dataset(
        "shards", x["train"], y["train"], x["test"], y["test"], names, f"{count} shards of the folder {root.name}"
    )


def _arrays(root: Path, name: str, allowed: Sequence[type]) -> list[np.ndarray]:
    paths = sorted(root.glob(f"{name}-*.npy"))
    if not paths:
        raise DataError(f"{root} has no {name}-*.npy")
    found = [_mapped(path, allowed) for path in paths]
    for path, array in zip(paths, found, strict=True):
        if array.dtype != found[0].dtype or array.shape[1:] != found[0].shape[1:]:
            raise DataError(
                f"{path} holds {array.dtype} {list(array.shape[1:])}, {paths[0].name} holds {found[0].dtype} "
                f"{list(found[0].shape[1:])}; all shards of an array are alike"
            )
    try:  # labels as int64, with a copy; of examples their rows, and the order of an epoch
        check_fits(16 * sum(array.size if name.endswith("_y") else len(array) for array in found))
    except ValueError as problem:
        raise DataError(f"{name}-*.npy in {root} cannot be read: {problem}") from problem
    return found


def _mapped(path: Path, allowed: Sequence[type]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as problem:  # an untrusted header fails in many ways
        raise DataError(f"{path} cannot be read as .npy: {problem or type(problem).__name__}") from problem
    if array.dtype not in allowed or array.ndim < 1:
        names = ", ".join(kind.__name__ for kind in allowed)
        raise DataError(f"{path} holds {array.dtype} {list(array.shape)}; allowed: {names}")
    return array
