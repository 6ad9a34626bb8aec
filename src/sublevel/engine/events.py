"""What happens to cells, as rows: written to the run's log, counted for who watches, read again from elsewhere.

sublevel-runs/NAME/events.jsonl    one JSON row for each event, appended and flushed: begin, waits, started, progress,
                                   retried, finished, end, each with its ``time`` (seconds since 1970) and ``run``
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from sublevel.engine.graph import Node
from sublevel.engine.schedule import Listener, Outcome
from sublevel.engine.tally import Row, Tally
from sublevel.engine.worker import finite
from sublevel.errors import StoreError
from sublevel.foreign import plain
from sublevel.processes import own

__all__ = ["BEAT", "LOG", "Events", "Log", "Row", "Several", "Tally"]

LOG = "events.jsonl"

BEAT = 5.0
"""Seconds between two signs of life of a run: the time at which its log was last changed."""


class Events(Listener):
    """Everything that a listener is told, as rows given to ``emit``; what was in the store before is no event."""

    def __init__(self) -> None:
        self._cost: Mapping[str, float] = {}
        self._begun = False

    def emit(self, row: Row) -> None:
        """Take a row."""
        raise NotImplementedError

    def begin(self, cached: int, waiting: list[Node], cost: Mapping[str, float]) -> None:
        """How many cells there are and what they cost in all."""
        self._cost, self._begun = cost, True
        kinds: dict[str, float] = {}
        for node in waiting:
            kinds[node.kind] = kinds.get(node.kind, 0.0) + cost.get(node.id, 0.0)
        self._row("begin", cells=cached + len(waiting), cached=cached, work=sum(cost.values()), kinds=kinds)

    def started(self, node: Node) -> None:
        """A cell began to run."""
        self._row("started", cell=node.id, kind=node.kind, work=self._cost.get(node.id, 0.0))

    def waits(self, node: Node) -> None:
        """Another run is at a cell."""
        self._row("waits", cell=node.id)

    def progressed(self, node: Node, row: Mapping[str, Any]) -> None:
        """A running cell reports: first where it runs, then what its kernel says."""
        self._row("progress", cell=node.id, said=dict(row))

    def retried(self, node: Node, error: Mapping[str, Any]) -> None:
        """A cell will run once more."""
        self._row("retried", cell=node.id, error=_short(error))

    def finished(self, outcome: Outcome) -> None:
        """A cell is settled."""
        if self._begun:
            more = {"error": _short(outcome.error)} if outcome.error else {}
            spent = {"seconds": outcome.entry["seconds"]} if outcome.status == "done" else {}
            node, work = outcome.node, self._cost.get(outcome.node.id, 0.0)
            self._row("finished", cell=node.id, kind=node.kind, status=outcome.status, work=work, **spent, **more)

    def ended(self, why: str) -> None:
        """The run is over."""
        if self._begun:
            self._row("end", why=why)

    def _row(self, event: str, **more: Any) -> None:
        self.emit({"time": round(time.time(), 3), "event": event, **more})


def _short(error: Mapping[str, Any]) -> Row:
    return {name: error.get(name, "") for name in ("kind", "message")}


class Log(Events):
    """The log of a run, in its folder; nothing is written for a study that has nothing to run."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        super().__init__()
        self._path, self._about = folder / LOG, dict(about)
        self._run = uuid.uuid4().hex[:8]
        self._file: TextIO | None = None
        self._over = threading.Event()

    def begin(self, cached: int, waiting: list[Node], cost: Mapping[str, float]) -> None:
        """Open the log, and show from now on that the run lives."""
        if waiting:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                cut = _is_cut(self._path)
                self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed when the run ends
                self._file.write("\n" if cut else "")
            except OSError as error:
                raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error
            with suppress(RuntimeError):  # a user who can start no more threads; others then see no sign of life
                threading.Thread(target=self._live, daemon=True).start()
            super().begin(cached, waiting, cost)

    def emit(self, row: Row) -> None:
        """Write a row, with who and where the run is in the first."""
        if self._file is not None:
            if row["event"] == "begin":
                row |= {"host": socket.gethostname(), **own(), **self._about}
            self._file.write(json.dumps(finite({**row, "run": self._run})) + "\n")
            self._file.flush()

    def ended(self, why: str) -> None:
        """Close the log."""
        super().ended(why)
        self._over.set()
        if self._file is not None:
            self._file.close()

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):  # a file server that is away may come back
                os.utime(self._path)


def _is_cut(log: Path) -> bool:
    """Whether the last row of a log has no end: a kill or a full disk has cut it."""
    try:
        with open(log, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # there is none, or nothing in it
        return False


class Several(Listener):
    """Tells several listeners; one that fails is left out from then on, with a warning."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = list(listeners)

    def begin(self, cached: int, waiting: list[Node], cost: Mapping[str, float]) -> None:
        """Tell all."""
        self._tell("begin", cached, waiting, cost)

    def started(self, node: Node) -> None:
        """Tell all."""
        self._tell("started", node)

    def waits(self, node: Node) -> None:
        """Tell all."""
        self._tell("waits", node)

    def progressed(self, node: Node, row: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell("progressed", node, row)

    def retried(self, node: Node, error: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell("retried", node, error)

    def finished(self, outcome: Outcome) -> None:
        """Tell all."""
        self._tell("finished", outcome)

    def tick(self) -> None:
        """Tell all."""
        self._tell("tick")

    def ended(self, why: str) -> None:
        """Tell all."""
        self._tell("ended", why)

    def _tell(self, what: str, *arguments: Any) -> None:
        for listener in list(self._listeners):
            try:
                getattr(listener, what)(*arguments)
            except Exception as error:
                self._listeners.remove(listener)
                name = type(listener).__name__
                warnings.warn(f"{name} failed and is told nothing more: {plain(repr(error))}", stacklevel=2)
