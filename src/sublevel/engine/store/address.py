"""Addresses of stores: the path of a folder, or a URL in object storage.

URLs that the user has named on this machine are trusted: `user_address` records them. `trusted` refuses other URLs, so
no request goes to an address that only a file names.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from sublevel.cache import cache_dir
from sublevel.engine.store.backend import Backend
from sublevel.engine.store.folder import Folder
from sublevel.engine.store.remote import Bucket
from sublevel.errors import ConfigError, StoreError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(where: str) -> bool:
    """Whether an address is a URL of object storage."""
    return bool(_URL.match(where))


def absolute(where: str | Path) -> str:
    """The address independent of the working folder; ``file://`` URLs become paths.

    >>> absolute("s3://results/store/"), absolute("file:///results/store")
    ('s3://results/store', '/results/store')
    """
    text = str(where)
    if "::" in text and "://" in text:
        raise ConfigError(f"a store has one address, got a chain of them: {text}")
    if text.startswith(("file://", "local://")):
        return absolute(text.partition("://")[2])
    if not is_url(text):
        return str(Path(text).resolve())
    return text.rstrip("/")


def relative(where: str | Path, start: Path) -> str:
    """The address relative to the folder ``start``, so that both can be moved together; URLs stay absolute."""
    full = absolute(where)
    return full if is_url(full) else os.path.relpath(full, start.resolve())


def resolved(said: object, start: Path) -> str:
    """The inverse of `relative`. StoreError for an invalid address."""
    if not isinstance(said, str) or "\0" in said:
        raise StoreError(f"the run in {start} does not say where its store is: got {ascii(said)[:80]}")
    return absolute(said) if is_url(said) else absolute(start / said)


def trusted(full: str, start: Path) -> str:
    """An address that the run in ``start`` names. StoreError for a URL that the user has not named on this machine."""
    if is_url(full) and full not in _named and full not in _noted():
        raise StoreError(
            f"the run in {start} has its results in {ascii(full)[1:-1]}, an address that was not used on this machine "
            "before; no request was sent there. If you trust it, use it once: sublevel ls --stored --store URL"
        )
    return full


_named: set[str] = set()


def user_address(where: str | Path) -> str:
    """The address that the user has named; a URL is recorded as trusted, in the user's cache folder."""
    full = absolute(where)
    if is_url(full) and full not in _named:
        _named.add(full)
        with suppress(OSError):
            if full not in _noted():
                _notes().parent.mkdir(parents=True, exist_ok=True)
                with _notes().open("a", encoding="utf-8") as file:
                    file.write(f"{full}\n")
    return full


def _notes() -> Path:
    return cache_dir() / "stores" / "named"


def _noted() -> set[str]:
    try:
        return set(_notes().read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return set()


def opened(where: str | Path) -> Backend:
    """The backend of an address."""
    full = absolute(where)
    return Bucket(full) if is_url(full) else Folder(full)
