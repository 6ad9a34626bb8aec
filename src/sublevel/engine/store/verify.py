"""Verification: read every file of a store; set damaged files aside, report unreadable ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sublevel.engine.store import roots
from sublevel.engine.store.entries import Store
from sublevel.engine.store.names import cell_name
from sublevel.errors import StoreError
from sublevel.foreign import load_json


@dataclass(frozen=True)
class Verified:
    """The outcome: the number of ``entries``, the ``damaged`` files that were set aside, the keys of ``incomplete``
    entries with the names of their cells, and the ``unreadable`` names with the reasons.
    """

    entries: int
    damaged: list[str]
    incomplete: dict[str, str]
    unreadable: dict[str, str]


def verify(store: Store) -> Verified:
    """Read every root, object and entry; set damaged files aside."""
    before = set(store.damaged())
    unreadable: dict[str, str] = {}
    roots.check(store)
    _absent(store.object_whole, list(store.objects()), unreadable)
    keys = list(store.keys())
    broken = _absent(store.read_entry, keys, unreadable)
    incomplete = dict.fromkeys(broken, "")
    for key in broken:
        with suppress(OSError, ValueError, KeyError, TypeError):
            incomplete[key] = load_json(store.files.read(cell_name(key)))["body"]["labels"].get("cell", "")
    return Verified(len(keys), sorted(set(store.damaged()) - before), incomplete, unreadable)


def _absent(look: Callable[[str], Any], names: Iterable[str], unreadable: dict[str, str]) -> list[str]:
    """The names for which ``look`` returns None; those that cannot be read are added to ``unreadable``."""
    found = []
    for name in names:
        try:
            if look(name) is None:
                found.append(name)
        except StoreError as error:
            unreadable[name] = str(error)
    return found
