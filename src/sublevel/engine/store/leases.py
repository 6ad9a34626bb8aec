"""Leases: which run computes which cell now, so that no other run repeats the work.

A lease is a file ``leases/KEY.GENERATION`` that only one run can create. Its run touches it while it works. A lease is
stale if it was not touched for the seconds that it names, or if its process is known to be dead. Another run takes over
by creating the next generation. Times are read from the store's clock, since clocks of machines may differ. If a
lease's time lies in the future (the clock was set back, or the store was copied), it is stale once this run has seen it
unchanged for the seconds that it names.

Leases only save work: two runs that compute one cell write equivalent entries.
"""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from contextlib import suppress
from types import TracebackType

from sublevel.engine.store.backend import Backend, File, store_errors
from sublevel.engine.store.content import sealed, unsealed
from sublevel.engine.store.names import LEASES, key_of, lease_name
from sublevel.errors import ConfigError, StoreError
from sublevel.processes import dead, machine, own

__all__ = ["Leases", "alive", "generation", "leased", "machine", "standing"]

SECONDS = 90.0
"""Seconds of silence after which a run counts as dead; ``SUBLEVEL_LEASE`` overrides it."""

LEAST = 0.5
"""The least seconds of silence: a lease is touched six times in it."""

CLOSE = 1.0
"""Seconds by which two readings of one clock may differ."""

LONGEST = 3600.0
"""The most seconds of silence, whatever a lease names."""

LARGEST_LEASE = 2**16
"""Bytes of the largest lease that is read; a larger one is damaged."""

BEATS = 6
"""Number of times that a lease is touched in its seconds of silence."""


class Leases:
    """The leases of one run, as a context that releases them at its end.

    Other runs may take over after ``seconds`` of silence.
    """

    def __init__(self, files: Backend, seconds: float | None = None) -> None:
        usual = seconds_of("SUBLEVEL_LEASE", SECONDS, LEAST, LONGEST)
        self.seconds = usual if seconds is None else seconds
        self._files = files
        self._held: dict[str, str] = {}
        self._holding = threading.Lock()
        self._run = uuid.uuid4().hex
        self._watched: dict[File, float] = {}
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Leases:
        try:
            self._heart.start()
        except RuntimeError as error:
            raise StoreError(f"the leases of a run need a thread, and this user can start no more: {error}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._heart.join()
        for key in list(self._held):
            with suppress(OSError, StoreError):
                self._drop(key)

    def claim(self, key: str) -> bool:
        """Claim a cell; False if another run, not known to be dead, holds it.

        After a claim, look for the cell's entry: another run may have just finished it.
        """
        with store_errors(f"cannot write to the store in {self._files.where}"):
            before = standing(self._files, key)
            if before and alive(self._files, before[-1], self.seconds, self._watched):
                return False
            name = lease_name(key, generation(before[-1]) + 1 if before else 0)
            text = sealed({"run": self._run, "seconds": self.seconds, **own()})
            if not self._files.create(name, text):
                return False
            self._held[key] = name
            if [file for file in standing(self._files, key) if file.name != name] != before:
                with self._holding:  # another run came between; both step back and come again
                    self._files.remove(name)
                    del self._held[key]
                return False
            return True

    def release(self, key: str) -> None:
        """Release a cell, finished or not."""
        with store_errors(f"cannot write to the store in {self._files.where}"):
            self._drop(key)

    def _drop(self, key: str) -> None:
        with self._holding:
            for file in standing(self._files, key):
                if generation(file) <= generation(self._held[key]):
                    self._files.remove(file.name)
            del self._held[key]  # now that it is gone; else the end of the run tries again

    def _beat(self) -> None:
        while not self._over.wait(self.seconds / BEATS):
            for key in list(self._held):
                # held back while one is dropped: where a touch is a write, it would make the lease again
                with self._holding, suppress(OSError):  # taken over, or a server that is away: others see the silence
                    if key in self._held:
                        self._files.touch(self._held[key])


def standing(files: Backend, key: str) -> list[File]:
    """The leases on a key; the last one counts."""
    return sorted(files.files(lease_name(key, "")), key=generation)


def leased(files: Backend) -> set[str]:
    """The keys that have a lease, stale or not."""
    return {key_of(file.name) for file in files.files(LEASES)}


def alive(files: Backend, lease: File, seconds: float, watched: dict[File, float]) -> bool:
    """Whether a lease is not stale, as far as is known.

    ``seconds`` of silence are allowed if the lease names none: it is empty yet, or damaged. ``watched`` holds leases
    from the future that were seen before, with the monotonic time of the first look.
    """
    try:
        about = (unsealed(files.read(lease.name)) or {}) if lease.size <= LARGEST_LEASE else {}
    except FileNotFoundError:
        return False
    if dead(about):
        return False
    said = about.get("seconds")
    if not isinstance(said, bool) and isinstance(said, int | float) and said == said:
        seconds = min(max(said, LEAST), LONGEST)
    now = files.now()
    found = files.look(lease.name)
    if found is None:
        return False
    if found.modified <= now + CLOSE:
        return now - found.modified < seconds
    return time.monotonic() - watched.setdefault(found, time.monotonic()) < seconds


def generation(lease: File | str) -> int:
    """The number at the end of a lease's name."""
    end = (lease if isinstance(lease, str) else lease.name).rpartition(".")[2]
    return int(end) if end.isdecimal() else -1


def seconds_of(variable: str, usual: float, least: float, most: float) -> float:
    """The seconds that an environment variable sets, or the usual ones. ConfigError if they are out of bounds."""
    said = os.environ.get(variable, "")
    try:
        seconds = float(said) if said else usual
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= most or seconds == math.inf:
        bounds = f"{least:g} or more" + (f" and at most {most:g}" if most < math.inf else "")
        raise ConfigError(f"{variable} is a number of seconds, {bounds}; got {said!r}")
    return seconds
