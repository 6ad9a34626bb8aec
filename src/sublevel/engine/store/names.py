"""File names in a store. Keys become part of a path only here, and are checked here."""

from __future__ import annotations

import errno
from typing import Any

from sublevel.engine.store.content import DIGEST
from sublevel.errors import StoreError
from sublevel.foreign import LARGEST

OBJECTS, CELLS, STUDIES, LEASES, PARTIAL = "objects/", "cells/", "studies/", "leases/", "partial/"
DAMAGED, TMP = "damaged/", "tmp/"


def object_name(name: str) -> str:
    """The file of an object. StoreError for anything but 64 hexadecimal digits."""
    return f"{OBJECTS}{checked(name)[:2]}/{name}"


def cell_name(key: str) -> str:
    """The file of an entry. StoreError for anything but 64 hexadecimal digits."""
    return f"{CELLS}{checked(key)[:2]}/{key}.json"


def study_name(digest: str) -> str:
    """The file of a root. StoreError for anything but 64 hexadecimal digits."""
    return f"{STUDIES}{checked(digest)}.json"


def lease_name(key: str, generation: int | str) -> str:
    """The file of a lease. StoreError for anything but 64 hexadecimal digits."""
    return f"{LEASES}{checked(key)}.{generation}"


def partial_name(key: str) -> str:
    """The file of a cell under way. StoreError for anything but 64 hexadecimal digits."""
    return f"{PARTIAL}{checked(key)}"


def is_document(name: str) -> bool:
    """Whether a file is a document, of at most `LARGEST` bytes; others may hold tensors."""
    return not name.startswith((OBJECTS, PARTIAL, DAMAGED, TMP))


def check_length(name: str, size: int) -> None:
    """OSError if a document has more than `LARGEST` bytes."""
    if size > LARGEST and is_document(name):
        raise OSError(errno.EFBIG, f"it has {size:,} bytes; allowed: {LARGEST:,}", name)


def checked(key: Any) -> str:
    """The key itself. StoreError for anything but 64 hexadecimal digits."""
    if isinstance(key, str) and DIGEST.fullmatch(key):
        return key
    shown = ascii(key)
    short = shown if len(shown) <= 70 else f"{shown[:66]}..."
    raise StoreError(f"a key of the store has 64 hexadecimal digits, got {short}")


def key_of(name: str) -> str:
    """The key in a file name; '' if the name holds none."""
    stem = name.rpartition("/")[2].removesuffix(".json").partition(".")[0]
    return stem if DIGEST.fullmatch(stem) else ""
