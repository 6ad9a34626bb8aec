"""The registry of data sources, and the check that every data set passes.

A source is a function ``(root, **options) -> Dataset`` under a ``@source("name")`` line, in any module of this package.
All modules of the package are imported automatically.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sublevel.data.packing import Layout
from sublevel.data.streamed import Rows, blocks
from sublevel.errors import ConfigError, DataError, unknown

Source = Callable[..., "Dataset"]
_SOURCES: dict[str, Source] = {}


IGNORED = -100
"""The label that the loss ignores, as in PyTorch's cross-entropy."""

CLASSES = 1_000_000
"""Maximum number of classes; a larger label counts as damage."""


@dataclass(frozen=True)
class Dataset:
    """Samples and labels as read, without normalisation or a validation split.

    ``train_x`` and ``test_x`` are uint8 ``[N, C, H, W]`` for images, int64 ``[N, ...]`` for tokens and float32 (for the
    user's data also float64) ``[N, ...]`` otherwise; with a ``layout`` they are rows of bytes that hold several inputs.
    ``train_y`` and ``test_y`` are int64 class labels ``[N]`` (``[N, ...]``: one for every token), or float targets
    ``[N, ...]`` with ``classes == ()``. ``origin`` is one sentence on the origin of the data: file names and hashes, no
    absolute path.
    """

    name: str
    train_x: Rows
    train_y: Tensor
    test_x: Rows
    test_y: Tensor
    classes: tuple[str, ...]
    origin: str
    layout: Layout | None = None


def source(name: str) -> Callable[[Source], Source]:
    """Register a data source under ``name``: ``(root: Path | None, **options) -> Dataset``."""

    def register(function: Source) -> Source:
        _SOURCES[name] = function
        return function

    return register


def names() -> list[str]:
    """The registered sources, sorted.

    >>> "cifar10" in names()
    True
    """
    _discover()
    return sorted(_SOURCES)


def load(name: str, /, *, root: str | Path | None = None, **options: Any) -> Dataset:
    """Read the source ``name`` and check it.

    ``root`` is the folder (or file) of the data. Downloadable sources look there first, then in the cache, and
    otherwise download into the cache. ``options`` are those of the source. Raises `ConfigError` for an unknown name or
    option, and `DataError` for data that are missing, damaged or inconsistent. Every source has the option ``ignored``,
    the label that does not count (default `IGNORED`).

    >>> data = load("fashion-mnist-small")
    >>> tuple(data.train_x.shape), data.train_x.dtype, len(data.test_y)
    ((10000, 1, 28, 28), torch.uint8, 2000)
    """
    _discover()
    if name not in _SOURCES:
        raise unknown("data source", name, _SOURCES, "data.name")
    function = _SOURCES[name]
    ignored = options.pop("ignored", IGNORED)
    if type(ignored) is not int:
        raise DataError(f"data.options.ignored is {ignored!r}; it is a label, a whole number")
    allowed = [*list(inspect.signature(function).parameters)[1:], "ignored"]
    for option in options:
        if option not in allowed:
            raise unknown(f"option of data source {name!r}:", option, [*allowed, "root"], f"data.options.{option}")
    try:
        place = None if root is None else Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(f"data.root {root} cannot be found: {error}") from None
    return check(without(function(place, **options), ignored))


def check(dataset: Dataset) -> Dataset:
    """Return ``dataset`` if it is consistent; otherwise raise a `DataError` with the split, the index and the value."""
    d = dataset
    for part, x, y in (("train", d.train_x, d.train_y), ("test", d.test_x, d.test_y)):
        where = f"data source {dataset.name!r}, {part}"
        if len(x) != len(y):
            raise DataError(f"{where}: {len(x)} samples but {len(y)} labels; there must be one label per sample")
        if len(x) == 0:
            raise DataError(f"{where}: there are no samples; at least one is needed")
        for each in dataset.layout.unpack(x) if dataset.layout and isinstance(x, Tensor) else [x]:
            _check_samples(where, each, () if dataset.layout is None else (torch.bool,))
        _check_labels(where, y, dataset.classes)
    _check_alike(dataset)
    return dataset


