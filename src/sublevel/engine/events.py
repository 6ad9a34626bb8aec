"""What happens in a run, as one stream of events. A listener is a function that takes an event."""

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
    """Something that happened, told in the thread that runs the study.

    ``what`` is ``begin`` (the cells that will run), ``waits`` (another run computes this cell), ``started``,
    ``progress`` (a running cell reports), ``retried`` (a worker died, or an object was damaged: the cell runs again),
    ``finished`` (a node is settled, with its ``outcome``), ``tick`` (some time went by) or ``end``. ``about`` is the
    rest of its row in the log.
    """

    what: str
    node: Node | None = None
    about: Row = field(default_factory=dict)
    outcome: Outcome | None = None
    time: float = field(default_factory=lambda: time.time())  # looked up when it is called

    @property
    def row(self) -> Row:
        """The event as JSON."""
        cell = {"cell": self.node.id} if self.node else {}
        return {"time": round(self.time, 3), "event": self.what, **cell, **self.about}


Listener = Callable[[Event], None]


def finished(outcome: Outcome, work: float) -> Event:
    """A node is settled; ``work`` is what it cost in the units of the plan."""
    about: Row = {"kind": outcome.node.kind, "status": outcome.status, "work": work}
    if outcome.status == "done":
        about["seconds"] = outcome.entry["seconds"]
    if outcome.error:
        about["error"] = short(outcome.error)
    return Event("finished", outcome.node, about, outcome)


def short(error: Mapping[str, Any]) -> Row:
    """What a log keeps of an error."""
    return {name: error.get(name, "") for name in ("kind", "message")}


class Stream:
    """Tells several listeners; one that fails is left out from then on, with a warning."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def __call__(self, event: Event) -> None:
        """Tell all."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:
                self._listeners.remove(listener)
                name = getattr(listener, "__name__", type(listener).__name__)
                warnings.warn(f"{name} failed and is told nothing more: {plain(repr(error))}", stacklevel=2)
