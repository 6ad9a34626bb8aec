"""The jobs that an executor runs for a schedule, and their progress reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from queue import SimpleQueue
from typing import Any

from sublevel.engine.executors import Executor
from sublevel.engine.graph import Node
from sublevel.engine.job import Job

Report = Callable[[Node, dict[str, Any]], None]


class Running:
    """The running jobs. Reports from other threads are passed on in the thread that calls `ended`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._nodes: dict[Future[str], Node] = {}
        self._rows: SimpleQueue[tuple[object, Node, dict[str, Any]]] = SimpleQueue()
        self._started: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def start(self, executor: Executor, node: Node, job: Job) -> None:
        """Submit a job to an executor, which may run it at once in this thread."""
        self._started[node.id] = attempt = object()
        here = threading.get_ident()

        def progress(row: dict[str, Any]) -> None:
            if threading.get_ident() == here:
                self._report(node, row)
            else:
                self._rows.put((attempt, node, row))

        self._nodes[executor.submit(job.text(), progress)] = node

    def ended(self, seconds: float) -> Iterator[tuple[Node, Future[str]]]:
        """Wait up to ``seconds`` for a job to end; pass on reports; yield the jobs that have ended."""
        done, _ = wait(self._nodes, timeout=seconds, return_when=FIRST_COMPLETED)
        while not self._rows.empty():
            attempt, node, row = self._rows.get()
            if self._started.get(node.id) is attempt:  # else it comes too late
                self._report(node, row)
        for future in done:
            node = self._nodes.pop(future)
            del self._started[node.id]
            yield node, future
