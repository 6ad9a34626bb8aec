"""The data set inside the package: 10,000 + 2,000 images of Fashion-MNIST, for a first run without a download.

The file is the gzip of four concatenated idx arrays, made by ``tools/make_embedded.py``. Gzip decodes ten times faster
than xz here, at 5.2 MB instead of 4.5.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from importlib.resources import files
from pathlib import Path

from sublevel.data.idx import FASHION_CLASSES, assemble, parse_idx
from sublevel.data.sources import Dataset, source
from sublevel.errors import DataError

FILE = "fashion-mnist-small.idx.gz"
SHA256 = "dc0289273c8bbcf299620bc123dadb811b6f04ead83d54641d1196c9bef7c4da"  # of the uncompressed bytes


@source("fashion-mnist-small")
def fashion_mnist_small(root: Path | None = None) -> Dataset:
    """The first 1,000 training and 200 test images of every class of Fashion-MNIST, in file order.

    Embedded under the MIT licence of Zalando SE; ``root`` is not used.
    """
    folder = files("sublevel.data") / "embedded"
    raw = unpack(folder.joinpath(FILE).read_bytes(), FILE, SHA256)
    arrays, end = [], 0
    for axes in (3, 1, 3, 1):
        array, end = parse_idx(raw, axes, end)
        arrays.append(array)
    origin = f"Fashion-MNIST (Zalando SE, MIT licence), first 1,000 + 200 of each class, embedded, sha256 {SHA256}"
    return assemble("fashion-mnist-small", arrays, FASHION_CLASSES, origin)


def unpack(packed: bytes, name: str, sha256: str) -> bytes:
    """The bytes in ``packed``; raises `DataError` with the file, the expected and the found sha256."""
    try:
        raw = gzip.decompress(packed)
        got = hashlib.sha256(raw).hexdigest()
    except (OSError, EOFError, zlib.error) as problem:
        raw, got = b"", f"bytes that do not decompress ({problem})"
    if got != sha256:
        raise DataError(f"embedded file {name} is damaged: expected sha256 {sha256}, got {got}; reinstall sublevel")
    return raw
