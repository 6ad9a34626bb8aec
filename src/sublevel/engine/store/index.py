"""An index of a store's entries for quick looks: a SQLite file in the user's cache, never in the store.

It is a copy of what the entries say, known by their sizes and times: a look lists the entries and reads those that are
new. Nothing that is computed, collected or exported asks it; one that is lost, damaged or in use is made anew.
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
from sublevel.engine.store.backend import reason, refusing
from sublevel.engine.store.content import digest
from sublevel.engine.store.entries import Store, entry_in
from sublevel.engine.store.names import CELLS, key_of

VERSION = 2
TABLE = "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, size INTEGER, modified REAL, seen TEXT)"


@dataclass(frozen=True)
class Indexed:
    """What an entry says of itself; ``unreadable`` is why one that cannot be read says nothing."""

    key: str
    kind: str = ""
    labels: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    failure: str = ""
    unreadable: str = ""


def index_path(store: Store) -> Path:
    """Where the index of a store is."""
    return cache_dir() / "stores" / f"{digest(os.fsencode(store.where))[:16]}.sqlite"


def look(store: Store, *, rebuild: bool = False) -> list[Indexed]:
    """Every entry that is whole or cannot be read, by key; from the index, after it was brought up to date."""
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


def _look(store: Store, path: str) -> list[Indexed]:
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=5)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            db.execute("DROP TABLE IF EXISTS cells")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute(TABLE)
        unreadable = _refresh(store, db)
        db.commit()
        known = [Indexed(key, **json.loads(said)) for key, said in _rows(db, "key, seen") if said]
        return sorted([*known, *unreadable], key=lambda seen: seen.key)


def _refresh(store: Store, db: sqlite3.Connection) -> list[Indexed]:
    """Bring the index up to date; what cannot be read is not in it, and given back."""
    known = {key: (size, modified) for key, size, modified in _rows(db, "key, size, modified")}
    with refusing(f"cannot read the store in {store.where}"):
        there = {key_of(file.name): file for file in store.files.files(CELLS) if key_of(file.name)}
    db.executemany("DELETE FROM cells WHERE key = ?", [(key,) for key in known.keys() - there.keys()])
    unreadable = []
    for key, file in there.items():
        if known.get(key) != (file.size, file.modified):
            try:
                row = (key, file.size, file.modified, _said(store, key))
            except OSError as error:
                db.execute("DELETE FROM cells WHERE key = ?", (key,))
                unreadable.append(Indexed(key, unreadable=reason(error)))
                continue
            db.execute("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", row)
    return unreadable


def _rows(db: sqlite3.Connection, columns: str) -> Iterator[tuple[Any, ...]]:
    yield from db.execute(f"SELECT {columns} FROM cells ORDER BY key").fetchall()


def _said(store: Store, key: str) -> str:
    """What the index keeps of an entry; nothing of one that is damaged, which the next run will find."""
    body = entry_in(store.files, key)
    if body is None:
        return ""
    kept = {"kind": body.get("kind", ""), "labels": body.get("labels", {}), "seconds": body.get("seconds")}
    return json.dumps(kept | {"failure": body.get("failure", {}).get("message", "")})
