"""Where downloaded and decoded data are kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


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


def file_hash(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of the bytes of ``path``; ``algorithm`` is a name of `hashlib`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
