"""The log of a run: its events as rows, written during the run, readable from other processes.

sublevel-runs/NAME/events.jsonl    one JSON row for each event: begin, waits, started, progress, retried, finished,
end, each with its ``time`` (seconds since 1970) and ``run``
"""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from sublevel.engine.events import Event, Row
from sublevel.engine.progress import RunProgress, proper
from sublevel.engine.store.content import finite
from sublevel.errors import StoreError
from sublevel.foreign import opened
from sublevel.processes import dead, machine, own

LOG = "events.jsonl"

BEAT = 5.0
"""Seconds between two heartbeats of a run, which set the modification time of its log."""

SILENT = 12 * BEAT
"""Seconds without a heartbeat after which a run on another machine counts as dead."""

LONGEST_ROW = 2**20
"""Bytes of the longest row that is read."""

LARGEST_LOG = 2**30
"""Bytes of the largest log that is read: some five million rows."""


class Log:
    """A listener that writes the log into the run's folder, if the run has anything to compute."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._path, self._about = folder / LOG, dict(about)
        self._run = uuid.uuid4().hex[:8]
        self._file: TextIO | None = None
        self._over = threading.Event()

    def __call__(self, event: Event) -> None:
        """Write the event's row; the first row also identifies the process and the study."""
        row = {**event.row, "run": self._run}
        if event.what == "begin" and row["cells"] > row["cached"]:
            self._open()
            row |= {"host": socket.gethostname(), **own(), **self._about}
        if self._file is None or event.what == "tick":
            return
        self._file.write(json.dumps(finite(row)) + "\n")
        self._file.flush()
        if event.what == "end":
            self._over.set()
            self._file.close()

    def _open(self) -> None:
        """Open the log and start the heartbeat."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            cut = _is_cut(self._path)
            self._file = open(self._path, "a", encoding="utf-8", opener=_opener)  # noqa: SIM115 - closed at the end
            self._file.write("\n" if cut else "")
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error
        with suppress(RuntimeError):  # the user may start no more threads; there is no heartbeat then
            threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):  # a file server may come back
                os.utime(self._path)


def _opener(path: str, flags: int) -> int:
    """Refuse links and pipes, since a run's folder is untrusted."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _is_cut(log: Path) -> bool:
    """Whether the last row of a log is incomplete, because of a kill or a full disk."""
    try:
        with opened(log) as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # no log, or an empty one
        return False


def read_log(log: Path) -> RunProgress:
    """The progress of the log's last run; invalid rows are skipped.

    StoreError if the log cannot be read.
    """
    progress, run = RunProgress(), object()
    try:
        for row in _rows(log):
            if row["event"] == "begin":
                progress, run = RunProgress(), row.get("run")
            if row.get("run") == run:
                progress.take(row)
    except OSError as error:
        raise StoreError(f"cannot read {log}: {error.strerror or error}") from error
    return progress


def _rows(log: Path) -> Iterator[Row]:
    with opened(log) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_LOG:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes; allowed: {LARGEST_LOG:,}")
        while line := file.readline(LONGEST_ROW):
            if not line.endswith(b"\n"):
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if proper(row):
                yield row


def changed(log: Path) -> float:
    """When a log was last changed; minus infinity if that is unknown."""
    try:
        return log.stat().st_mtime
    except OSError:
        return -math.inf


def lives(progress: RunProgress, log: Path) -> bool:
    """Whether the run's process exists or, on another machine, whether its heartbeat is recent."""
    if progress.why is not None or not progress.about:
        return False
    if progress.about.get("machine") == machine() != "":
        return not dead(progress.about)
    return abs(time.time() - changed(log)) < SILENT
