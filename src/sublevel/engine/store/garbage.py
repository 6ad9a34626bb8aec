"""Garbage collection: remove what no known study reaches any more.

Files younger than an hour by the store's clock stay, and so do leased cells: a run may have written an object but not
its entry yet. A run touches the old files that it uses. Entries are removed before their objects, so no entry is left
without them. If a run loses a file between its look and the removal, it computes the cell again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sublevel.engine.store.backend import Backend, File
from sublevel.engine.store.content import Document
from sublevel.engine.store.entries import Store
from sublevel.engine.store.leases import leased
from sublevel.engine.store.names import CELLS, DAMAGED, LEASES, OBJECTS, PARTIAL, TMP, key_of
from sublevel.engine.store.reading import entry_or_none, kept_objects
from sublevel.engine.store.roots import Root, used

HOUR = 3600.0
"""Seconds for which a file stays after it was written or touched."""

WEEK = 7 * 24 * HOUR
"""Seconds for which an interrupted training stays, for a run to resume it."""


@dataclass
class Collected:
    """Numbers of removed (or removable) ``entries`` by study, ``objects`` and ``other`` files."""

    entries: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    other: int = 0
    size: int = 0
    kept: int = 0


Release = Callable[[Document], Iterable[str]]
"""From an entry to the names of its objects that may be released."""


def collect(store: Store, roots: Iterable[Root], *, remove: bool, release: Release = lambda body: ()) -> Collected:
    """Remove what no root reaches, or only count it.

    ``release`` names objects to remove from entries that only finished studies reach. The entry records that, and a
    cell that needs such an object later has it made again.
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
        """Collect entries first, then the objects that none of those left reaches."""
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
        body = entry_or_none(self._files, key) or {} if key else {}
        name = str(body.get("labels", {}).get("study", "?"))
        unfinished = name in self._names or key in self._open | self._held
        if key in self._keys or unfinished or not self._gone(file):
            self._done.kept += 1
            if body:
                self._keep(file, key, body, whole=unfinished)
        else:
            self._done.entries[name] += 1

    def _keep(self, file: File, key: str, body: Document, whole: bool) -> None:
        """Count what a kept entry reaches; release its objects unless it is needed ``whole``."""
        names = set() if whole or file.modified > self._before else set(self._release(body)) & kept_objects(body)
        if names and self._remove:
            body = body | {"released": sorted({*body.get("released", ()), *names})}
            self._store.write_entry(key, body)
        self._released |= names
        self._objects.update(used(body))
        if whole:
            self._wanted.update(used(body))

    def _gone(self, file: File) -> bool:
        """Remove a file if it is old and was not touched since it was listed; return whether it was."""
        if file.modified > self._before or (self._remove and self._files.look(file.name) != file):
            return False
        if self._remove:
            self._files.remove(file.name)
        self._done.size += file.size
        return True


def _about_now(files: Backend) -> float:
    """The time by the store's clock, or by this machine's if the store is read-only."""
    try:
        return files.now()
    except OSError:
        return time.time()
