"""Jobs and answers through a shared folder: two files for each worker, each with one writer, which only appends.

    FOLDER/NAME.in     the driver:  {"task": ..., "job": ...}
    FOLDER/NAME.out    the worker:  {"hello": ..., "node": ..., "sees": ...}, {"task": ..., "progress" | "answer": ...},
                       {"bye": true}, and {} as a sign of life

A file is opened anew for every look, so that a network file system shows what is in it now. A worker asks for nothing
but these files: no port, and no database.
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
from sublevel.engine.worker import run_job

BEAT = 5.0
"""Seconds between two signs of life."""

POLL = 0.2
"""Seconds between two looks at a file."""

IDLE = 120.0
"""Seconds without a job after which a worker ends, so that others can have its place."""


class Lines:
    """The lines that are appended to a file, each read once; one that has no end yet is left for later."""

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if skip and path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The rows since the last look."""
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
    """Add a row to the end of a file."""
    with open(path, "ab") as file:
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def serve(folder: str, name: str, paths: list[str], token: str, idle: float = IDLE) -> None:
    """Be the worker of that name: run what comes, until nothing has come for ``idle`` seconds.

    One that is started again does not take up what was meant for the one before it.
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
            except OSError:  # the driver is through and has taken the folder away
                os._exit(0)

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
