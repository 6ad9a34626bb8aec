"""Addresses of stores: the path of a folder, or the URL of a place in object storage."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sublevel.errors import ConfigError
from sublevel.study.store.backend import Backend, Folder
from sublevel.study.store.remote import Bucket

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(where: str) -> bool:
    """Whether an address is a place in object storage."""
    return bool(_URL.match(where))


def absolute(where: str | Path) -> str:
    """The address from any folder and in any process; ``file://`` is a path like any other.

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
    """The address as a file in the folder ``start`` names it: a folder's moves with it."""
    full = absolute(where)
    return full if is_url(full) else os.path.relpath(full, start.resolve())


def resolved(said: str, start: Path) -> str:
    """The way back from `relative`."""
    return said if is_url(said) else absolute(start / said)


def opened(where: str | Path) -> Backend:
    """The files at an address."""
    full = absolute(where)
    return Bucket(full) if is_url(full) else Folder(full)
