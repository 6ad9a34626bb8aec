"""MNIST and Fashion-MNIST: the four idx files, compressed or not.

The format: two zero bytes, a type byte (8 is uint8), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values in C order (http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import io
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sublevel.cache import file_hash
from sublevel.data.bounds import check_fits
from sublevel.data.download import Remote, obtain
from sublevel.data.sources import Dataset, source
from sublevel.errors import DataError
from sublevel.foreign import FREE, RATIO

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
_MNIST_URLS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",)
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_URLS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)


@source("mnist")
def mnist(root: Path | None) -> Dataset:
    """MNIST, 60,000 + 10,000 digits of 28 x 28 (LeCun, Cortes and Burges 1998)."""
    return _read("mnist", root, tuple("0123456789"), _MNIST_URLS, _MNIST_MD5, ("raw", "MNIST/raw"))


@source("fashion-mnist")
def fashion_mnist(root: Path | None) -> Dataset:
    """Fashion-MNIST, 60,000 + 10,000 articles of 28 x 28 (Xiao, Rasul and Vollgraf 2017)."""
    inside = ("raw", "FashionMNIST/raw")
    return _read("fashion-mnist", root, FASHION_CLASSES, _FASHION_URLS, _FASHION_MD5, inside)


def _read(name, root, classes, urls, hashes, inside) -> Dataset:
    arrays, used = [], []
    for file, md5, axes in zip(_FILES, hashes, (3, 1, 3, 1), strict=True):
        remote = Remote(f"{file}.gz", tuple(f"{url}{file}.gz" for url in urls), md5)
        path = obtain(remote, name, root, also=(file, file.replace("-idx", ".idx")), inside=inside)
        arrays.append(read_idx(path, axes, published=md5))
        used.append(path.name)
    return assemble(name, arrays, classes, f"{name}, idx files {', '.join(used)}")


def assemble(name: str, arrays: list[Tensor], classes: tuple[str, ...], origin: str) -> Dataset:
    """The data set of train images, train labels, test images, test labels: uint8 ``[N, H, W]``, ``[N]``."""
    train_x, train_y, test_x, test_y = arrays
    for part, x, y in (("train", train_x, train_y), ("test", test_x, test_y)):
        if len(x) != len(y) or not x.numel():
            raise DataError(f"{name}: the {part} files have images {list(x.shape)} and {len(y):,} labels")
    return Dataset(name, train_x[:, None], train_y.long(), test_x[:, None], test_y.long(), classes, origin)


def read_idx(path: Path, axes: int, *, published: str = "") -> Tensor:
    """The uint8 tensor in an idx file, gzip-compressed or not.

    Raises `DataError` if the file is not a complete idx file of ``axes`` dimensions; ``published`` is the md5 of the
    published file, for the message.
    """
    try:
        check_fits(path.stat().st_size)
        raw = path.read_bytes()
        raw = _unpacked(raw) if raw[:2] == b"\x1f\x8b" else raw
        array, end = parse_idx(raw, axes)
        if end != len(raw):
            raise ValueError(f"expected {end} bytes, got {len(raw)}")
    except (OSError, EOFError, ValueError, zlib.error) as problem:
        known = f"; its md5 is {file_hash(path, 'md5')}, the published file's {published}" if published else ""
        raise DataError(f"{path} is not a whole idx file of {axes} dimensions: {problem}{known}") from problem
    return array


def _unpacked(raw: bytes) -> bytes:
    allowed = max(FREE, RATIO * len(raw))
    with gzip.open(io.BytesIO(raw)) as file:
        data = file.read(allowed + 1)
    if len(data) > allowed:
        raise ValueError(f"{len(raw):,} bytes become more than {allowed:,}: this is a compression bomb")
    return data


def parse_idx(raw: bytes, axes: int, start: int = 0) -> tuple[Tensor, int]:
    """The uint8 tensor of ``axes`` dimensions at byte ``start`` of ``raw``, and the byte where it ends.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), 1)
    (tensor([7, 9], dtype=torch.uint8), 10)
    """
    magic, expected = raw[start : start + 4], bytes([0, 0, 8, axes])
    if magic != expected:
        raise ValueError(f"expected it to start with 0x{expected.hex()}, got 0x{magic.hex()}")
    first = start + 4 + 4 * axes
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(start + 4, first, 4))
    end = first + prod(shape)
    if len(raw) < end:
        raise ValueError(f"expected {end} bytes for shape {list(shape)}, got {len(raw)}")
    values = np.frombuffer(raw, np.uint8, prod(shape), first)
    return torch.from_numpy(values.copy()).reshape(shape), end


def format_idx(array: Tensor) -> bytes:
    """The bytes of ``array`` (uint8) as an idx file; the inverse of `parse_idx`."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.dim()]) + sizes + array.contiguous().numpy().tobytes()
