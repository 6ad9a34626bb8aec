"""The schedule: from a graph to results, despite damaged files, failing cells and dying workers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sublevel.engine.events import Event, Listener, finished, short
from sublevel.engine.executors import Executor, WorkerDied
from sublevel.engine.graph import Graph, Node, Outcome, urgencies
from sublevel.engine.job import Job
from sublevel.engine.readiness import Readiness
from sublevel.engine.repair import Repairs, maker, released
from sublevel.engine.running import Running
from sublevel.engine.store import Leases, Store
from sublevel.engine.waiting import Waiting
from sublevel.errors import StoreError

TIME = "the time was up"
"""The reason why a cell did not begin, or a run ended."""

POLL = 0.25
"""Seconds between two polls of running jobs and of other runs."""

MakeJob = Callable[[Node, str, Any], Job]
"""From a node, its key and its inputs to the job that computes it."""


class Schedule:
    """Settles every node of a graph: reads stored entries, computes the others, each key once.

    ``keyed(node, inputs)`` is a cell's key, ``cost(node)`` its cost in any unit; ``tell`` receives every event.
    """

    def __init__(
        self,
        graph: Graph,
        store: Store,
        keyed: Callable[[Node, Any], str],
        cost: Callable[[Node], float],
        tell: Listener = lambda event: None,
    ) -> None:
        self.graph, self.store, self.outcomes = graph, store, dict[str, Outcome]()
        self._keyed, self._tell = keyed, tell
        self._cost = {node.id: cost(node) for node in graph.nodes.values()}
        self._readiness = Readiness(graph)
        self._waiting = Waiting(urgencies(graph, self._cost))
        self._repairs = Repairs()
        self._running = Running(lambda node, row: tell(Event("progress", node, {"said": row})))

    def look(self) -> list[Node]:
        """Settle all cached nodes; return the others."""
        if not self._readiness.keys:
            self._settle(*filter(None, map(self._found, self._readiness.first())))
        return [node for node in self.graph.nodes.values() if node.id not in self.outcomes]

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Emit the event ``begin`` with the work ahead, and at the end ``end`` with the reason."""
        waiting, kinds = self.look(), dict[str, float]()
        for node in waiting:
            kinds[node.kind] = kinds.get(node.kind, 0.0) + self._cost[node.id]
        cells, work = len(self.graph.nodes), sum(self._cost[node.id] for node in waiting)
        about = {"cells": cells, "cached": cells - len(waiting), "work": work, "kinds": kinds}
        self._tell(Event("begin", about=about))
        why = "interrupted"
        try:
            yield
            why = TIME if any(o.status == "waiting" for o in self.outcomes.values()) else "done"
        except Exception as error:
            why = str(error)
            raise
        finally:
            self._tell(Event("end", about={"why": why}))

    def run(self, executor: Executor, job: MakeJob, seconds: float = math.inf) -> dict[str, Outcome]:
        """Run all cells. After ``seconds`` no cell begins, and those that run finish.

        A failed cell fails only the cells that need it. A StoreError ends the run. While another run computes a cell,
        this one does other work, then waits; it reads the cell as cached, or runs it if the other run ends without it.
        """
        self.look()
        end = time.monotonic() + seconds
        with Leases(self.store.files) as leases:
            while self._running or (self._waiting and time.monotonic() < end):
                while self._waiting.here and len(self._running) < executor.slots and time.monotonic() < end:
                    self._begin(self._waiting.next(), executor, job, leases)
                if self._waiting and not self._running:
                    time.sleep(POLL)
                for node, future in self._running.ended(POLL):
                    self._collect(node, future, leases)
                self._waiting.look_again(POLL)
                self._tell(Event("tick"))
        error = {"kind": "time", "message": f"{TIME}: the same command resumes"}
        for node in self.graph.nodes.values():
            if node.id not in self.outcomes:
                self.outcomes[node.id] = Outcome(node, "waiting", self._readiness.keys.get(node.id, ""), error=error)
        return self.outcomes

    def _found(self, name: str) -> Outcome | None:
        """The outcome of a node whose needs are settled; None if it must be computed, and is queued."""
        node = self.graph.nodes[name]
        broken = next((ref.node for ref in node.needs if not self.outcomes[ref.node].good), "")
        if broken:
            error = {"kind": "skipped", "message": f"needs {broken}, which did not finish"}
            return Outcome(node, "skipped", error=error)
        key = self._readiness.keys[name] = self._keyed(node, self._inputs(node))
        entry = self.store.read_entry(key)
        if entry is not None:
            return _outcome(node, "cached", key, entry)
        if not self._readiness.twin(name):
            self._waiting.add(name)
        return None

    def _settle(self, *outcomes: Outcome) -> None:
        """Settle nodes, and those that follow without computation."""
        todo = [*reversed(outcomes)]
        while todo:
            outcome = todo.pop()
            name = outcome.node.id
            self.outcomes[name] = outcome.kept
            self._tell(finished(outcome, self._cost[name]))
            found = [self._found(each) for each in self._readiness.after(name)]
            todo += [each for each in reversed(found) if each is not None]

    def _inputs(self, node: Node) -> dict[str, Any]:
        return node.resolved({ref: self.outcomes[ref.node].entry["objects"][ref.output] for ref in node.needs})

    def _begin(self, name: str, executor: Executor, job: MakeJob, leases: Leases) -> None:
        """Start a cell, unless another run computes it or has just finished it."""
        node = self.graph.nodes[name]
        inputs = self._inputs(node)
        key = self._keyed(node, inputs)
        self._readiness.rename(name, key)
        if gone := released(node, self.outcomes):
            self._repair(gone, name)
            return
        if not leases.claim(key):
            if self._waiting.leave(name):
                self._tell(Event("waits", node))
            return
        entry = self.store.read_entry(key)
        if entry is not None and not (name in self._repairs and entry.get("released")):
            leases.release(key)
            self._finish(_outcome(node, "cached", key, entry))
            return
        self._tell(Event("started", node, {"kind": node.kind, "work": self._cost[name]}))
        self._running.start(executor, node, job(node, key, inputs))

    def _collect(self, node: Node, future: Future[str], leases: Leases) -> None:
        """Handle the end of a job."""
        key = self._readiness.keys[node.id]
        leases.release(key)
        try:
            answer = json.loads(future.result())
        except WorkerDied as died:
            answer = {"error": _worker_error(str(died))}
        if "entry" in answer and answer["entry"].get("key") != key:
            answer = {"error": _worker_error("a worker answered with the result of another cell")}
        if "entry" in answer:
            self._finish(_outcome(node, "done", key, answer["entry"]))
            return
        error = answer["error"]
        if error["kind"] == "store":
            raise StoreError(error["message"])
        if error["kind"] in ("worker", "damaged") and self._repairs.again(node.id):
            made_by = maker(error["digest"], node, self.outcomes)
            if made_by and not self.store.object_whole(error["digest"]):
                self._repair(made_by, node.id)
            else:
                self._waiting.add(node.id)
            self._tell(Event("retried", node, {"error": short(error)}))
        else:
            self._finish(Outcome(node, "failed", key, error=error))

    def _repair(self, made_by: str, name: str) -> None:
        """Run a settled cell again; ``name`` is queued when its objects are there."""
        if self._repairs.wait(name, made_by):
            self._waiting.add(made_by)

    def _finish(self, outcome: Outcome) -> None:
        """Settle a cell that ran and its twins; queue the cells that waited for it."""
        name = outcome.node.id
        waited = self._repairs.made(name)
        if name not in self.outcomes:
            twins = self._readiness.settled_with(name)
            self._settle(*(replace(outcome, node=self.graph.nodes[twin]) for twin in twins))
        elif outcome.good:
            self.outcomes[name] = outcome.kept
        for each in waited:
            self._waiting.add(each)


def _outcome(node: Node, status: str, key: str, entry: Mapping[str, Any]) -> Outcome:
    """The outcome of an entry; a stored divergence is a failure that is not retried."""
    if "failure" in entry:
        return Outcome(node, "failed", key, entry, entry["failure"])
    return Outcome(node, status, key, entry)


def _worker_error(message: str) -> dict[str, Any]:
    return {"kind": "worker", "message": message, "digest": "", "traceback": ""}
