"""Jobs and answers in a shared folder: two append-only files for each worker, each with one writer.

    FOLDER/NAME.in     the driver:  {"task": ..., "job": ...}
    FOLDER/NAME.out    the worker:  {"hello": ..., "node": ..., "sees": ...}, {"task": ..., "progress" | "answer": ...},
                       {"bye": true}, and {} as a sign of life

Files are reopened for every read, so that a network file system shows their current content. Workers need no port and
no database.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sublevel.engine.executors import visibility
from sublevel.engine.executors.base import import_from
from sublevel.engine.store.content import finite
from sublevel.engine.worker import leave, run_job

BEAT = 5.0
"""Seconds between two heartbeats."""

POLL = 0.2
"""Seconds between two reads of a file."""

IDLE = 120.0
"""Seconds without a job after which a worker ends and frees its slot."""


class Lines:
    """Reads each appended line of a file once; an incomplete last line is left for later."""

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if skip and path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The rows since the last call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        yield from map(json.loads, whole.splitlines())


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a file."""
    with open(path, "ab") as file:
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def serve(folder: str, name: str, paths: list[str], token: str, idle: float = IDLE) -> None:
    """Serve as the worker of that name, until no job has come for ``idle`` seconds.

    A restarted worker ignores the jobs of its predecessor.
    """
    import_from(paths)
    out, lock = Path(folder) / f"{name}.out", threading.Lock()
    inbox = Lines(Path(folder) / f"{name}.in", skip=True)

    def say(**row: Any) -> None:
        with lock:
            append(out, row)

    def live() -> None:
        while True:
            time.sleep(BEAT)
            try:
                say()
            except OSError:  # the driver has ended and removed the folder
                leave(0)

    say(hello=uuid.uuid4().hex, node=socket.gethostname(), sees=visibility.sees(token))
    threading.Thread(target=live, daemon=True).start()
    last = time.monotonic()
    while time.monotonic() - last < idle:
        for row in inbox.new():
            task = row["task"]
            answer = run_job(row["job"], lambda seen, task=task: say(task=task, progress=finite(seen)))
            say(task=task, answer=answer)
            last = time.monotonic()
        time.sleep(POLL)
    say(bye=True)
