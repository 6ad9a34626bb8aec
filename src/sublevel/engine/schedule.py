"""The schedule: from a graph to results, whatever is cached, damaged, diverging or killed on the way."""

from __future__ import annotations

import heapq
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from sublevel.engine.executors import Executor, WorkerDied
from sublevel.engine.graph import Graph, Node, Ref
from sublevel.engine.job import Job
from sublevel.engine.store import Leases, Store
from sublevel.errors import StoreError

MakeJob = Callable[[Node, str, Any], Job]

TIME = "the time was up"
"""Why a cell has not begun, or a run has ended."""

ATTEMPTS = 3
"""How often a cell is tried when its worker dies or what it reads is damaged."""

POLL = 0.25
"""Seconds between two looks at what runs here, and at what other runs compute."""


KEPT = ("objects", "released", "seconds")
"""What is asked later of an entry that was settled: the values of thousands of cells need not be in memory."""


@dataclass(frozen=True)
class Outcome:
    """What became of a node: ``cached``, ``done``, ``failed``, ``skipped`` (something that it needs failed) or
    ``waiting`` (the time was up before it began).
    """

    node: Node
    status: str
    key: str = ""
    entry: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether there is a result."""
        return self.status in ("cached", "done")

    @property
    def kept(self) -> Outcome:
        """What is asked of it later."""
        return replace(self, entry={name: v for name, v in self.entry.items() if name in KEPT})


class Listener:
    """Is told what happens, always in the thread that runs the study; does nothing by itself."""

    def begin(self, cached: int, waiting: list[Node], cost: Mapping[str, float]) -> None:
        """What is there, what will run, and what each would cost in arbitrary units."""

    def started(self, node: Node) -> None:
        """A cell began to run."""

    def waits(self, node: Node) -> None:
        """A cell is computed by another run that shares the store."""

    def progressed(self, node: Node, row: Mapping[str, Any]) -> None:
        """A running cell reports."""

    def retried(self, node: Node, error: Mapping[str, Any]) -> None:
        """A cell will run once more: its worker died, or what it read was damaged."""

    def finished(self, outcome: Outcome) -> None:
        """A node is settled."""

    def tick(self) -> None:
        """Some time went by."""

    def ended(self, why: str) -> None:
        """Nothing runs any more: ``done``, ``interrupted``, or what went wrong."""


@dataclass
class Schedule:
    """Runs a graph. ``keyed(node, inputs)`` gives the key of a cell."""

    graph: Graph
    store: Store
    keyed: Callable[[Node, Any], str]
    urgency: Mapping[str, float]
    listener: Listener = field(default_factory=Listener)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dependents = self.graph.dependents()
        self._missing = {n.id: len({r.node for r in n.needs}) for n in self.graph.nodes.values()}
        self._todo: list[tuple[float, int, str]] = []
        self._running: dict[Future[str], Node] = {}
        self._elsewhere: list[str] = []
        self._told: set[str] = set()
        self._keys: dict[str, str] = {}
        self._same: dict[str, list[str]] = {}
        self._attempts: dict[str, int] = {}
        self._repairs: dict[str, list[str]] = {}
        self._said: SimpleQueue[tuple[Node, int, dict[str, Any]]] = SimpleQueue()
        self._looked = False
        self._place = {name: i for i, name in enumerate(self.graph.nodes)}

    def look(self) -> list[Node]:
        """Settle everything that is cached; return the nodes that would run, as far as can be known."""
        if not self._looked:
            self._looked = True
            for name in [n for n, missing in self._missing.items() if not missing]:
                self._ready(name)
        return [node for node in self.graph.nodes.values() if node.id not in self.outcomes]

    def run(self, executor: Executor, job: MakeJob, seconds: float = math.inf) -> dict[str, Outcome]:
        """Run to the end, or until no cell may begin after ``seconds`` and those that run have ended.

        ``job`` makes a cell's job from the node, its key and its inputs.
        A failed cell fails what needs it and nothing else. StoreError ends everything. A cell that another run
        computes is waited for, while there is other work; it is then read as cached, or run here if that run ends
        without it.
        """
        self.look()
        now = time.monotonic()
        end, asked = now + seconds, now
        with Leases(self.store.files) as leases:
            while self._running or ((self._todo or self._elsewhere) and time.monotonic() < end):
                while self._todo and len(self._running) < executor.slots and time.monotonic() < end:
                    self._submit(heapq.heappop(self._todo)[2], executor, job, leases)
                self._await(leases)
                if time.monotonic() - asked > POLL:
                    asked = time.monotonic()
                    while self._elsewhere:
                        self._queue(self._elsewhere.pop())
                self.listener.tick()
        error = {"kind": "time", "message": f"{TIME}: the same command goes on from here"}
        for node in self.graph.nodes.values():
            if node.id not in self.outcomes:
                self.outcomes[node.id] = Outcome(node, "waiting", self._keys.get(node.id, ""), error=error)
        return self.outcomes

    def _await(self, leases: Leases) -> None:
        """Wait a moment, and take in what has been said and what has finished."""
        if self._elsewhere and not self._running:
            time.sleep(POLL)
        done, _ = wait(self._running, timeout=POLL, return_when=FIRST_COMPLETED)
        self._pass_on()
        for future in done:
            self._collect(self._running.pop(future), future, leases)

    @property
    def left(self) -> int:
        """How many cells the time did not suffice for."""
        return sum(outcome.status == "waiting" for outcome in self.outcomes.values())

    def _ready(self, name: str) -> None:
        """Everything that a node needs is there: find it in the store, or queue it."""
        node = self.graph.nodes[name]
        if any(not self.outcomes[r.node].good for r in node.needs):
            broken = next(r.node for r in node.needs if not self.outcomes[r.node].good)
            error = {"kind": "skipped", "message": f"needs {broken}, which did not finish"}
            self._settle(Outcome(node, "skipped", error=error))
            return
        self._keys[name] = key = self.keyed(node, self._inputs(node))
        entry = self.store.read_entry(key)
        if entry is not None:
            self._settle(_outcome(node, "cached", key, entry))
        elif key in self._same:
            self._same[key].append(name)
        else:
            self._same[key] = [name]
            self._queue(name)

    def _queue(self, name: str) -> None:
        heapq.heappush(self._todo, (-self.urgency.get(name, 0.0), self._place[name], name))

    def _inputs(self, node: Node) -> dict[str, Any]:
        digests: dict[Ref, str] = {r: self.outcomes[r.node].entry["objects"][r.output] for r in node.needs}
        return node.resolved(digests)

    def _submit(self, name: str, executor: Executor, job: MakeJob, leases: Leases) -> None:
        """Start a cell, unless another run is at it, or has finished it meanwhile."""
        node, key = self.graph.nodes[name], self._current_key(name)
        if gone := self._let_go(node):
            self._make_again(gone, name)
            return
        if not leases.claim(key):
            self._elsewhere.append(name)
            if name not in self._told:
                self._told.add(name)
                self.listener.waits(node)
            return
        entry = self.store.read_entry(key)
        if entry is not None and not (name in self._repairs and entry.get("released")):
            leases.release(key)
            self._finish(node, _outcome(node, "cached", key, entry))
            return
        self.listener.started(node)
        here, attempt = threading.get_ident(), self._attempts.get(name, 0)

        def progress(row: dict[str, Any]) -> None:
            if threading.get_ident() == here:
                self.listener.progressed(node, row)
            else:
                self._said.put((node, attempt, row))

        self._running[executor.submit(job(node, key, self._inputs(node)).text(), progress)] = node

    def _let_go(self, node: Node) -> str:
        """A node whose output this one needs, and which the collection of garbage has let go; '' if none is."""
        entries = ((r, self.outcomes[r.node].entry) for r in node.needs)
        return next((r.node for r, e in entries if e["objects"][r.output] in e.get("released", ())), "")

    def _make_again(self, maker: str, name: str) -> None:
        """Run a settled cell once more; ``name`` goes on when its output is there."""
        self._repairs.setdefault(maker, []).append(name)
        if len(self._repairs[maker]) == 1:
            self._queue(maker)

    def _pass_on(self) -> None:
        """What running cells have said from other threads; not what comes too late."""
        running = {node.id for node in self._running.values()}
        while not self._said.empty():
            node, attempt, row = self._said.get()
            if node.id in running and attempt == self._attempts.get(node.id, 0):
                self.listener.progressed(node, row)

    def _current_key(self, name: str) -> str:
        """The key from the inputs as they are now: a repair may have made other bits of them."""
        key = self.keyed(self.graph.nodes[name], self._inputs(self.graph.nodes[name]))
        if key != self._keys[name]:
            self._same[key] = self._same.pop(self._keys[name], [name])
            self._keys |= dict.fromkeys(self._same[key], key)
        return key

    def _collect(self, node: Node, future: Future[str], leases: Leases) -> None:
        key = self._keys[node.id]
        leases.release(key)
        try:
            answer = json.loads(future.result())
        except WorkerDied as died:
            answer = {"error": {"kind": "worker", "message": str(died), "traceback": "", "digest": ""}}
        if "entry" in answer and answer["entry"].get("key") != key:
            other = {"kind": "worker", "message": "a worker answered with the result of another cell"}
            answer = {"error": other | {"traceback": "", "digest": ""}}
        if "entry" in answer:
            self._finish(node, _outcome(node, "done", key, answer["entry"]))
            return
        error = answer["error"]
        if error["kind"] == "store":
            raise StoreError(error["message"])
        if error["kind"] in ("worker", "damaged") and self._try_again(node, error):
            return
        self._finish(node, Outcome(node, "failed", key, error=error))

    def _try_again(self, node: Node, error: Mapping[str, Any]) -> bool:
        """Queue a cell once more; first the cell that made a damaged object."""
        self._attempts[node.id] = self._attempts.get(node.id, 0) + 1
        if self._attempts[node.id] >= ATTEMPTS:
            return False
        makers = [
            r.node
            for r in node.needs
            if error["digest"] and error["digest"] in self.outcomes[r.node].entry["objects"].values()
        ]
        if makers and not self.store.object_whole(error["digest"]):
            self._make_again(makers[0], node.id)
        else:
            self._queue(node.id)
        self.listener.retried(node, error)
        return True

    def _finish(self, node: Node, outcome: Outcome) -> None:
        """Settle a cell that ran, the nodes with the same key, and those that waited for its repair."""
        waiting = self._repairs.pop(node.id, [])
        if node.id not in self.outcomes:
            for name in self._same.pop(outcome.key, [node.id]):
                twin = self.graph.nodes[name]
                self._settle(Outcome(twin, outcome.status, outcome.key, outcome.entry, outcome.error))
        elif outcome.good:
            self.outcomes[node.id] = outcome.kept
        for name in waiting:
            self._queue(name)

    def _settle(self, outcome: Outcome) -> None:
        self.outcomes[outcome.node.id] = outcome.kept
        self.listener.finished(outcome)
        for name in self._dependents[outcome.node.id]:
            self._missing[name] -= 1
            if not self._missing[name]:
                self._ready(name)


def _outcome(node: Node, status: str, key: str, entry: dict[str, Any]) -> Outcome:
    """The outcome of an entry; one that holds a divergence is a failure, kept so that it is not tried again."""
    if "failure" in entry:
        return Outcome(node, "failed", key, entry, entry["failure"])
    return Outcome(node, status, key, entry)


def urgencies(graph: Graph, cost: Callable[[Node], float]) -> dict[str, float]:
    """For every node, the cost of the longest chain that begins with it: what to run first."""
    dependents = graph.dependents()
    out: dict[str, float] = {}
    for name in reversed(list(graph.nodes)):
        out[name] = cost(graph.nodes[name]) + max((out[d] for d in dependents[name]), default=0.0)
    return out
