"""How much a file of somebody else's may become when it is read: bombs are refused, honest compression is not."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

from sublevel.foreign import FREE, RATIO

LARGEST_FILE = 2**28
"""Bytes of one image file, unpacked. An uncompressed 16-bit colour image of `LARGEST_IMAGE` pixels is smaller."""

LARGEST_IMAGE = 2**25
"""Pixels of one image: 33.5 million, some 8000 x 4000."""

PIXELS_RATIO = 1_000
"""How many pixels a byte of an image file may become beyond that: a plain white PNG has some 1,000."""


class Allowance:
    """Counts what comes out of files, and raises ValueError where they are bombs.

    At most ``max(FREE, ratio * size)`` may come out of ``size`` bytes, in all.

    >>> Allowance(1_000).take(FREE + 1)
    Traceback (most recent call last):
    ...
    ValueError: 1,000 bytes become more than 268,435,456: this is a compression bomb
    """

    def __init__(self, size: int = 0, ratio: int = RATIO) -> None:
        self._size, self._ratio, self._taken = size, ratio, 0

    def take(self, n: int, size: int = 0) -> None:
        """Count ``n`` more, of another ``size`` bytes."""
        self._size, self._taken = self._size + size, self._taken + n
        allowed = max(FREE, self._ratio * self._size)
        if self._taken > allowed:
            raise ValueError(f"{self._size:,} bytes become more than {allowed:,}: this is a compression bomb")


class Counted(io.RawIOBase):
    """A stream whose bytes are counted as they are read; ``take`` may raise."""

    def __init__(self, stream: IO[bytes], take: Callable[[int], None]) -> None:
        self._stream, self._take = stream, take

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all of them only as far as they are allowed."""
        data = self._stream.read(size if size >= 0 else LARGEST_FILE + 1)
        self._take(len(data))
        return data


def whole(stream: IO[bytes], name: str) -> bytes:
    """All bytes of a member or a file. ValueError where there are more than `LARGEST_FILE`."""
    data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{name} has more than {LARGEST_FILE:,} bytes, which no image has")
    return data
