"""Jobs as tasks of Ray: on this machine, or on every node of a cluster that sees the store.

A task is one job. It reserves the study's threads as CPUs, and ``gpus`` of a GPU. Ray's own retries are off: the
schedule retries, with its limit, and keeps the reason.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from sublevel.engine.executors import visibility
from sublevel.engine.executors.base import Setting, WorkerDied, import_from, own_paths
from sublevel.engine.job import Progress
from sublevel.engine.worker import run_job
from sublevel.errors import ConfigError, StoreError

POLL = 1.0
"""Seconds between two polls of the progress of cells and of the nodes."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
"""Turns off Ray's usage statistics, and its copy of a dead node's log on the terminal."""


class Board:
    """The actor through which tasks report progress to the driver; it reserves no CPU."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, dict[str, Any]]] = []

    def say(self, task: str, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append((task, row))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """All rows since the last call."""
        rows, self._rows = self._rows, []
        return rows


def work(job: str, task: str, paths: list[str], token: str, board: Any) -> str:
    """Run a job on this node, if it sees the store."""
    look(token)
    import_from(paths)
    return run_job(job, lambda row: board.say.remote(task, row))


def look(token: str) -> None:
    """Raise StoreError if this machine does not see the store."""
    if not visibility.sees(token):
        raise StoreError(visibility.refusal(token, socket.gethostname()))


class Ray:
    """A Ray cluster: ``ray`` joins that of RAY_ADDRESS or of this machine, or starts one here for the run.

    ConfigError if Ray is not installed or cannot be reached, or if no node has room for a cell; StoreError if a node
    does not see the store.
    """

    def __init__(self, address: str, setting: Setting) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError:
            raise ConfigError("the executor ray needs Ray: pip install 'sublevel[ray]'") from None
        self._ray, self._setting = ray, setting
        self._ours = not ray.is_initialized()
        self._running: dict[str, tuple[Any, Progress]] = {}
        self._looked, self._room = 0.0, 0
        self._closed = threading.Event()
        self._join(address)
        self._token = visibility.place(setting.store)
        try:
            self._prove()
            # a process keeps its GPU as long as it lives, so a process with a GPU ends after one cell
            calls = {"max_calls": 1} if setting.gpus else {}
            takes = {"num_cpus": setting.threads, "num_gpus": setting.gpus}
            self._work: Any = ray.remote(work).options(**takes, **calls, max_retries=0)
            self._board: Any = ray.remote(Board).options(num_cpus=0, max_restarts=-1).remote()
        except BaseException:
            self.shutdown()
            raise
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def slots(self) -> int:
        """The jobs asked for, or the capacity of the living nodes; at least one, which may wait for a node."""
        if self._setting.jobs is None and time.monotonic() - self._looked > POLL:
            self._room, self._looked = self._capacity(), time.monotonic()
        return max(1, self._setting.jobs or self._room)

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Submit the job to Ray, which chooses a node."""
        answer: Future[str] = Future()
        task = uuid.uuid4().hex
        reference = self._work.remote(job, task, own_paths(), self._token, self._board)
        self._running[task] = (reference, progress)

        def settle(done: Future[str]) -> None:
            self._running.pop(task, None)
            error = done.exception()
            if error is None:
                answer.set_result(done.result())
            elif isinstance(cause := _cause(error), StoreError):
                answer.set_exception(cause)
            else:
                answer.set_exception(WorkerDied(f"a Ray task died: {_first(error)}"))

        reference.future().add_done_callback(settle)
        return answer

    def shutdown(self) -> None:
        """Cancel running tasks; leave the cluster, or stop it if it was started here."""
        self._closed.set()
        for reference, _ in list(self._running.values()):
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
        if self._ours:
            self._ray.shutdown()
        visibility.take_away(self._token)

    def _join(self, address: str) -> None:
        if not self._ours:
            return
        try:
            quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
            if address == "ray":
                self._ray.init(include_dashboard=False, **quiet)
            else:
                self._ray.init(address, **quiet)
        except Exception as error:  # there are many classes of errors
            raise ConfigError(f"Ray cannot be reached ({address}): {_first(error)}") from None

    def _prove(self) -> None:
        """Check that every node sees the store, before any cell starts."""
        if not self._capacity():
            s = self._setting
            wants = f"{s.threads} CPUs" + (f" and {s.gpus:g} GPUs" if s.gpus else "")
            raise ConfigError(f"no node of the Ray cluster has {wants}, which a cell of this study takes")
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in self._nodes():
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = self._ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=pinned)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
            asked[name] = task.remote(self._token)
        blind = []
        for node, reference in asked.items():
            try:
                self._ray.get(reference)
            except Exception as error:
                if not isinstance(_cause(error), StoreError):
                    raise ConfigError(f"node {node} of the Ray cluster cannot run sublevel: {_first(error)}") from None
                blind.append(node)
        if blind:
            raise StoreError(visibility.refusal(self._token, *blind))

    def _nodes(self) -> list[dict[str, Any]]:
        """The living nodes with room for a cell."""
        return [node for node in self._ray.nodes() if node["Alive"] and self._fits(node)]

    def _fits(self, node: dict[str, Any]) -> int:
        """How many cells fit on a node."""
        has, s = node["Resources"], self._setting
        cpus = int(has.get("CPU", 0) // s.threads)
        return min(cpus, int(has.get("GPU", 0) / s.gpus + 1e-9)) if s.gpus else cpus

    def _capacity(self) -> int:
        return sum(map(self._fits, self._nodes()))

    def _listen(self) -> None:
        """Pass on the progress of cells. If the board dies with its node, a new one starts empty."""
        while not self._closed.wait(POLL):
            with suppress(Exception):
                for task, row in self._ray.get(self._board.take.remote(), timeout=30):
                    if task in self._running:
                        self._running[task][1](row)


def _cause(error: BaseException) -> BaseException:
    """The error of a task, without Ray's wrapper."""
    return getattr(error, "cause", None) or error


def _first(error: BaseException) -> str:
    """The class of an error and the first two sentences of its message."""
    lines = [line.strip() for line in str(_cause(error)).splitlines() if line.strip()]
    said = ". ".join(lines[0].split(". ")[:2]) if lines else ""
    return f"{type(_cause(error)).__name__}: {said}" if said else type(error).__name__
