"""Decode image files, one at a time, in the supported formats."""

from __future__ import annotations

import io
import os
import warnings
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sublevel.data.bounds import LARGEST_IMAGE, PIXELS_RATIO, Allowance, check_fits
from sublevel.errors import DataError
from sublevel.foreign import FREE

Pixels = np.ndarray

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "QOI")
"""The supported raster formats. Pillow recognises each by its first bytes and decodes it in this process.

Pillow's other formats are excluded: it runs Ghostscript for EPS, and recognises some formats only by file name.
"""


def is_image(name: str) -> bool:
    """Whether a file of a data set is an image, by its suffix.

    False for hidden files, absolute paths and paths with ``..``.
    """
    parts = name.removeprefix("./").split("/")
    if parts[0] == "" or any(part.startswith((".", "__MACOSX")) for part in parts):
        return False
    return os.path.splitext(name)[1].lower() in image_suffixes()


@lru_cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of image files, for every format that Pillow opens, in lower case with their dot.

    A file in a format outside `FORMATS` is refused when it is decoded; it is not ignored.
    """
    from PIL import Image

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


class Budget:
    """Limits on the images of a data set, whose pixels are all kept in memory; counted before an image is decoded.

    Images that are not resized expand as other compressed files may (`Allowance`). Images that are resized are in
    memory one at a time, and may have `PIXELS_RATIO` pixels a byte. What is kept has to fit into the memory once more,
    since it is copied.
    """

    def __init__(self) -> None:
        self._pixels, self._bytes, self._kept = Allowance(ratio=PIXELS_RATIO), Allowance(), 0

    def take(self, pixels: int, channels: int, size: int | None, file: int) -> None:
        """Add an image, and the bytes of its file, to the total. Raises ValueError beyond the limit."""
        self._pixels.take(pixels, file)
        if size is None:
            self._bytes.take(pixels * channels, file)
        self._kept += channels * (pixels if size is None else size * size)
        if self._kept > FREE:
            check_fits(self._kept)


def decode(content: bytes, name: str, channels: int | None, size: int | None, budget: Budget | None = None) -> Pixels:
    """Pixels of one image file: uint8 ``[H, W]`` if grey, ``[H, W, 3]`` if colour.

    The format is one of `FORMATS`, recognised by the content. ``channels`` 1 or 3 converts; None keeps the file's
    channels. ``size`` resizes to ``size x size``, bilinear. 16-bit grey images keep their upper 8 bits. Raises
    `DataError` naming a file that cannot be read, or that has more pixels than `LARGEST_IMAGE` or the ``budget`` of its
    data set allow; such a file is not decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            file = Image.open(io.BytesIO(content), formats=_formats(PurePosixPath(name).suffix.lower()))
        with file:
            if file.width * file.height > LARGEST_IMAGE:
                raise ValueError(f"it has {file.width} x {file.height} pixels; allowed: {LARGEST_IMAGE:,} in all")
            if budget is not None:
                kept = channels or (1 if _grey(file.mode) else 3)
                budget.take(file.width * file.height, kept, size, len(content))
            image = _eight_bit(file)
            mode = {1: "L", 3: "RGB", None: "L" if _grey(image.mode) else "RGB"}[channels]
            image = image if image.mode == mode else image.convert(mode)
            if size is not None and image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except UnidentifiedImageError as problem:
        raise DataError(f"image {name} cannot be read: its content is none of {', '.join(FORMATS)}") from problem
    except Exception as problem:  # the decoders of Pillow raise many kinds: OSError, SyntaxError, struct.error, ...
        raise DataError(f"image {name} cannot be read: {problem or type(problem).__name__}") from problem


@lru_cache
def _formats(suffix: str) -> list[str]:
    """`FORMATS`, with the format of the file's suffix first, as trying others takes longer than decoding."""
    from PIL import Image

    first = Image.registered_extensions().get(suffix)
    return sorted((kind for kind in FORMATS if kind in Image.OPEN), key=lambda kind: kind != first)


def _grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La") or mode.startswith("I")


def _eight_bit(image: Any) -> Any:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("it has 32-bit float pixels; allowed: 8-bit and 16-bit images")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def stack(names: list[str], pixels: list[Pixels]) -> Tensor:
    """Stack decoded images to one uint8 tensor ``[N, C, H, W]``; C is 3 if any is in colour. Empties ``pixels``.

    Raises `DataError` naming two files if the sizes differ.
    """
    first = pixels[0].shape[:2]
    for name, image in zip(names, pixels, strict=True):
        if image.shape[:2] != first:
            raise DataError(
                f"images are of unequal sizes (height x width): {names[0]} is {first[0]} x {first[1]}, "
                f"{name} is {image.shape[0]} x {image.shape[1]}; data.options.size=32 resizes all to 32 x 32"
            )
    channels = 3 if any(image.ndim == 3 for image in pixels) else 1
    out = np.empty((len(pixels), channels, *first), np.uint8)
    for i in reversed(range(len(out))):
        image = pixels.pop()
        out[i] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(out)
