"""Where downloaded and decoded data are kept, and how a file gets there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def cache_dir() -> Path:
    """The folder for downloads and decoded images: ``$SUBLEVEL_CACHE``, else ``sublevel`` in the user's
    cache.

    The user's cache is ``$XDG_CACHE_HOME``, or ``~/.cache`` where that is not set. The folder may not exist
    yet.
    """
    own = os.environ.get("SUBLEVEL_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sublevel"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new path beside ``path``: it takes that name when the block ends, or vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_hash(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of the bytes of ``path``; ``algorithm`` is a name of `hashlib`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
