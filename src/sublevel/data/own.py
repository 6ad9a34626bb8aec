"""Data of a user's own, given in Python: a pair of tensors or arrays, or a map-style Dataset of such pairs."""

from __future__ import annotations

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
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        raise DataError(
            f"{split} data must be a pair of tensors or arrays, or a map-style Dataset, got {type(source).__name__}"
        )
    try:
        first, second = _stack(source), _stack(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{split} data must give pairs (input, label), all of one shape: {error}") from error
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise DataError(
            f"two readings of the {split} Dataset differ: take random augmentation out of it "
            "(train.crop and train.flip do it)"
        )
    return _typed(*first)


def _stack(source: Any) -> Samples:
    pairs = [source[i] for i in range(len(source))]
    return torch.stack([torch.as_tensor(x) for x, _ in pairs]), torch.stack([torch.as_tensor(y) for _, y in pairs])


def _typed(x: Tensor, y: Tensor) -> Samples:
    return (x if x.dtype == torch.uint8 else x.float()), (y.float() if y.is_floating_point() else y.long())


def tensors(dataset: Dataset) -> dict[str, Tensor]:
    """The data by name, as they are stored for other processes."""
    return {name: getattr(dataset, name).contiguous() for name in ("train_x", "train_y", "test_x", "test_y")}
