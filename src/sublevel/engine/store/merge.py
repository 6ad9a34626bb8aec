"""Merging: what another store or an archive has, and this one has not."""

from __future__ import annotations

from dataclasses import dataclass

from sublevel.engine.store import roots
from sublevel.engine.store.archive import Source
from sublevel.engine.store.content import Document
from sublevel.engine.store.entries import Store, checked_read, entry_in, there, whole, whole_object
from sublevel.engine.store.names import CELLS, STUDIES, key_of, object_name


@dataclass
class Merged:
    """Entries ``added``, ``there`` before, of these ``different`` in their numbers, and ``broken`` where they are."""

    added: int = 0
    there: int = 0
    different: int = 0
    broken: int = 0
    studies: int = 0


def merge(store: Store, source: Source) -> Merged:
    """Take over every entry that is whole, with its objects, and every root. What is here already stays as it is.

    Nothing is changed where it comes from.
    """
    done = Merged()
    for file in source.files(CELLS):
        if key := key_of(file.name):
            _entry(store, source, key, done)
    for file in source.files(STUDIES):
        root = whole(source, file.name, roots.whole_root)
        if root is None or root.file != file.name:
            continue
        for name in sorted(root.objects):
            _object(store, source, name)
        roots.join(store, root)
        done.studies += 1
    return done


def _entry(store: Store, source: Source, key: str, done: Merged) -> None:
    body = _whole(source, key)
    mine = store.read_entry(key)
    if mine is not None:
        done.there += 1
        done.different += body is not None and any(mine.get(part) != body.get(part) for part in ("values", "objects"))
    elif body is None:
        done.broken += 1
    else:
        for name in sorted(set(roots.used(body)) - there(body)):
            _object(store, source, name)
        for name in sorted(there(body)):
            store.put(checked_read(source, object_name(name), whole_object(name)))
        store.write_entry(key, body)
        done.added += 1


def _whole(source: Source, key: str) -> Document | None:
    """The entry of a key with all its objects, or None."""
    body = entry_in(source, key)
    found = (whole(source, object_name(name), whole_object(name)) for name in there(body or {"objects": {}}))
    return body if all(data is not None for data in found) else None


def _object(store: Store, source: Source, name: str) -> None:
    """Take over an object that may be there or not, such as data that a cell was computed from."""
    data = whole(source, object_name(name), whole_object(name))
    if data is not None:
        store.put(data)
