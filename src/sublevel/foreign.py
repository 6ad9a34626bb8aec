"""What comes from others: text that is shown to a person, and documents that are read.

A ticket, an archive, a log, a run's folder or a store may come from anybody, and so may the names in them.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

DEEPEST = 100
"""How many lists and groups a document has inside each other. Ours have ten."""

LARGEST = 2**24
"""Bytes of a document that is still read: some 40,000 cells of a run."""

LARGEST_NUMBER = 2**64

FREE = 2**28
"""Bytes (or pixels) that a compressed file may become, whatever its size."""

RATIO = 200
"""How many times its size a compressed file may become beyond that. Archives of images grow by 1 to 20."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_FORMULA = re.compile(r"[=+\-@\t\r]")


def plain(text: str) -> str:
    r"""Text of somebody else's that is safe on a terminal, in a log, in SVG and in a file: control characters are
    written out.

    Escape sequences, the marks that turn the direction of writing, and halves of surrogate pairs count among them;
    line ends and tabs stay.

    >>> plain("imp\x1b[2J\u202e")
    'imp\\x1b[2J\\u202e'
    >>> plain("Größe 大小")
    'Größe 大小'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain_all(value: Any) -> Any:
    """A document with `plain` texts, names of its groups included."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_all(name): plain_all(each) for name, each in value.items()}
    return [plain_all(each) for each in value] if isinstance(value, list | tuple) else value


def csv_cell(value: Any) -> Any:
    """A value as a CSV file may hold it: text that a spreadsheet would run as a formula begins with an apostrophe.

    Numbers stay numbers.

    >>> csv_cell("=1+1"), csv_cell("imp"), csv_cell(-0.5)
    ("'=1+1", 'imp', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if _FORMULA.match(text) else text


def load_json(data: bytes | str) -> Any:
    """A JSON document. ValueError, in a few words, for anything else.

    Refused too: more than `LARGEST` bytes, `DEEPEST` levels, NaN and infinities, whole numbers beyond 64 bits, and text
    that is no UTF-8.
    """
    if len(data) > LARGEST:
        raise ValueError(f"it has {len(data):,} bytes; allowed: {LARGEST:,}")
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError(f"it is more than {DEEPEST} levels deep") from None
    return bounded(found)


def opened(path: Path) -> BinaryIO:
    """Open a file for reading. OSError where it is no plain file: opening a pipe would wait for a writer."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return file


def read_json(path: Path) -> Any:
    """The JSON document in a file. ValueError as `load_json` raises it, OSError where the file cannot be read."""
    with opened(path) as file:
        return load_json(file.read(LARGEST + 1))


def bounded(document: Any, *, numbers: bool = True) -> Any:
    """The document itself. ValueError where it is too deep, or holds text (or ``numbers``) that JSON cannot hold."""
    level: list[Any] = [document]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, list | tuple):
                below += value
            elif isinstance(value, str):
                _text(value)
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


def check_zip(path: Path) -> None:
    """ValueError where a zip file, such as ``.npz`` or ``.pt``, says that it becomes more than its size allows."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        becomes = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if becomes > max(FREE, RATIO * size):
        raise ValueError(f"its {size:,} bytes become {becomes:,}: it is a compression bomb")


def _text(value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"it holds text that is not UTF-8: {value[:40]!a}") from None
