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
from pathlib import Path
from typing import Any, TextIO

from sublevel.errors import StoreError
from sublevel.foreign import plain
from sublevel.study.graph import Node
from sublevel.study.schedule import Listener, Outcome
from sublevel.study.worker import finite

LOG = "events.jsonl"

BEAT = 5.0
"""Seconds between two signs of life of a run: the time at which its log was last changed."""

Row = dict[str, Any]


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
        self._row("begin", cells=cached + len(waiting), cached=cached, work=sum(cost.values()))

    def started(self, node: Node) -> None:
        """A cell began to run."""
        self._row("started", cell=node.id)

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
            work = self._cost.get(outcome.node.id, 0.0)
            self._row("finished", cell=outcome.node.id, status=outcome.status, work=work, **spent, **more)

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
                self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed when the run ends
            except OSError as error:
                raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error
            threading.Thread(target=self._live, daemon=True).start()
            super().begin(cached, waiting, cost)

    def emit(self, row: Row) -> None:
        """Write a row, with who and where the run is in the first."""
        if self._file is not None:
            if row["event"] == "begin":
                row |= {"host": socket.gethostname(), "pid": os.getpid(), **self._about}
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
            try:
                os.utime(self._path)
            except OSError:
                return


class Tally:
    """Where a run stands, from its rows."""

    def __init__(self) -> None:
        self.cells = self.cached = self.done = self.failed = 0
        self.began = self.now = 0.0
        self.running: dict[str, Row] = {}
        self.elsewhere: set[str] = set()
        self.troubles: list[str] = []
        self.why: str | None = None
        self.about: Row = {}
        self._work = self._worked = 0.0

    def take(self, row: Row) -> None:
        """Count a row."""
        name = row.get("cell", "")
        match row["event"]:
            case "begin":
                self.about, self.began = row, row["time"]
                self.cells, self.cached, self._work = row["cells"], row["cached"], row["work"]
            case "waits":
                self.elsewhere.add(name)
            case "started":
                self.elsewhere.discard(name)
                self.running[name] = {"since": row["time"]}
            case "progress":
                self.running.setdefault(name, {"since": row["time"]}).update(row["said"])
            case "retried":
                self.running.pop(name, None)
                self.troubles.append(f"tried again: {name}: {row['error']['message']}")
            case "finished":
                self.running.pop(name, None)
                self.elsewhere.discard(name)
                self.cached += row["status"] == "cached"
                self.done += row["status"] != "cached"
                self._worked += row["work"]
                if row["status"] == "failed":
                    self.failed += 1
                    self.troubles.append(f"failed: {name}: {row['error']['message']}")
            case "end":
                self.why = row["why"]
        self.now = row["time"]

    def left(self, now: float) -> float | None:
        """Seconds left at the rate so far; None while there is none."""
        spent = now - self.began
        return None if self._worked <= 0 or spent < 5 else spent * max(self._work - self._worked, 0.0) / self._worked

    def rate(self, now: float) -> float:
        """Cells settled in a minute."""
        return 60 * self.done / max(now - self.began, 1e-9)


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
