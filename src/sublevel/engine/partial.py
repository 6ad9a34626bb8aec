"""The saved state of a cell under way, from which the next attempt resumes.

``partial/KEY`` holds a SHA-256, a line of JSON, and bytes. It is replaced atomically, read only if undamaged, and
removed when the cell has its entry.
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
from sublevel.foreign import load_json

SECONDS = 300.0
"""Seconds between two saves; ``SUBLEVEL_KEEP`` overrides it."""

SHARE = 20
"""Saving takes at most one part in SHARE of a cell's time, so a large state is saved less often."""


class Partial:
    """The saved state of one cell. With ``keeps=False`` no save is ever due, since another process saves."""

    def __init__(self, files: Backend, key: str, *, keeps: bool = True) -> None:
        self._files, self._name, self._key = files, partial_name(key), key
        self._every = seconds_of("SUBLEVEL_KEEP", SECONDS, 0, math.inf) if keeps else math.inf
        self._next = time.monotonic() + self._every

    def due(self) -> bool:
        """Whether it is time for another save."""
        return time.monotonic() >= self._next

    def write(self, about: Document, data: bytes) -> None:
        """Save JSON and bytes in place of the last save.

        Raises StoreError if that fails: a disk that is full now would be full for the entry too.
        """
        began = time.monotonic()
        rest = json.dumps({"key": self._key, **about}).encode() + b"\n" + data
        with store_errors(f"cannot save a training in {self._files.where}"):
            self._files.write(self._name, digest(rest).encode() + b"\n" + rest)
        now = time.monotonic()
        self._next = now + max(self._every, SHARE * (now - began))

    def read(self) -> tuple[Document, bytes] | None:
        """The last save; None if it is missing or damaged. StoreError if it cannot be read."""
        with store_errors(f"cannot read the store in {self._files.where}"):
            return read_or_none(self._files, self._name, self._parsed)

    def drop(self) -> None:
        """Remove the save, once the cell has its entry."""
        with suppress(OSError, StoreError):
            self._files.remove(self._name)

    def _parsed(self, data: bytes) -> tuple[Document, bytes] | None:
        """JSON and bytes of a file; None if it is damaged or of another cell."""
        said, _, rest = data.partition(b"\n")
        line, _, kept = rest.partition(b"\n")
        try:
            about = load_json(line, numbers=False) if said == digest(rest).encode() else {}
            return (about, kept) if about.pop("key") == self._key else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
