"""Stores of a few bytes, written without a run."""

from __future__ import annotations

from sublevel.study.store import Root, Store, digest

NUMERICS = {"device": "cpu"}


def put(store: Store, word: str, study: str = "one", reads: str = "") -> str:
    """An entry with an object of its own, computed from the object ``reads``; its key."""
    key = digest(word.encode())
    body = {"key": key, "objects": {"end": store.put(word.encode())}, "values": {}, "labels": {"study": study}}
    store.write_entry(key, body | {"inputs": {"start": {"point": reads}, "masks": [None]}})
    return key


def root(*keys: str, name: str = "one", finished: bool = True, objects: tuple[str, ...] = ()) -> Root:
    return Root({"name": name}, NUMERICS, frozenset(keys), frozenset(objects), finished)
