"""Stores of a few bytes, written without a run."""

from __future__ import annotations

from typing import Any

from sublevel.engine.store import Root, Store, digest

NUMERICS = {"device": "cpu"}


def manifest(name: str) -> dict[str, Any]:
    """The study.json of a run, but for its store and its cells."""
    study = {"name": name, "levels": 1, "seeds": [0], "data": {"name": "x"}, "model": {"name": "x"}}
    about = {"cells": {"done": 1, "failed": 0}, "seconds": {"cells": {}}, "data": {}}
    about |= {"model": {"name": "x", "parameters": 1, "prunable": 1}, "versions": {}, "hardware": {}}
    last = {"seconds": 0.0, "computed": 0, "damaged": []}
    return {"study": study, "numerics": NUMERICS, "problem": None, "about": about, "last_run": last}


def put(store: Store, word: str, study: str = "one", reads: str = "") -> str:
    """An entry with an object of its own, computed from the object ``reads``; its key."""
    key = digest(word.encode())
    body = {"key": key, "objects": {"end": store.put(word.encode())}, "values": {}, "labels": {"study": study}}
    store.write_entry(key, body | {"inputs": {"start": {"point": reads}, "masks": [None]}})
    return key


def root(*keys: str, name: str = "one", finished: bool = True, objects: tuple[str, ...] = ()) -> Root:
    return Root({"name": name}, NUMERICS, frozenset(keys), frozenset(objects), finished)
