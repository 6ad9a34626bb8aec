"""Merging: take over the results of another store or of an archive."""

from __future__ import annotations

from dataclasses import dataclass

from sublevel.engine.store import roots
from sublevel.engine.store.entries import Store
from sublevel.engine.store.names import CELLS, STUDIES, key_of, object_name
from sublevel.engine.store.reading import (
    Readable,
    checked_read,
    entry_or_none,
    kept_objects,
    object_or_none,
    object_parser,
    read_or_none,
)  # fmt: skip


@dataclass
class Merged:
    """Numbers of entries: ``added``, ``there`` before, ``different`` among those, and ``broken`` in the source."""

    added: int = 0
    there: int = 0
    different: int = 0
    broken: int = 0
    studies: int = 0


def merge(store: Store, source: Readable) -> Merged:
    """Copy every undamaged entry with its objects, and every root. Existing entries stay; the source is only read."""
    done = Merged()
    for file in source.files(CELLS):
        if key := key_of(file.name):
            _entry(store, source, key, done)
    for file in source.files(STUDIES):
        root = read_or_none(source, file.name, roots.parse_root)
        if root is None or root.file != file.name:
            continue
        for name in sorted(root.objects):
            _object(store, source, name)
        roots.join(store, root)
        done.studies += 1
    return done


def _entry(store: Store, source: Readable, key: str, done: Merged) -> None:
    body = entry_or_none(source, key)
    if body is not None and any(object_or_none(source, name) is None for name in kept_objects(body)):
        body = None
    mine = store.read_entry(key)
    if mine is not None:
        done.there += 1
        done.different += body is not None and any(mine.get(part) != body.get(part) for part in ("values", "objects"))
    elif body is None:
        done.broken += 1
    else:
        for name in sorted(set(roots.used(body)) - kept_objects(body)):
            _object(store, source, name)
        for name in sorted(kept_objects(body)):
            store.put(checked_read(source, object_name(name), object_parser(name)))
        store.write_entry(key, body)
        done.added += 1


def _object(store: Store, source: Readable, name: str) -> None:
    """Copy an object that may be missing, such as the data that a cell was computed from."""
    data = object_or_none(source, name)
    if data is not None:
        store.put(data)