def integers(y: Tensor) -> Tensor:
    """Labels as int64; real targets stay."""
    return y if y.is_floating_point() else y.to(torch.int64)


def without(dataset: Dataset, ignored: int) -> Dataset:
    """The data set with `IGNORED` in place of the label ``ignored``, and the classes of the labels that are left."""
    labels = dataset.train_y, dataset.test_y
    if ignored == IGNORED or any(y.is_floating_point() for y in labels):
        return dataset
    train_y, test_y = (torch.where(y == ignored, IGNORED, y) for y in labels)
    named = dataset.classes != numbered(*labels)
    classes = dataset.classes if named else numbered(train_y, test_y)
    return replace(dataset, train_y=train_y, test_y=test_y, classes=classes)


def numbered(*labels: Tensor, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The user's ``names`` of the classes, or 0, 1, ... up to the largest integer label; empty for real targets.

    Raises DataError if there are more than CLASSES of them, ConfigError if ``names`` is no list.

    >>> numbered(torch.tensor([0, 2]), torch.tensor([1]))
    ('0', '1', '2')
    """
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence)):
        raise ConfigError(f"data.options.classes is {names!r}; allowed: a list of names, or for own data their number")
    if any(y.is_floating_point() for y in labels):
        return ()
    if names:
        return tuple(map(str, names))
    highest = max((int(y.max()) for y in labels if y.numel()), default=-1)
    if highest >= CLASSES:
        raise DataError(f"label {highest}: classes are numbered from 0, and there are at most {CLASSES:,} of them")
    return tuple(map(str, range(highest + 1)))


def _discover() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], f"{__package__}."):
        import_module(module.name)


def _check_samples(where: str, x: Rows, also: tuple[torch.dtype, ...]) -> None:
    if x.dtype == torch.uint8:
        if x.dim() != 4:
            raise DataError(
                f"{where}: uint8 samples have shape {list(x.shape)}; images are [N, C, H, W]; give tokens as x.long(), "
                "measurements as x.float()"
            )
    elif x.dtype not in (torch.float32, torch.float64, torch.int64, *also):
        raise DataError(
            f"{where}: samples are {x.dtype}; allowed: torch.uint8 (images), torch.int64 (tokens), torch.float32, "
            "torch.float64"
        )
    elif x.dtype.is_floating_point:
        _check_finite(where, x)


def _check_finite(where: str, x: Rows) -> None:
    begin = 0
    for block in blocks(x):
        if not bool(torch.isfinite(block).all()):
            index = begin + int((~torch.isfinite(block)).reshape(len(block), -1).any(1).nonzero()[0])
            raise DataError(f"{where}: sample {index} has a value that is not finite")
        begin += len(block)


def _check_labels(where: str, y: Tensor, classes: tuple[str, ...]) -> None:
    if y.dtype.is_floating_point:
        if not bool(torch.isfinite(y).all()):
            raise DataError(f"{where}: a target is not finite")
        return
    if y.dtype != torch.int64 or y.dim() < 1:
        raise DataError(f"{where}: labels are {y.dtype} {list(y.shape)}; allowed: torch.int64 [N] or [N, ...]")
    if len(classes) < 2:
        raise DataError(f"{where}: {len(classes)} class ({', '.join(classes)}); at least two are needed")
    wrong = (((y < 0) | (y >= len(classes))) & (y != IGNORED)).nonzero()
    if len(wrong):
        at = wrong[0].tolist()
        index = at[0] if len(at) == 1 else at
        raise DataError(
            f"{where}: label {int(y[tuple(at)])} at index {index}; allowed: 0..{len(classes) - 1}, and {IGNORED} for "
            "labels that do not count"
        )
    if not bool((y != IGNORED).any()):
        raise DataError(f"{where}: every label is {IGNORED}, so none counts")


def _check_alike(dataset: Dataset) -> None:
    d = dataset
    for what, train, test in (("samples", d.train_x, d.test_x), ("labels", d.train_y, d.test_y)):
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise DataError(
                f"data source {dataset.name!r}: train {what} are {train.dtype} {list(train.shape[1:])} each, "
                f"test {what} {test.dtype} {list(test.shape[1:])}; they must be alike"
            )
