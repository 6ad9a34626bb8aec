"""The user's data, passed in Python.

A source is a pair of tensors, arrays or lists with one entry per example, a map-style Dataset of pairs or of dicts, or
an iterable of batches such as a DataLoader. Several inputs are a tuple or a dict of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sublevel.data.packing import pack
from sublevel.data.sources import IGNORED, Dataset, check, numbered
from sublevel.errors import DataError
from sublevel.inputs import Inputs, each, tensors_of

Samples = tuple[Inputs, Tensor]


def dataset(
    train: Any,
    test: Any,
    dtype: torch.dtype = torch.float32,
    ignored: int = IGNORED,
    classes: int | Sequence[str] | None = None,
) -> Dataset:
    """The data as a data set. Sources that could change are read twice; float64 is kept if ``dtype`` is float64.

    The label ``ignored`` does not count. ``classes`` is the number or the names of the classes, where some have no
    example.

    Raises DataError for invalid data.
    """
    (train_x, train_y), (test_x, test_y) = _read(train, "train", dtype), _read(test, "test", dtype)
    if not len(train_y) or not len(test_y):
        raise DataError(f"own data: {len(train_y)} training and {len(test_y)} test examples; at least one of each")
    kinds = ["real numbers" if y.is_floating_point() else "classes" for y in (train_y, test_y)]
    if kinds[0] != kinds[1]:
        raise DataError(f"own data: the train labels are {kinds[0]}, the test labels {kinds[1]}; they must be alike")
    train_y, test_y = (
        y if y.is_floating_point() or ignored == IGNORED else torch.where(y == ignored, IGNORED, y)
        for y in (train_y, test_y)
    )
    names = list(map(str, range(classes))) if isinstance(classes, int) else classes
    found = numbered(train_y, test_y, names=names)
    if len(found) == 1:
        raise DataError(
            "own data: every label is 0, and at least two classes are needed; give data_options={'classes': 10} for a "
            "network of 10 classes, or real targets as y.float()"
        )
    return joined("own", (train_x, train_y), (test_x, test_y), found, "tensors given in Python")


def of_bits(dataset: Dataset) -> Dataset:
    """Convert real labels that are all 0 or 1 to two classes."""
    labels = dataset.train_y, dataset.test_y
    if not all(y.is_floating_point() and bool(((y == 0) | (y == 1)).all()) for y in labels):
        return dataset
    train_y, test_y = (_column(y.long()) for y in labels)
    return replace(dataset, train_y=train_y, test_y=test_y, classes=("0", "1"))


def shifted(dataset: Dataset) -> Dataset:
    """The data of a causal language model, with the next token as the label of each.

    Labels in the form of `transformers` equal the tokens (or are `IGNORED`), and the network shifts them. Such labels
    are moved one place to the left; the last place is `IGNORED`. All other labels stay unchanged.
    """
    parts = (dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)
    few = ((x[: min(64, len(x))], y[:64]) for x, y in parts)
    if not all(_repeats(dataset, x, y) for x, y in few) or not all(_repeats(dataset, x[: len(x)], y) for x, y in parts):
        return dataset
    train_y, test_y = (torch.cat([y[:, 1:], torch.full_like(y[:, :1], IGNORED)], dim=1) for _, y in parts)
    return replace(dataset, train_y=train_y, test_y=test_y)


def _repeats(dataset: Dataset, x: Tensor, y: Tensor) -> bool:
    """Whether labels [N, T] equal an input of tokens wherever they count."""
    columns = dataset.layout.unpack(x) if dataset.layout else [x]
    tokens = (t for t in columns if t.shape == y.shape and not t.is_floating_point() and t.dtype != torch.bool)
    return y.ndim == 2 and any(bool(((y == t) | (y == IGNORED)).all()) for t in tokens)


def _column(y: Tensor) -> Tensor:
    """Labels [N, 1] as [N]."""
    return y.squeeze(1) if y.ndim == 2 and y.shape[1] == 1 else y


def joined(name: str, train: Samples, test: Samples, classes: Sequence[str], origin: str) -> Dataset:
    """Join the two parts to one checked data set; several inputs are packed."""
    (train_x, layout), (test_x, other) = pack(train[0]), pack(test[0])
    if layout != other:
        raise DataError(
            f"train inputs are {layout or 'one tensor'}, test inputs {other or 'one tensor'}; must be alike"
        )
    return check(Dataset(name, train_x, train[1], test_x, test[1], tuple(classes), origin, layout))


LABELS = ("labels", "label", "targets", "target", "y")
"""Keys of the labels in an example that is a dict."""


def _read(source: Any, split: str, dtype: torch.dtype) -> Samples:
    if isinstance(source, Mapping):  # of columns, one of them the labels
        source = _pair(source)
    try:
        source = _stacked(source)
        if isinstance(source, tuple) and len(source) == 2 and _are_examples(*source):
            return _typed(_inputs(source[0]), torch.as_tensor(_array(source[1])), dtype, split)
        return _typed(*_twice(source, split), dtype, split)
    except (TypeError, ValueError, RuntimeError) as error:
        text = isinstance(source, tuple) and _is_text(source[-1])
        why = "the labels are text; number the classes 0, 1, ..." if text else error
        raise DataError(f"{split} data must be numbers: {why}") from error


def _stacked(source: Any) -> Any:
    """A pair in which each part is a list with one entry per example, as a pair of arrays; other sources unchanged.

    A tuple or list of arrays that have one row per example is several inputs, and stays.
    """
    if not (isinstance(source, tuple) and len(source) == 2 and all(hasattr(part, "__len__") for part in source)):
        return source
    x, y = source
    if isinstance(y, list | tuple) and y and all(isinstance(v, Tensor) and not v.ndim for v in y):
        y = torch.stack(list(y))
    one_each = isinstance(x, list | tuple) and len(x) == len(y) > 0
    scalars = _is_array(y) or not any(isinstance(v, list | tuple | Mapping) or _is_array(v) for v in y)
    if one_each and scalars and all(isinstance(row, list | tuple) for row in x):
        if len({len(row) for row in x}) > 1:
            raise ValueError("the inputs have rows of different lengths")
        x = np.array(x)
    elif one_each and scalars and all(map(_is_array, x)) and any(np.ndim(a) == 0 or len(a) != len(y) for a in x):
        x = torch.stack([torch.as_tensor(_array(row)) for row in x])
    return x, y


def _twice(source: Any, split: str) -> Samples:
    """A source that must give the same each time it is read."""
    read = _reader(source, split)
    try:
        first, second = read(source), read(source)
    except DataError:
        raise
    except Exception as error:  # the source may be the user's code
        kind = "" if isinstance(error, TypeError | ValueError | RuntimeError) else f"{type(error).__name__}: "
        raise DataError(f"{split} data must give pairs (input, label), all of one shape: {kind}{error}") from error
    if len(first[1]) != len(second[1]):
        raise DataError(
            f"two readings of the {split} data differ: {len(first[1])} examples, then {len(second[1])}; "
            "an iterable must give all its examples every time"
        )
    pairs = list(zip([*tensors_of(first[0]), first[1]], [*tensors_of(second[0]), second[1]], strict=True))
    alike = (a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs)
    if any(a.dtype != b.dtype for a, b in pairs) or not all(alike):
        raise DataError(
            f"two readings of the {split} data differ: remove shuffling and random augmentation "
            "(the data order is the study's own, train.crop and train.flip augment)"
        )
    return first


def _pair(example: Any) -> tuple[Any, Any]:
    """The inputs and the label of an example or a batch: a pair, or a dict with the label under a key of `LABELS`.

    The other entry of the dict is the input; several entries are inputs by name. Raises ValueError for other forms.
    """
    if not isinstance(example, Mapping):
        if isinstance(example, tuple | list) and len(example) != 2:
            raise ValueError(f"an example has {len(example)} parts; expected two, the input and the label")
        if _is_array(example):
            raise ValueError("an example is one array; give the data as a pair (inputs, labels)")
        x, y = example
        return x, y
    found = [key for key in LABELS if key in example]
    rest = {key: value for key, value in example.items() if key not in found[:1]}
    if not found or not rest:
        raise ValueError(
            f"an example is a dict of {', '.join(map(str, example)) or 'nothing'}; it needs inputs, and the label "
            f"under one of {', '.join(LABELS)}"
        )
    for key, value in rest.items():
        if isinstance(value, str) or (isinstance(value, list | tuple) and value and isinstance(value[0], str)):
            raise ValueError(f"{key!r} of an example is text: leave out what the network does not take as numbers")
    return (next(iter(rest.values())) if len(rest) == 1 else rest), example[found[0]]


def _reader(source: Any, split: str) -> Callable[[Any], Samples]:
    many = not isinstance(source, str)
    if many and hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return lambda source: _joined((source[i] for i in range(len(source))), torch.stack, "example")
    if many and hasattr(source, "__iter__") and not hasattr(source, "__next__"):
        return lambda source: _joined(source, torch.cat, "batch")
    once = " that can be read once" if hasattr(source, "__next__") else ""
    raise DataError(
        f"{split} data must be a pair of tensors or arrays, a map-style Dataset, or an iterable of batches that can be "
        f"read again, such as a DataLoader; got {type(source).__name__}{once}"
    )


def _joined(parts: Iterable[Any], gather: Callable[[list[Tensor]], Tensor], what: str) -> Samples:
    pairs = [(_inputs(x), torch.as_tensor(_array(y))) for x, y in map(_pair, parts)]
    if not pairs:
        raise ValueError(f"there is no {what}")
    return _gathered([x for x, _ in pairs], gather), gather([y for _, y in pairs])


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) or hasattr(value, "to_numpy")


def _array(value: Any) -> Any:
    """The array of a data frame or a Pillow image, and a copy of an array that is read-only; other values unchanged."""
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if hasattr(value, "getbands"):  # an image of Pillow
        return np.array(value)
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == object:
        raise TypeError("an array holds objects; convert it by x.astype('float32')")
    return value if value.flags.writeable else value.copy()  # PyTorch warns of one that is not


def _is_text(y: Any) -> bool:
    """Whether labels are text."""
    return isinstance(y, list | np.ndarray) and any(isinstance(v, str | bytes) for v in y)


def _are_examples(x: Any, y: Any) -> bool:
    """Whether ``x`` is one or several arrays, and ``y`` an array, or a list or tuple with one label per example."""
    columns = list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple | list) else [x]
    if not all(map(_is_array, columns)) or not isinstance(y, list | tuple):
        return all(map(_is_array, (*columns, y)))
    return not any(map(_is_array, y)) and bool(columns) and len(columns[0]) == len(y)


def _inputs(x: Any) -> Inputs:
    """One tensor, several for a tuple or list of arrays, or a dict; a list of numbers is one tensor."""
    if isinstance(x, Mapping):
        return {name: torch.as_tensor(_array(value)) for name, value in x.items()}
    if isinstance(x, tuple | list) and any(map(_is_array, x)):
        return tuple(torch.as_tensor(_array(each)) for each in x)
    return torch.as_tensor(_array(x))


def _gathered(parts: list[Inputs], gather: Callable[[list[Tensor]], Tensor]) -> Inputs:
    """Join the parts, input by input."""
    first = parts[0]
    if isinstance(first, dict):
        if any(not isinstance(p, dict) or p.keys() != first.keys() for p in parts):
            raise ValueError(f"an example has other inputs than {', '.join(map(str, first))}")
        return {name: gather([p[name] for p in parts if isinstance(p, dict)]) for name in first}
    if isinstance(first, tuple):
        return tuple(gather(list(column)) for column in zip(*map(tensors_of, parts), strict=True))
    return gather([t for p in parts for t in tensors_of(p)])


def _typed(x: Inputs, y: Tensor, dtype: torch.dtype, split: str) -> Samples:
    """Images stay uint8, with channels first; tokens become int64; `real` converts other numbers; a mask among several
    inputs stays bool. Labels [N, 1] become [N].
    """
    for t in (*tensors_of(x), y):
        forms = {
            "without values": t.is_meta, "nested": t.is_nested, "quantized": t.is_quantized,
            "sparse": t.layout != torch.strided,
        }  # fmt: skip
        if found := next((form for form, is_so in forms.items() if is_so), ""):
            raise TypeError(f"a tensor is {found}; give a dense one (x.to_dense())")
    one = isinstance(x, Tensor)
    x = each(x, lambda t: _images(t, split) if t.dtype == torch.uint8 else t)
    x = each(x, (lambda t: real(t, dtype)) if one else lambda t: t if t.dtype == torch.bool else real(t, dtype))
    if y.is_complex() or not y.ndim:
        raise TypeError(f"labels are {y.dtype} of shape {list(y.shape)}; expected one label for each example")
    if y.is_floating_point():
        return x, y.to(_stored(y, dtype))
    tokens = one and not x.is_floating_point() and x.dtype != torch.uint8 and x.shape == y.shape  # type: ignore[union-attr]
    return x, (y if tokens else _column(y)).long()


def _images(x: Tensor, split: str) -> Tensor:
    """Convert images [N, H, W] and [N, H, W, C] to [N, C, H, W]. Raises DataError if the channel axis is ambiguous."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4 or x.shape[3] not in (1, 3, 4) or x.shape[1] in (1, 2):
        return x
    if x.shape[1] in (3, 4):
        raise DataError(
            f"{split} images are {list(x.shape)}: give them as [N, C, H, W], "
            "since the shape does not tell which axis C is"
        )
    return x.permute(0, 3, 1, 2).contiguous()


