"""Convert points and masks to named tensors, for storage and transfer, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sublevel._types import Bool, Tensor
from sublevel.space import Point

Tensors = dict[str, Tensor]


def point_tensors(point: Point) -> Tensors:
    """A point as named tensors: ``theta``, and each buffer as ``buffer:NAME``."""
    return {"theta": point.theta, **under("buffer", point.buffers)}


def point_of(tensors: Mapping[str, Tensor]) -> Point:
    """Inverse of `point_tensors`."""
    return Point(tensors["theta"], within("buffer", tensors))


def mask_tensors(mask: Bool[Tensor, "D"]) -> Tensors:
    """A mask as packed bits, and its length."""
    return {"bits": packed(mask), "dim": torch.tensor(len(mask))}


def mask_of(tensors: Mapping[str, Tensor]) -> Bool[Tensor, "D"]:
    """Inverse of `mask_tensors`, on the CPU."""
    return unpacked(tensors["bits"], int(tensors["dim"]))


def packed(bits: Bool[Tensor, "D"]) -> Tensor:
    """One bit for each element as uint8 on the CPU, the first in the highest bit of the first byte.

    >>> packed(torch.tensor([True, False, False, True])).tolist()
    [144]
    """
    return torch.from_numpy(np.packbits(bits.cpu().numpy()))


def unpacked(bits: Tensor, count: int) -> Bool[Tensor, "D"]:
    """Inverse of `packed`."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(bool))


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors with ``PREFIX:`` before their names."""
    return {f"{prefix}:{name}": t for name, t in tensors.items()}


def within(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Inverse of `under`; omits tensors with other names."""
    return {name.removeprefix(f"{prefix}:"): t for name, t in tensors.items() if name.startswith(f"{prefix}:")}
