"""Data of a user's own, given in Python.

A pair of tensors or arrays, a map-style Dataset of such pairs, or an iterable of batches such as a DataLoader. What a
network takes as several inputs is a tuple or a dict in place of the one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sublevel.data.packing import pack
from sublevel.data.sources import Dataset, check, numbered
from sublevel.errors import DataError
from sublevel.inputs import Inputs, each, tensors_of

Samples = tuple[Inputs, Tensor]


def dataset(train: Any, test: Any) -> Dataset:
    """The data as a data set, read twice where reading could differ. Raises DataError for what is none."""
    (train_x, train_y), (test_x, test_y) = _read(train, "train"), _read(test, "test")
    if not len(train_y) or not len(test_y):
        raise DataError(f"own data: {len(train_y)} training and {len(test_y)} test examples; at least one of each")
    return joined("own", (train_x, train_y), (test_x, test_y), numbered(train_y, test_y), "tensors given in Python")


def joined(name: str, train: Samples, test: Samples, classes: Sequence[str], origin: str) -> Dataset:
    """The two parts as one checked data set; several inputs are packed."""
    (train_x, layout), (test_x, other) = pack(train[0]), pack(test[0])
    if layout != other:
        raise DataError(
            f"train inputs are {layout or 'one tensor'}, test inputs {other or 'one tensor'}; must be alike"
        )
    return check(Dataset(name, train_x, train[1], test_x, test[1], tuple(classes), origin, layout))


def _read(source: Any, split: str) -> Samples:
    if isinstance(source, tuple) and len(source) == 2 and _is_array(source[1]) and _are_arrays(source[0]):
        try:
            return _typed(_inputs(source[0]), torch.as_tensor(source[1]))
        except TypeError as error:
            raise DataError(f"{split} data must be numbers: {error}") from error
    read = _reader(source, split)
    try:
        first, second = read(source), read(source)
    except Exception as error:  # the source is code of the user's own
        kind = "" if isinstance(error, TypeError | ValueError | RuntimeError) else f"{type(error).__name__}: "
        raise DataError(f"{split} data must give pairs (input, label), all of one shape: {kind}{error}") from error
    if len(first[1]) != len(second[1]):
        raise DataError(
            f"two readings of the {split} data differ: {len(first[1])} examples, then {len(second[1])}; "
            "an iterable must give all its examples every time"
        )
    pairs = zip([*tensors_of(first[0]), first[1]], [*tensors_of(second[0]), second[1]], strict=True)
    if not all(_same(a, b) for a, b in pairs):
        raise DataError(
            f"two readings of the {split} data differ: take shuffling and random augmentation out of it "
            "(the data order is the study's own, train.crop and train.flip augment)"
        )
    return _typed(*first)


def _reader(source: Any, split: str) -> Callable[[Any], Samples]:
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _stack
    if hasattr(source, "__iter__") and not hasattr(source, "__next__"):
        return _join
    once = " that can be read once" if hasattr(source, "__next__") else ""
    raise DataError(
        f"{split} data must be a pair of tensors or arrays, a map-style Dataset, or an iterable of batches that can be "
        f"read again, such as a DataLoader; got {type(source).__name__}{once}"
    )


def _join(source: Any) -> Samples:
    batches = [(_inputs(x), torch.as_tensor(y)) for x, y in source]
    if not batches:
        raise ValueError("there is no batch")
    return _gathered([x for x, _ in batches], torch.cat), torch.cat([y for _, y in batches])


def _stack(source: Any) -> Samples:
    pairs = [(_inputs(x), torch.as_tensor(y)) for x, y in (source[i] for i in range(len(source)))]
    if not pairs:
        raise ValueError("there is no example")
    return _gathered([x for x, _ in pairs], torch.stack), torch.stack([y for _, y in pairs])


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _are_arrays(value: Any) -> bool:
    """Whether a value is one array, or several in a row or by name."""
    several = isinstance(value, tuple | list | Mapping)
    return all(map(_is_array, value.values() if isinstance(value, Mapping) else value)) if several else _is_array(value)


def _inputs(x: Any) -> Inputs:
    """One tensor, or several where a tuple or list holds arrays (of numbers alone it is one), or a dict."""
    if isinstance(x, Mapping):
        return {name: torch.as_tensor(value) for name, value in x.items()}
    if isinstance(x, tuple | list) and any(map(_is_array, x)):
        return tuple(map(torch.as_tensor, x))
    return torch.as_tensor(x)


def _gathered(parts: list[Inputs], gather: Callable[[list[Tensor]], Tensor]) -> Inputs:
    """The parts as one, input by input."""
    first = parts[0]
    if isinstance(first, dict):
        if any(not isinstance(p, dict) or p.keys() != first.keys() for p in parts):
            raise ValueError(f"an example has other inputs than {', '.join(map(str, first))}")
        return {name: gather([p[name] for p in parts if isinstance(p, dict)]) for name in first}
    if isinstance(first, tuple):
        return tuple(gather(list(column)) for column in zip(*map(tensors_of, parts), strict=True))
    return gather([t for p in parts for t in tensors_of(p)])


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _typed(x: Inputs, y: Tensor) -> Samples:
    """Images stay uint8; tokens become int64, other numbers float32; a mask beside other inputs stays bool."""
    x = each(x, real if isinstance(x, Tensor) else lambda t: t if t.dtype == torch.bool else real(t))
    return x, (y.float() if y.is_floating_point() else y.long())


def real(x: Tensor) -> Tensor:
    """A stored type for numbers: uint8 as it is, integers as int64, all else as float32."""
    if x.is_complex():
        raise TypeError(f"inputs are {x.dtype}")
    integer = not (x.is_floating_point() or x.dtype == torch.bool)
    return x if x.dtype == torch.uint8 else x.long() if integer else x.float()


def tensors(dataset: Dataset) -> dict[str, Tensor]:
    """The data by name, as they are stored for other processes: ``train_x``, or ``train_x:NAME`` of several inputs."""
    found = {}
    for split in ("train", "test"):
        x, y = getattr(dataset, f"{split}_x"), getattr(dataset, f"{split}_y")
        several = dataset.layout and dict(zip(_keys(dataset), dataset.layout.unpack(x), strict=True))
        found |= {f"{split}_x:{key}": t for key, t in several.items()} if several else {f"{split}_x": x.contiguous()}
        found[f"{split}_y"] = y.contiguous()
    return found


def _keys(dataset: Dataset) -> list[str]:
    layout = dataset.layout
    return [] if layout is None else [*(layout.names or map(str, range(len(layout.shapes))))]


def inputs_in(found: Mapping[str, Tensor], split: str) -> Inputs | None:
    """The inputs of a split among named tensors, the way back from `tensors`; None where there are none."""
    several = {key.partition(":")[2]: t for key, t in found.items() if key.startswith(f"{split}_x:")}
    if not several:
        return found.get(f"{split}_x")
    if all(key.isdigit() for key in several):
        return tuple(several[key] for key in sorted(several, key=int))
    return several
