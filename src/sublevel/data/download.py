"""Find published files on disk or download them; a download gets its name only after the check."""

from __future__ import annotations

import http.client
import logging
import shutil
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sublevel.cache import cache_dir, file_hash
from sublevel.errors import DataError
from sublevel.files import replacing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """A published file: its standard name, the addresses to try in order, and the md5 of its bytes."""

    file: str
    urls: tuple[str, ...]
    md5: str


def locate(names: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The first existing file of ``names`` in the first of ``folders`` that has one, or None."""
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def obtain(
    remote: Remote,
    name: str,
    root: Path | None,
    *,
    also: Sequence[str] = (),
    inside: Sequence[str] = (),
    timeout: float = 30.0,
) -> Path:
    """The path of ``remote``: in ``root``, otherwise in the cache of the source ``name``, otherwise downloaded there.

    ``also`` are other file names that serve as well, ``inside`` folders below ``root`` to look in;
    ``timeout`` is in seconds without a byte. Raises `DataError` with the addresses tried, the file name and
    the md5.
    """
    cache = cache_dir() / name
    folders = ([root, *(root / folder for folder in inside)] if root else []) + [cache]
    found = locate([remote.file, *also], folders)
    return found or download(remote, root or cache, timeout=timeout)


def download(remote: Remote, folder: Path, *, timeout: float = 30.0) -> Path:
    """Download ``remote`` into ``folder`` from the first address that gives the expected bytes."""
    tried = []
    for url in remote.urls:
        try:
            return _download(url, remote, folder, timeout)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            tried.append(f"{url} ({problem})")
    raise DataError(
        f"{remote.file} is not in {folder}, and could not be downloaded from {', nor from '.join(tried)}; "
        f"put the file {remote.file} (md5 {remote.md5}) into the folder that data.root names"
    )


def _download(url: str, remote: Remote, folder: Path, timeout: float) -> Path:
    target = folder / remote.file
    with replacing(target) as temporary:
        log.info("downloading %s", url)
        with urllib.request.urlopen(url, timeout=timeout) as answer, temporary.open("wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
        got = file_hash(temporary, "md5")
        if got != remote.md5:
            raise OSError(f"its md5 is {got}, expected {remote.md5}")
    return target
