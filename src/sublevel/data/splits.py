"""Train, validation and test parts of a data set, and the normalisation by the train part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import inf

import torch
from torch import Tensor

from sublevel.data.packing import Layout
from sublevel.data.sources import Dataset
from sublevel.data.streamed import Rows, blocks, select_rows
from sublevel.errors import DataError
from sublevel.inputs import Inputs, Shapes
from sublevel.rng import generator

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Part:
    """Samples ``x`` (see `Dataset`) and labels ``y``, of one length."""

    x: Rows
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Part:
        """The same part on ``device``."""
        return Part(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set, on one device.

    ``mean`` and ``std`` are per channel, in units where 255 is 1, and come from the train part unless passed to
    `split`. They are empty without images; with several image inputs they are concatenated. ``input_shape`` is the
    shape of one sample, or the shapes of several inputs, in order or by name.
    """

    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    input_shape: Shapes
    origin: str
    layout: Layout | None = None

    def prepare(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Inputs:
        """The input of a network: ``(x / 255 - mean) / std`` for uint8 ``[N, C, H, W]``; floats only change dtype;
        tokens and masks stay unchanged. Several inputs are a tuple, or a dict if they have names.

        The result is on the device of ``x`` and shares no memory with it, so a network may write into its input.
        """
        if self.layout is None:
            found = _prepared(x, dtype, self.mean, self.std)
            return found.clone() if found is x else found
        found, seen = [], 0
        for part in self.layout.unpack(x):
            channels = slice(seen, seen + (part.shape[1] if part.dtype == torch.uint8 else 0))
            found.append(_prepared(part, dtype, self.mean[channels], self.std[channels]))
            seen = channels.stop
        return self.layout.inputs(found)

    def to(self, device: torch.device | str) -> Splits:
        """The same splits on ``device``."""
        parts = {name: part.to(device) for name, part in self.parts.items()}
        moved = replace(self, **parts)
        if "digest" in self.__dict__:  # the bytes are the same, so the digest is too
            moved.__dict__["digest"] = self.digest
        return moved

    @cached_property
    def digest(self) -> str:
        """sha256 over dtype, shape and bytes of every part's samples and labels, and over mean and std."""
        digest = hashlib.sha256()
        for name, part in self.parts.items():
            for what, tensor in (("x", part.x), ("y", part.y)):
                digest.update(f"{name}.{what} {tensor.dtype} {list(tensor.shape)}\n".encode())
                for block in blocks(tensor):
                    digest.update(block.detach().cpu().contiguous().numpy().reshape(-1).data)
        digest.update(" ".join(value.hex() for value in (*self.mean, *self.std)).encode())
        digest.update(str(self.layout).encode() if self.layout else b"")
        return digest.hexdigest()

    @property
    def in_memory(self) -> int:
        """Bytes of the samples and labels; 0 if the samples are read from files on demand."""
        parts = self.parts.values()
        if not all(isinstance(part.x, Tensor) for part in parts):
            return 0
        return sum(t.numel() * t.element_size() for part in parts for t in (part.x, part.y))

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by name."""
        return {name: getattr(self, name) for name in PARTS}


def split(
    dataset: Dataset,
    *,
    validation: int | float = 0.1,
    train_size: int | None = None,
    test_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Splits:
    """Hold out a validation part from the training samples, and limit the number of the others.

    ``validation`` is a number of samples, or a fraction of the training samples; 0 gives an empty part. Every selection
    keeps the share of each class (largest remainder) and the original order. It does not depend on training seeds, so
    all networks of a study use the same parts. Images are normalised by ``mean`` and ``std`` per channel, in units
    where 255 is 1 (default: those of the train part). Raises `DataError` for impossible sizes, and for a mean and std
    that do not fit the data.

    >>> from sublevel.data.sources import load
    >>> parts = split(load("fashion-mnist-small"), validation=1000, test_size=500)
    >>> len(parts.train), len(parts.validation), len(parts.test), parts.input_shape
    (9000, 1000, 500, (1, 28, 28))
    """
    count = _validation_count(validation, len(dataset.train_y))
    held = stratified(dataset.train_y, count, generator(0, "split"))
    train = Part(select_rows(dataset.train_x, ~held), dataset.train_y[~held])
    train = _subset(train, train_size, "train", f" after {count} of {len(held)} were held out for validation")
    test = _subset(Part(dataset.test_x, dataset.test_y), test_size, "test")
    layout = dataset.layout
    columns: list[Rows] = list(layout.unpack(train.x)) if layout and isinstance(train.x, Tensor) else [train.x]
    if mean is None and std is None:
        found = [moments(x) for x in columns]
        centre, scale = (tuple(value for pair in found for value in pair[i]) for i in (0, 1))
    else:
        centre, scale = _given_moments(columns, mean, std)
    return Splits(
        train=train,
        validation=Part(select_rows(dataset.train_x, held), dataset.train_y[held]),
        test=test,
        mean=centre,
        std=scale,
        classes=dataset.classes,
        input_shape=layout.input_shape if layout else tuple(train.x.shape[1:]),
        origin=dataset.origin,
        layout=layout,
    )


def stratified(y: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Choose ``count`` of the samples with labels ``y [N]``, each class in proportion: a bool mask ``[N]``.

    A class of n_c samples gives floor(count * n_c / N); the classes with the largest remainders give the rest, lower
    labels first. Float targets, and labels of tokens, count as one class.
    """
    order = torch.randperm(len(y), generator=rng)
    labels = torch.zeros(len(y), dtype=torch.int64) if y.is_floating_point() or y.dim() > 1 else y
    labels = torch.where(labels < 0, labels.max() + 1, labels)  # ignored labels form a separate class
    order = order[torch.sort(labels[order], stable=True).indices]
    sizes = torch.bincount(labels)
    quotas = sizes * count // max(len(y), 1)
    remainders = sizes * count - quotas * len(y)
    quotas[torch.sort(remainders, descending=True, stable=True).indices[: count - int(quotas.sum())]] += 1
    rank = torch.arange(len(y)) - (sizes.cumsum(0) - sizes)[labels[order]]
    chosen = torch.zeros(len(y), dtype=torch.bool)
    chosen[order[rank < quotas[labels[order]]]] = True
    return chosen


def moments(x: Rows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images ``[N, C, H, W]`` over 255; empty for floats.

    They come from exact integer sums over the histogram of a channel, so they do not depend on the number of threads.
    The standard deviation divides by N, and is 1 for a constant channel.
    """
    if x.dtype != torch.uint8:
        return (), ()
    values, mean, std = torch.arange(256), [], []
    histograms = torch.zeros(x.shape[1], 256, dtype=torch.int64)
    for block in blocks(x):
        for c, histogram in enumerate(histograms):
            histogram += torch.bincount(block[:, c].reshape(-1), minlength=256).cpu()
    for histogram in histograms:
        n, first, second = (int((histogram * values**power).sum()) for power in (0, 1, 2))
        variance = n * second - first * first
        mean.append(first / (255 * n))
        std.append(variance**0.5 / (255 * n) if variance else 1.0)
    return tuple(mean), tuple(std)


def _given_moments(
    columns: Sequence[Rows], mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Check a user's mean and standard deviation against the image inputs, and return them."""
    channels = sum(x.shape[1] for x in columns if x.dtype == torch.uint8)
    if not channels:
        raise DataError("data.mean and data.std need images of 8 bits, but no input is one")
    if mean is None or std is None or not len(mean) == len(std) == channels:
        raise DataError(f"data.mean and data.std are {channels} numbers each, one per channel; got {mean} and {std}")
    if not all(-inf < m < inf for m in mean) or not all(0 < s < inf for s in std):
        raise DataError(f"data.mean is finite and data.std positive and finite; got {list(mean)} and {list(std)}")
    return tuple(map(float, mean)), tuple(map(float, std))


def _prepared(x: Tensor, dtype: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    if x.dtype != torch.uint8:
        return x.to(dtype) if x.is_floating_point() else x
    scale, shift = _affine(mean, std, x.device, dtype)
    return x.to(dtype).mul_(scale).add_(shift)


@lru_cache(maxsize=64)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype):
    """Scale and shift ``[C, 1, 1]``; cached, so that a captured step copies nothing to the device."""
    m, s = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
    return (1 / (255 * s)).to(dtype).to(device), (-m / s).to(dtype).to(device)


def _validation_count(validation: int | float, n: int) -> int:
    fraction = isinstance(validation, float)
    count = round(validation * n) if fraction and 0 <= validation < 1 else validation
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < n:
        raise DataError(
            f"validation is {validation!r} with {n} training samples (data.validation); "
            f"allowed: 0 to {n - 1} samples, or a fraction from 0.0 to below 1.0"
        )
    return count


def _subset(part: Part, size: int | None, name: str, note: str = "") -> Part:
    if size is None:
        return part
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= len(part):
        raise DataError(
            f"{name}_size is {size!r} (data.{name}_size); allowed: 1 to {len(part)}, "
            f"because there are {len(part)} {name} samples{note}"
        )
    keep = stratified(part.y, size, generator(0, f"split:{name}"))
    return Part(select_rows(part.x, keep), part.y[keep])
