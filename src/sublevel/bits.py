"""The column ``bits`` of the table ``correct``: one bit for each example, as text."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray


def pack(correct: NDArray[np.bool_]) -> str:
    """Return base64 of ``numpy.packbits``: the first example is the highest bit of the first byte.

    >>> pack(np.array([True, False, True]))
    'oA=='
    """
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def unpack(bits: str, examples: int) -> NDArray[np.bool_] | None:
    """Undo `pack`; return None if ``bits`` does not hold that many examples.

    >>> unpack("oA==", 3).tolist(), unpack("oA==", 9)
    ([True, False, True], None)
    """
    try:
        packed = np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError):
        return None
    return np.unpackbits(packed, count=examples).astype(bool) if len(packed) == -(-examples // 8) else None
