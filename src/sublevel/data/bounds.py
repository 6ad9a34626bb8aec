"""Limits on the expanded size of untrusted files: compression bombs are refused, ordinary compression is accepted."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

from sublevel.foreign import FREE, RATIO
from sublevel.memory import free

LARGEST_FILE = 2**28
"""Bytes of one image file, unpacked. An uncompressed 16-bit colour image of `LARGEST_IMAGE` pixels is smaller."""

LARGEST_IMAGE = 2**25
"""Pixels of one image: 33.5 million, some 8000 x 4000."""

PIXELS_RATIO = 1_000
"""Maximum pixels per byte of an image file, above `FREE`: a plain white PNG has about 1,000."""


class Allowance:
    """Counts the expanded size of files; raises ValueError for compression bombs.

    Files of ``size`` bytes may expand to ``max(FREE, ratio * size)`` in all.

    >>> Allowance(1_000).take(FREE + 1)
    Traceback (most recent call last):
    ...
    ValueError: 1,000 bytes become more than 268,435,456: this is a compression bomb
    """

    def __init__(self, size: int = 0, ratio: int = RATIO) -> None:
        self._size, self._ratio, self._taken = size, ratio, 0

    def take(self, n: int, size: int = 0) -> None:
        """Count ``n`` more expanded bytes from ``size`` more file bytes."""
        self._size, self._taken = self._size + size, self._taken + n
        allowed = max(FREE, self._ratio * self._size)
        if self._taken > allowed:
            raise ValueError(f"{self._size:,} bytes become more than {allowed:,}: this is a compression bomb")


def check_fits(n: int) -> None:
    """Raise ValueError for ``n`` bytes that do not fit into the free memory, such as those of a file with holes."""
    room = free()
    if n > room:
        raise ValueError(f"it takes {n:,} bytes, and {room:,.0f} bytes of memory are free")


def check_wide(n: int, size: int) -> None:
    """Raise ValueError for ``n`` bytes in memory from a file of ``size`` bytes if that is a compression bomb."""
    Allowance(size).take(n)
    check_fits(n)


class Counted(io.RawIOBase):
    """A stream that passes the number of read bytes to ``take``, which may raise."""

    def __init__(self, stream: IO[bytes], take: Callable[[int], None]) -> None:
        self._stream, self._take = stream, take

    def readable(self) -> bool:
        """Always True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes; ``size`` -1 reads all, up to the limit."""
        data = self._stream.read(size if size >= 0 else LARGEST_FILE + 1)
        self._take(len(data))
        return data


def whole(stream: IO[bytes], name: str) -> bytes:
    """All bytes of a member or a file. Raises ValueError above `LARGEST_FILE`."""
    data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{name} has more than {LARGEST_FILE:,} bytes, which no image has")
    return data
