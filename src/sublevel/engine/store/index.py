"""An index of a store's entries for fast listings: a SQLite file in the user's cache, never in the store.

It copies a few fields of each entry. An update lists the files and reads those whose size or time has changed. Only
listings use it; it is rebuilt if it is lost, damaged or locked.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sublevel.cache import cache_dir
from sublevel.engine.store.backend import reason, store_errors
from sublevel.engine.store.content import digest
from sublevel.engine.store.entries import Store
from sublevel.engine.store.names import CELLS, key_of
from sublevel.engine.store.reading import entry_or_none

VERSION = 2
TABLE = "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, size INTEGER, modified REAL, seen TEXT)"


@dataclass(frozen=True)
class IndexedEntry:
    """The indexed fields of an entry; ``unreadable`` is the reason if it could not be read."""

    key: str
    kind: str = ""
    labels: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    failure: str = ""
    unreadable: str = ""


def index_path(store: Store) -> Path:
    """The file of a store's index."""
    return cache_dir() / "stores" / f"{digest(os.fsencode(store.where))[:16]}.sqlite"


def look(store: Store, *, rebuild: bool = False) -> list[IndexedEntry]:
    """Every undamaged or unreadable entry, sorted by key, from the updated index."""
    path = index_path(store)
    if rebuild:
        with suppress(OSError):
            path.unlink()
    try:
        return _look(store, str(path))
    except sqlite3.DatabaseError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    except OSError:
        pass
    return _look(store, ":memory:")


def _look(store: Store, path: str) -> list[IndexedEntry]:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=5)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            db.execute("DROP TABLE IF EXISTS cells")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute(TABLE)
        unreadable = _refresh(store, db)
        db.commit()
        known = [IndexedEntry(key, **json.loads(said)) for key, said in _rows(db, "key, seen") if said]
        return sorted([*known, *unreadable], key=lambda seen: seen.key)


def _refresh(store: Store, db: sqlite3.Connection) -> list[IndexedEntry]:
    """Update the index; return the entries that cannot be read."""
    known = {key: (size, modified) for key, size, modified in _rows(db, "key, size, modified")}
    with store_errors(f"cannot read the store in {store.where}"):
        there = {key_of(file.name): file for file in store.files.files(CELLS) if key_of(file.name)}
    db.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in known.keys() - there.keys()])
    unreadable = []
    for key, file in there.items():
        if known.get(key) != (file.size, file.modified):
            try:
                row = (key, file.size, file.modified, _said(store, key))
            except OSError as error:
                db.execute("DELETE FROM cells WHERE key = ?", (key,))
                unreadable.append(IndexedEntry(key, unreadable=reason(error)))
                continue
            db.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", row)
    return unreadable


def _rows(db: sqlite3.Connection, columns: str) -> Iterator[tuple[Any, ...]]:
    yield from db.execute(f"SELECT {columns} FROM cells ORDER BY key").fetchall()


def _said(store: Store, key: str) -> str:
    """The indexed fields of an entry as JSON; '' for a damaged one, which the next run will find."""
    body = entry_or_none(store.files, key)
    if body is None:
        return ""
    kept = {"kind": body.get("kind", ""), "labels": body.get("labels", {}), "seconds": body.get("seconds")}
    return json.dumps(kept | {"failure": body.get("failure", {}).get("message", "")})
