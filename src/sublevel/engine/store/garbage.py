"""The collection of garbage: what no known study reaches any more.

What is younger than an hour by the store's clock is never touched, nor what is leased: a run that has just written an
object has not written its entry yet. A run that finds an old entry or object useful touches it. An entry goes before
its objects, so none is ever left without them; what a run loses all the same, between its look and ours, it computes
again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sublevel.engine.store.backend import Backend, File
from sublevel.engine.store.content import Document
from sublevel.engine.store.entries import Store, entry_in, there
from sublevel.engine.store.leases import leased
from sublevel.engine.store.names import CELLS, DAMAGED, LEASES, OBJECTS, PARTIAL, TMP, key_of
from sublevel.engine.store.roots import Root, used

HOUR = 3600.0
"""Seconds that everything is left alone for after it was written or touched."""

WEEK = 7 * 24 * HOUR
"""Seconds that a training which was cut short waits for the run that goes on with it."""


@dataclass
class Collected:
    """What was removed, or would be: ``entries`` by the study that computed them, ``objects``, ``other`` files."""

    entries: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    other: int = 0
    size: int = 0
    kept: int = 0


Release = Callable[[Document], Iterable[str]]
"""From an entry to the names of its objects that can be let go."""


def collect(store: Store, roots: Iterable[Root], *, remove: bool, release: Release = lambda body: ()) -> Collected:
    """Remove what no root reaches, or only count it.

    Of entries that finished studies alone reach, the objects that ``release`` names go too: the entry says so, and a
    cell that needs one of them later has it made again.
    """
    return _Collection(store, list(roots), remove, release).run()


class _Collection:
    def __init__(self, store: Store, roots: list[Root], remove: bool, release: Release) -> None:
        self._store, self._files, self._remove, self._release = store, store.files, remove, release
        self._released: set[str] = set()
        self._open = {key for root in roots if not root.finished for key in root.keys}
        self._before = (store.files.now() if remove else _about_now(store.files)) - HOUR
        self._held = leased(store.files)
        self._keys = {key for root in roots for key in root.keys} | self._held
        self._wanted = {name for root in roots for name in root.objects}
        self._objects = set(self._wanted)
        self._names = {root.name for root in roots if not root.finished}
        self._done = Collected()

    def run(self) -> Collected:
        """Entries first: what they leave unreached goes with them."""
        for file in list(self._files.files(CELLS)):
            self._entry(file)
        self._objects -= self._released - self._wanted
        for file in list(self._files.files(OBJECTS)):
            if key_of(file.name) not in self._objects:
                self._done.objects += self._gone(file)
        for file in list(self._files.files(PARTIAL)):
            if key_of(file.name) not in self._held and file.modified <= self._before - WEEK:
                self._done.other += self._gone(file)
        for folder in (TMP, LEASES, DAMAGED):
            for file in list(self._files.files(folder)):
                self._done.other += self._gone(file)
        return self._done

    def _entry(self, file: File) -> None:
        key = key_of(file.name)
        body = entry_in(self._files, key) or {} if key else {}
        name = str(body.get("labels", {}).get("study", "?"))
        unfinished = name in self._names or key in self._open | self._held
        if key in self._keys or unfinished or not self._gone(file):
            self._done.kept += 1
            if body:
                self._keep(file, key, body, whole=unfinished)
        else:
            self._done.entries[name] += 1

    def _keep(self, file: File, key: str, body: Document, whole: bool) -> None:
        """Count what an entry that stays reaches; let its objects go that can be, unless it is wanted ``whole``."""
        names = set() if whole or file.modified > self._before else set(self._release(body)) & there(body)
        if names and self._remove:
            body = body | {"released": sorted({*body.get("released", ()), *names})}
            self._store.write_entry(key, body)
        self._released |= names
        self._objects.update(used(body))
        if whole:
            self._wanted.update(used(body))

    def _gone(self, file: File) -> bool:
        """Whether a file is old, and if so remove it; one that was touched since it was listed stays."""
        if file.modified > self._before or (self._remove and self._files.look(file.name) != file):
            return False
        if self._remove:
            self._files.remove(file.name)
        self._done.size += file.size
        return True


def _about_now(files: Backend) -> float:
    """The time by the store's clock; by this machine's, where nothing can be written to ask it."""
    try:
        return files.now()
    except OSError:
        return time.time()