def real(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert to the stored type: uint8 stays, integers become int64, float64 ``dtype``, all other types float32."""
    if x.is_complex():
        raise TypeError(f"inputs are {x.dtype}")
    integer = not (x.is_floating_point() or x.dtype == torch.bool)
    return x if x.dtype == torch.uint8 else x.long() if integer else x.to(_stored(x, dtype))


def _stored(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The stored type of real numbers: ``dtype`` for float64, otherwise float32."""
    return dtype if x.dtype == torch.float64 else torch.float32


def tensors(dataset: Dataset) -> dict[str, Tensor]:
    """The tensors of a data set by name, to store them: ``train_x``, or ``train_x:NAME`` for several inputs."""
    found = {}
    for split in ("train", "test"):
        x, y = getattr(dataset, f"{split}_x"), getattr(dataset, f"{split}_y")
        if (layout := dataset.layout) is None:
            found[f"{split}_x"] = x.contiguous()
        else:
            keys = layout.names or map(str, range(len(layout.shapes)))
            found |= {f"{split}_x:{key}": t for key, t in zip(keys, layout.unpack(x), strict=True)}
        found[f"{split}_y"] = y.contiguous()
    return found


def inputs_in(found: Mapping[str, Tensor], split: str) -> Inputs | None:
    """The inputs of a split among named tensors, the inverse of `tensors`; None if absent."""
    several = {key.partition(":")[2]: t for key, t in found.items() if key.startswith(f"{split}_x:")}
    if not several:
        return found.get(f"{split}_x")
    if all(key.isdigit() for key in several):
        return tuple(several[key] for key in sorted(several, key=int))
    return several
