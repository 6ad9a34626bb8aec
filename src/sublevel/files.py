"""Write files atomically: complete or not at all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from sublevel.errors import StoreError
from sublevel.processes import dead, machine, own

DAY = 86400.0
"""Seconds after which another machine's unfinished file counts as abandoned."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` when the block ends, or remove it on failure.

    Readers never see a partial file, and writers do not see each other's. A missing folder is created. Temporary files
    of killed writers of the same name are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    me = own()
    beside = path.with_name(f".{path.name}.{me['machine'][:8]}-{me['pid']}-{me['born']}-{uuid4().hex[:8]}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically. Raises StoreError if that is impossible."""
    try:
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Raise StoreError now if the folder is not writable, rather than after an hour of training."""
    probe = folder / f".probe-{uuid4().hex[:8]}"
    write_text(probe, "")
    probe.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove temporary files for ``path`` that dead processes left."""
    form = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]*)-(\d+)-(\d*)-[0-9a-f]{{8}}")
    with suppress(OSError):
        for name in os.listdir(path.parent):
            found = form.fullmatch(name)
            if found is None:
                continue
            where, pid, born = found.groups()
            writer = {"machine": machine() if where == machine()[:8] else "", "pid": int(pid), "born": born}
            with suppress(OSError):
                left = path.with_name(name)
                if dead(writer) or time.time() - left.stat().st_mtime > DAY:
                    left.unlink()
