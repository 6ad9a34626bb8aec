"""Many cells of a millisecond through the scheduler and the store, against as many bare naps and fsynced writes.

python benchmarks/faults/many_cells.py [n]     # n cells (10,000: one to four minutes, as the disk fsyncs)

The other side naps for a millisecond, opens a file, writes as many bytes as an entry has, fsyncs and closes it: no key,
no lease, no rename, no fsync of the folder. Half of it is done before the cells, half after. Memory is that of this
process, after each tenth.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import workshop  # noqa: F401 - finds benchmarks/common.py

from sublevel.engine.events import Event
from sublevel.engine.executors import InProcess
from sublevel.engine.graph import Graph, Node
from sublevel.engine.job import Job, Progress
from sublevel.engine.partial import Partial
from sublevel.engine.schedule import Schedule
from sublevel.engine.store import Store, canonical, digest

NAP = 0.001
"""Seconds of a cell."""

ALL = 10_000
"""Cells unless it is said."""

SIZE = 500
"""Bytes of an entry, about."""


class Watch:
    """Looks at the memory of this process as the cells go by."""

    def __init__(self, n: int) -> None:
        self.every, self.done, self.memory = max(1, n // 10), 0, []

    def __call__(self, event: Event) -> None:
        """Count what has finished."""
        if event.outcome is None:
            return
        assert event.outcome.status == "done", event.outcome.error
        self.done += 1
        if self.done % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def bare(folder: Path, n: int, size: int, rest: float) -> float:
    """Seconds of n fsynced writes, each after some seconds of rest."""
    folder.mkdir()
    data, began = bytes(size), time.perf_counter()
    for i in range(n):
        time.sleep(rest)
        with open(folder / f"{i}", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - began


def cells(store: Store, n: int, watch: Watch) -> float:
    """Seconds of n cells, each a millisecond and a number."""
    graph = Graph()
    for i in range(n):
        graph.add(Node(f"nap/{i}", "nap", {"seed": i}, {"seed": i}))

    def job(node: Node, name: str, inputs: Any) -> Job:
        labels = {**node.labels, "cell": node.id, "study": "many"}
        return Job(name, node.kind, inputs, labels, str(store.path), f"{__name__}:nap")

    schedule = Schedule(
        graph, store, lambda node, inputs: digest(canonical([node.kind, inputs])), lambda node: 1.0, watch
    )
    began = time.perf_counter()
    schedule.run(InProcess(), job)
    return time.perf_counter() - began


def nap(job: Job, store: Store, partial: Partial, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """A millisecond."""
    time.sleep(NAP)
    return {"version": 1, "values": {"seed": job.inputs["seed"]}}, {}


def measure(n: int) -> dict[str, Any]:
    """Time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        store, watch = Store(Path(folder) / "store"), Watch(n)
        store.check_writable()
        plain = bare(Path(folder) / "before", n // 2, SIZE, NAP)
        seconds = cells(store, n, watch)
        plain += bare(Path(folder) / "after", n - n // 2, SIZE, NAP)
        alone = bare(Path(folder) / "alone", n, SIZE, 0.0)
        entries = len(list(store.keys()))
    return {
        "cells": n,
        "entries": entries,
        "seconds": seconds,
        "naps and bare fsynced writes, seconds": plain,
        "bare fsynced writes alone, seconds": alone,
        "ratio": seconds / plain,
        "memory after each tenth, MiB": [round(m, 1) for m in watch.memory],
        "target": "ratio <= 2; memory grows by less than 1 KiB per cell",
    }


if __name__ == "__main__":
    from common import record

    n = int(sys.argv[1]) if len(sys.argv) > 1 else ALL
    record("faults-many-cells" + (f"-{n}" if n != ALL else ""), __file__, measure(n))
