"""A cell under way, kept beside the entries: the next attempt at it goes on from there.

``partial/KEY`` holds a SHA-256 and, under it, a line of JSON and bytes. It belongs to one key; it is read only if it is
whole, replaced as a whole, and gone when the cell has its entry.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress

from sublevel.engine.store import Document, digest, store_errors
from sublevel.engine.store.backend import Backend
from sublevel.engine.store.leases import seconds_of
from sublevel.engine.store.names import partial_name
from sublevel.engine.store.reading import read_or_none
from sublevel.errors import StoreError

SECONDS = 300.0
"""Seconds between two times that a cell is kept, unless ``SUBLEVEL_KEEP`` says otherwise."""

SHARE = 20
"""Keeping takes at most one part in so many of a cell's time: what is large is kept less often."""


class Partial:
    """What is kept of one cell. Where ``keeps`` is False it is never time to keep it: another process does."""

    def __init__(self, files: Backend, key: str, *, keeps: bool = True) -> None:
        self._files, self._name, self._key = files, partial_name(key), key
        self._every = seconds_of("SUBLEVEL_KEEP", SECONDS, 0, math.inf) if keeps else math.inf
        self._next = time.monotonic() + self._every

    def due(self) -> bool:
        """Whether it is time to keep the cell again."""
        return time.monotonic() >= self._next

    def write(self, about: Document, data: bytes) -> None:
        """Keep JSON and bytes in place of those before.

        Raises StoreError where that is refused: a disk that is full now will be full for the entry too.
        """
        began = time.monotonic()
        rest = json.dumps({"key": self._key, **about}).encode() + b"\n" + data
        with store_errors(f"cannot keep a training in {self._files.where}"):
            self._files.write(self._name, digest(rest).encode() + b"\n" + rest)
        now = time.monotonic()
        self._next = now + max(self._every, SHARE * (now - began))

    def read(self) -> tuple[Document, bytes] | None:
        """What was kept last; None where there is nothing, or nothing whole. StoreError if it cannot be read."""
        with store_errors(f"cannot read the store in {self._files.where}"):
            return read_or_none(self._files, self._name, self._parsed)

    def drop(self) -> None:
        """Remove it: the cell has its entry."""
        with suppress(OSError, StoreError):
            self._files.remove(self._name)

    def _parsed(self, data: bytes) -> tuple[Document, bytes] | None:
        """JSON and bytes from a file; None for what is damaged, or another cell's."""
        said, _, rest = data.partition(b"\n")
        line, _, kept = rest.partition(b"\n")
        try:
            about = json.loads(line) if said == digest(rest).encode() else {}
            return (about, kept) if about.pop("key") == self._key else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
