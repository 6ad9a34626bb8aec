"""Leases: which run computes which cell at the moment, so that no other does.

A lease is a file ``leases/KEY.GENERATION`` that only one run can make. Its run touches it while it works; one that is
silent for the seconds that it names is stale, and one whose process is known to be dead is stale at once. A stale lease
is taken over by making the next generation. Time is read from the store's own clock, since the clocks of two machines
need not agree.

Leases save work and decide nothing: two runs that compute one cell write equivalent entries.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from sublevel.errors import ConfigError
from sublevel.study.store.backend import Backend, File, refusing
from sublevel.study.store.content import digest, sealed, unsealed

SECONDS = 90.0
"""Silence after which a run is taken for dead, unless ``SUBLEVEL_LEASE`` says otherwise."""

BEATS = 6
"""How often a lease is touched in that time."""


class Leases:
    """The leases of one run; a context that gives back what is still held at its end.

    ``seconds`` is the silence after which others may take a lease over.
    """

    def __init__(self, files: Backend, seconds: float | None = None) -> None:
        self.seconds = _seconds() if seconds is None else seconds
        self._files = files
        self._held: dict[str, str] = {}
        self._holding = threading.Lock()
        self._run = uuid.uuid4().hex
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Leases:
        self._heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._heart.join()
        for key in list(self._held):
            with suppress(OSError):
                self._drop(key)

    def claim(self, key: str) -> bool:
        """Whether this run has the cell now; False if another holds it, which is alive as far as can be known.

        Whoever has claimed a cell looks for its entry first: another run may have finished it just before.
        """
        with refusing(f"cannot write to the store in {self._files.where}"):
            before = standing(self._files, key)
            if before and alive(self._files, before[-1], self.seconds):
                return False
            name = f"leases/{key}.{generation(before[-1]) + 1 if before else 0}"
            if not self._files.create(name, self._text()):
                return False
            if [file for file in standing(self._files, key) if file.name != name] != before:
                self._files.remove(name)  # another run came between; both step back and come again
                return False
            self._held[key] = name
            return True

    def release(self, key: str) -> None:
        """Give a cell back, finished or not."""
        with refusing(f"cannot write to the store in {self._files.where}"):
            self._drop(key)

    def _drop(self, key: str) -> None:
        with self._holding:
            mine = self._held.pop(key)
            for file in standing(self._files, key):
                if generation(file) <= _generation(mine):
                    self._files.remove(file.name)

    def _beat(self) -> None:
        while not self._over.wait(self.seconds / BEATS):
            for key in list(self._held):
                self._touch(key)

    def _touch(self, key: str) -> None:
        """Not while it is dropped: where a touch is a write, it would make the lease again."""
        with self._holding, suppress(OSError):  # taken over, or a server that is away: others will see the silence
            if key in self._held:
                self._files.touch(self._held[key])

    def _text(self) -> bytes:
        about = {"run": self._run, "seconds": self.seconds, "machine": machine(), "pid": os.getpid()}
        return sealed(about | {"born": _born(os.getpid())})


def standing(files: Backend, key: str) -> list[File]:
    """The leases on a key, the one that counts last."""
    return sorted(files.files(f"leases/{key}."), key=generation)


def leased(files: Backend) -> set[str]:
    """The keys that have a lease, alive or not."""
    return {file.name.partition("/")[2].partition(".")[0] for file in files.files("leases/")}


def alive(files: Backend, lease: File, seconds: float = SECONDS) -> bool:
    """Whether the run that holds a lease still works on it, as far as can be known.

    ``seconds`` of silence are allowed where the lease does not say: it is not filled yet, or damaged.
    """
    try:
        about = unsealed(files.read(lease.name))
    except FileNotFoundError:
        return False
    if about is not None:
        if _dead(about):
            return False
        seconds = float(about.get("seconds", seconds))
    now = files.now()
    found = files.look(lease.name)
    return found is not None and now - found.modified < seconds


def generation(file: File) -> int:
    """The number at the end of a lease's name."""
    return _generation(file.name)


def _generation(name: str) -> int:
    end = name.rpartition(".")[2]
    return int(end) if end.isdecimal() else -1


def _seconds() -> float:
    said = os.environ.get("SUBLEVEL_LEASE", "")
    try:
        seconds = float(said) if said else SECONDS
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds < float("inf"):
        raise ConfigError(f"SUBLEVEL_LEASE is a number of seconds, at least 0.5; got {said!r}")
    return seconds


@cache
def machine() -> str:
    """A name for what gives processes their numbers: this boot of this machine, and the container; '' if unknown."""
    if sys.platform == "darwin":
        return digest(f"{platform.node()} {uuid.getnode()}".encode())[:16]
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        return digest((boot + os.readlink("/proc/self/ns/pid")).encode())[:16]
    except OSError:
        return ""


def _dead(about: dict[str, Any]) -> bool:
    """Whether the process of a lease is known to be dead: it was here, and is here no more."""
    if not machine() or about.get("machine") != machine():
        return False
    pid = int(about["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    found = _process(pid)
    return found is not None and (found.state in "ZX" or found.born != about["born"])


def _born(pid: int) -> str:
    found = _process(pid)
    return found.born if found else ""


@dataclass(frozen=True)
class _Process:
    state: str
    born: str


def _process(pid: int) -> _Process | None:
    """State and time of birth; a number is given again after a while, the two together are not."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _Process(words[0], words[19])
