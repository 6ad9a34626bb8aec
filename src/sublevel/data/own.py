"""Data of a user's own, given in Python.

A pair of tensors or arrays, a map-style Dataset of such pairs, or an iterable of batches such as a DataLoader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sublevel.data.sources import Dataset, check
from sublevel.errors import DataError

Samples = tuple[Tensor, Tensor]


def dataset(train: Any, test: Any) -> Dataset:
    """The data as a data set, read twice where reading could differ. Raises DataError for what is none."""
    (train_x, train_y), (test_x, test_y) = _read(train, "train"), _read(test, "test")
    labels = torch.cat([train_y.reshape(-1), test_y.reshape(-1)])
    if not len(train_y) or not len(test_y):
        raise DataError(f"own data: {len(train_y)} training and {len(test_y)} test examples; at least one of each")
    classes = () if labels.is_floating_point() else tuple(str(i) for i in range(int(labels.max()) + 1))
    read = Dataset("own", train_x, train_y, test_x, test_y, classes, "tensors given in Python")
    return check(read)


def _read(source: Any, split: str) -> Samples:
    if isinstance(source, tuple) and len(source) == 2 and all(isinstance(t, Tensor | np.ndarray) for t in source):
        try:
            return _typed(*map(torch.as_tensor, source))
        except TypeError as error:
            raise DataError(f"{split} data must be numbers: {error}") from error
    read = _reader(source, split)
    try:
        first, second = read(source), read(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{split} data must give pairs (input, label), all of one shape: {error}") from error
    if len(first[0]) != len(second[0]):
        raise DataError(
            f"two readings of the {split} data differ: {len(first[0])} examples, then {len(second[0])}; "
            "an iterable must give all its examples every time"
        )
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise DataError(
            f"two readings of the {split} data differ: take shuffling and random augmentation out of it "
            "(the data order is the study's own, train.crop and train.flip augment)"
        )
    return _typed(*first)


def _reader(source: Any, split: str) -> Callable[[Any], Samples]:
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _stack
    if hasattr(source, "__iter__") and not hasattr(source, "__next__"):
        return _joined
    once = " that can be read once" if hasattr(source, "__next__") else ""
    raise DataError(
        f"{split} data must be a pair of tensors or arrays, a map-style Dataset, or an iterable of batches that can be "
        f"read again, such as a DataLoader; got {type(source).__name__}{once}"
    )


def _joined(source: Any) -> Samples:
    batches = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in source]
    if not batches:
        raise ValueError("there is no batch")
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _stack(source: Any) -> Samples:
    pairs = [source[i] for i in range(len(source))]
    return torch.stack([torch.as_tensor(x) for x, _ in pairs]), torch.stack([torch.as_tensor(y) for _, y in pairs])


def _typed(x: Tensor, y: Tensor) -> Samples:
    return (x if x.dtype == torch.uint8 else x.float()), (y.float() if y.is_floating_point() else y.long())


def tensors(dataset: Dataset) -> dict[str, Tensor]:
    """The data by name, as they are stored for other processes."""
    return {name: getattr(dataset, name).contiguous() for name in ("train_x", "train_y", "test_x", "test_y")}
