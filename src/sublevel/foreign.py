"""Untrusted input: text to display, and documents to read.

Anybody may have made a ticket, an archive, a log, a run's folder or a store, and the names in them.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

DEEPEST = 100
"""Maximum nesting depth of a document. Our documents have ten levels."""

LARGEST = 2**24
"""Bytes of a document that is still read: some 40,000 cells of a run."""

MOST_VALUES = 2**20
"""Maximum number of values of a document: in Python one of two bytes takes a hundred. `LARGEST` bytes of a run's
description hold some 600,000."""

LARGEST_NUMBER = 2**64

FREE = 2**28
"""Bytes (or pixels) to which any compressed file may expand."""

RATIO = 200
"""Maximum expansion ratio above `FREE`. Archives of images expand 1 to 20 times."""

LONGEST_LISTING = 2**25
"""Maximum bytes of the listing of a zip file, which Python parses before it returns the first member: 46 bytes and a
name for each, so some 300,000 images."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_FORMULA = re.compile(r"[=+\-@\t\r]")


def plain(text: str) -> str:
    r"""Escape control characters, so that untrusted text is safe on a terminal, in a log, in SVG and in a file.

    This includes escape sequences, marks that change the writing direction, and lone surrogates; line ends and tabs
    stay.

    >>> plain("imp\x1b[2J\u202e")
    'imp\\x1b[2J\\u202e'
    >>> plain("Größe 大小")
    'Größe 大小'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain_all(value: Any) -> Any:
    """A document with `plain` applied to all texts and keys."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_all(name): plain_all(each) for name, each in value.items()}
    return [plain_all(each) for each in value] if isinstance(value, list | tuple) else value


def csv_cell(value: Any) -> Any:
    """A value for a CSV file: text that a spreadsheet would run as a formula gets a leading apostrophe. Numbers stay
    numbers.

    >>> csv_cell("=1+1"), csv_cell("imp"), csv_cell(-0.5)
    ("'=1+1", 'imp', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if _FORMULA.match(text) else text


def load_json(data: bytes | str, *, numbers: bool = True) -> Any:
    """Parse a JSON document.

    Raises ValueError for invalid JSON, more than `LARGEST` bytes, `MOST_VALUES` values or `DEEPEST` levels, text that
    is not UTF-8, and, if ``numbers`` are checked, NaN, infinities and integers beyond 64 bits.
    """
    check_size(data)
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError(f"it is more than {DEEPEST} levels deep") from None
    return bounded(found, numbers=numbers)


def check_size(data: bytes | str) -> None:
    """Raise ValueError if a JSON document has more than `LARGEST` bytes or `MOST_VALUES` values."""
    if len(data) > LARGEST:
        raise ValueError(f"it has {len(data):,} bytes; allowed: {LARGEST:,}")
    # every value but the outermost follows a comma or begins a list or group
    values = sum(map(data.count, ",[{") if isinstance(data, str) else map(data.count, b",[{"))
    if values >= MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")


def load_tensors(data: bytes) -> dict[str, Any]:
    """The tensors of safetensors bytes, on the CPU. Raises ValueError if the bytes are not valid.

    The header is a document like any other: a tensor costs a thousand bytes of memory, even if it is empty.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        check_size(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load(data)
    except (SafetensorError, OverflowError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"it is no safetensors file: {error}") from None


def opened(path: Path) -> BinaryIO:
    """Open a file for reading. OSError where it is no plain file: opening a pipe would wait for a writer."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return file


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError as `load_json` does, OSError if the file cannot be read."""
    with opened(path) as file:
        return load_json(file.read(LARGEST + 1))


def bounded(document: Any, *, numbers: bool = True) -> Any:
    """Return the document. Raises ValueError if it is too deep, or has text or ``numbers`` that JSON cannot hold."""
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, list | tuple):
                below += value
            elif isinstance(value, str):
                if not value.isascii() and value.encode(errors="replace").decode() != value:
                    raise ValueError(f"it holds text that is not UTF-8: {value[:40]!a}")
            elif isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101 - the second is slow
                below += value
                below += value.values()
            elif numbers and isinstance(value, float):
                if not math.isfinite(value):
                    raise ValueError(f"it holds the number {value}")
            elif numbers and isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
                raise ValueError("it holds a whole number of more than 64 bits")
        if not below:
            return document
        level = below
    raise ValueError(f"it is more than {DEEPEST} levels deep")


class _Listed(io.BufferedReader):
    """A zip file. Raises ValueError for a read of more than `LONGEST_LISTING` bytes; content is read in small parts."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        if size is not None and size > LONGEST_LISTING:
            raise ValueError(f"the listing of its members has {size:,} bytes; allowed: {LONGEST_LISTING:,}")
        return super().read(size)


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file for reading. Raises ValueError for a listing of more than `LONGEST_LISTING` bytes."""
    with _Listed(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        yield archive


def check_zip(path: Path) -> None:
    """Raise ValueError for a zip file, such as ``.npz`` or ``.pt``, with too large a listing or declared content."""
    if not zipfile.is_zipfile(path):
        return
    with opened_zip(path) as archive:
        becomes = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if becomes > max(FREE, RATIO * size):
        raise ValueError(f"its {size:,} bytes become {becomes:,}: it is a compression bomb")
