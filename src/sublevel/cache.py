"""The cache folder for downloaded and decoded data."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from functools import cache
from pathlib import Path


def cache_dir() -> Path:
    """The folder for downloads and decoded images: ``$SUBLEVEL_CACHE``, otherwise ``sublevel`` in the user's cache.

    The user's cache is ``$XDG_CACHE_HOME``, or ``~/.cache`` if that is not set. A user without a home gets a private
    folder in the system's temporary folder. The folder may not exist yet.
    """
    own, shared = os.environ.get("SUBLEVEL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if own:
            return Path(own).expanduser()
        return (Path(shared) if shared else Path.home() / ".cache") / "sublevel"
    except RuntimeError:
        return _homeless()


@cache
def _homeless() -> Path:
    """Create a folder that only this user can write; all processes share it unless another user took its name."""
    folder = Path(tempfile.gettempdir()) / f"sublevel-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if mine else Path(tempfile.mkdtemp(prefix="sublevel-"))


def file_hash(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of the bytes of ``path``; ``algorithm`` is a name of `hashlib`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
