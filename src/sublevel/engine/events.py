"""The events of a run, as one stream. A listener is a function that takes an event."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sublevel.engine.graph import Node, Outcome
from sublevel.foreign import plain

Row = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """An event, emitted in the thread that runs the study.

    ``what`` is ``begin`` (the cells that will run), ``waits`` (another run computes this cell), ``started``,
    ``progress`` (a running cell reports), ``retried`` (a worker died, or an object was damaged: the cell runs again),
    ``finished`` (a node is settled, with its ``outcome``), ``tick`` (some time has passed) or ``end``. ``about`` is the
    rest of its row in the log.
    """

    what: str
    node: Node | None = None
    about: Row = field(default_factory=dict)
    outcome: Outcome | None = None
    time: float = field(default_factory=lambda: time.time())  # a test may replace time.time

    @property
    def row(self) -> Row:
        """The event as JSON."""
        cell = {"cell": self.node.id} if self.node else {}
        return {"time": round(self.time, 3), "event": self.what, **cell, **self.about}


Listener = Callable[[Event], None]


def finished(outcome: Outcome, work: float) -> Event:
    """The event of a settled node; ``work`` is its cost in the units of the plan."""
    about: Row = {"kind": outcome.node.kind, "status": outcome.status, "work": work}
    if outcome.status == "done":
        about["seconds"] = outcome.entry["seconds"]
    if outcome.error:
        about["error"] = short(outcome.error)
    return Event("finished", outcome.node, about, outcome)


def short(error: Mapping[str, Any]) -> Row:
    """The fields of an error that a log keeps."""
    return {name: error.get(name, "") for name in ("kind", "message")}


class Stream:
    """Passes events to several listeners. A listener that fails is dropped, with a warning."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def __call__(self, event: Event) -> None:
        """Call every listener."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:
                self._listeners.remove(listener)
                name = getattr(listener, "__name__", type(listener).__name__)
                warnings.warn(f"{name} failed and gets no more events: {plain(repr(error))}", stacklevel=2)
