"""A training that is under way, kept beside the entries: the next run of its cell goes on from there, to the same bits.

``partial/KEY`` holds a SHA-256 and, under it, a safetensors file. It belongs to one key, so to one recipe, one network
and one numerics class; it is read only if it is whole, replaced as a whole, and gone when the cell has its entry.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any

from sublevel.engine.store import Backend, digest, partial_name, refusing, serialised
from sublevel.engine.store.entries import checked_read
from sublevel.errors import ConfigError, DamagedEntry, StoreError
from sublevel.train import resume
from sublevel.train.resume import Standing

SECONDS = 300.0
"""Seconds of training between two standings that are kept, unless ``SUBLEVEL_KEEP`` says otherwise."""

SHARE = 20
"""Keeping takes at most one part in so many of a run's time: a large network is kept less often."""


class Reader:
    """Tells where one cell's training stands, and keeps nothing itself (`sublevel.train.resume.Keeper`)."""

    def __init__(self, files: Backend, key: str) -> None:
        self._files, self._name, self._key = files, partial_name(key), key

    def due(self) -> bool:
        """Never."""
        return False

    def keep(self, standing: Standing) -> None:
        """Nothing."""

    def kept(self) -> Standing | None:
        """The last standing; None where there is none, or none that is whole. StoreError if it cannot be read."""
        try:
            with refusing(f"cannot read the store in {self._files.where}", but=FileNotFoundError):
                return checked_read(self._files, self._name, lambda data: _standing(self._key, data))
        except (FileNotFoundError, DamagedEntry):
            return None


class Partial(Reader):
    """The keeper of one cell's training."""

    def __init__(self, files: Backend, key: str) -> None:
        super().__init__(files, key)
        self._every = _seconds()
        self._next = time.monotonic() + self._every

    def due(self) -> bool:
        """Whether the seconds have gone by."""
        return time.monotonic() >= self._next

    def keep(self, standing: Standing) -> None:
        """Write the standing in place of the one before.

        Raises StoreError where that is refused: a disk that is full now will be full for the entry too.
        """
        began = time.monotonic()
        about = {"step": standing.step, "total": standing.total, "seen": standing.seen, "history": standing.history}
        data = serialised(resume.tensors(standing))
        with refusing(f"cannot keep a training in {self._files.where}"):
            self._files.write(self._name, _sealed(self._key, about, data))
        now = time.monotonic()
        self._next = now + max(self._every, SHARE * (now - began))

    def drop(self) -> None:
        """The cell has its entry: this is of no more use."""
        with suppress(OSError, StoreError):
            self._files.remove(self._name)


def _sealed(key: str, about: dict[str, Any], data: bytes) -> bytes:
    """A line with a digest of all that follows, a line of JSON, the tensors."""
    rest = json.dumps({"key": key, **about}).encode() + b"\n" + data
    return digest(rest).encode() + b"\n" + rest


def _standing(key: str, data: bytes) -> Standing | None:
    """The standing in a file; None for what is damaged, misshapen, or another cell's."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = _unsealed(key, data)
        if found is None:
            return None
        about, tensors = found[0], load(found[1])
        return Standing(state=resume.state(tensors), saved=resume.points(tensors), **about)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError):
        return None


def _unsealed(key: str, data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The way back from `_sealed`; None for what is damaged, or another cell's."""
    said, _, rest = data.partition(b"\n")
    if said != digest(rest).encode():
        return None
    line, _, tensors = rest.partition(b"\n")
    about = json.loads(line)
    return (about, tensors) if about.pop("key") == key else None


def _seconds() -> float:
    said = os.environ.get("SUBLEVEL_KEEP", "")
    try:
        seconds = float(said) if said else SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"SUBLEVEL_KEEP is a number of seconds, 0 or more; got {said!r}")
    return seconds
