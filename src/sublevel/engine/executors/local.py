"""Jobs on this machine: in this process, or in a pool of worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Queue

from sublevel.engine.executors.base import WorkerDied
from sublevel.engine.job import Compute, Progress
from sublevel.engine.worker import run_job
from sublevel.errors import ConfigError


class InProcess:
    """Runs jobs in this process, one at a time: for debugging, and for jobs that no other process can run.

    ``compute`` replaces the function that the jobs name.
    """

    slots = 1

    def __init__(self, compute: Compute | None = None) -> None:
        self.compute = compute

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Run the job now."""
        future: Future[str] = Future()
        future.set_result(run_job(job, progress, self.compute))
        return future

    def shutdown(self) -> None:
        """Nothing to stop."""


FULL = "this machine starts no more processes for this user (ulimit -u, or memory): run fewer --jobs"

GRACE = 5.0
"""Seconds that a thread gets to notice that its worker is dead."""


class Workers:
    """A pool of worker processes, each fed with one JSON line per job over a pipe.

    A worker that dies is replaced; its job's future raises WorkerDied. Each worker sees one of the ``gpus``, and its
    replacement sees the same one.
    """

    def __init__(self, slots: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.slots = slots
        self._threads = threads
        self._idle: Queue[_Worker] = Queue()
        self._all: list[_Worker] = []
        self._serving: set[threading.Thread] = set()
        self._closing = False
        try:
            for slot in range(slots):
                self._idle.put(self._start(gpus[slot % len(gpus)] if gpus else None))
        except OSError as error:
            self.shutdown()
            raise ConfigError(f"{FULL} ({error.strerror or error})") from error

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Give the job to an idle worker; the caller keeps at most ``slots`` jobs running."""
        future: Future[str] = Future()
        thread = threading.Thread(target=self._serve, args=(job, progress, future), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise ConfigError(f"{FULL} ({error})") from error
        self._serving = {t for t in self._serving if t.is_alive()} | {thread}
        return future

    def shutdown(self) -> None:
        """Kill the workers; wait for them and for the threads that read from them.

        The interpreter aborts if a thread still holds the lock of a pipe when it exits.
        """
        self._closing = True
        for worker in self._all:
            worker.end()
        for thread in filter(threading.Thread.is_alive, self._serving):
            thread.join(GRACE)
        for worker in self._all:
            worker.kill()

    def _serve(self, job: str, progress: Progress, future: Future[str]) -> None:
        worker = self._idle.get()
        try:
            future.set_result(worker.ask(job, progress))
        except Exception as error:  # the future must end in any case
            worker.kill()
            try:
                worker = worker if self._closing else self._start(worker.gpu)
            finally:
                future.set_exception(WorkerDied(f"a worker process died: {error}"))
        finally:
            self._idle.put(worker)

    def _start(self, gpu: str | None) -> _Worker:
        worker = _Worker(self._threads, gpu)
        self._all.append(worker)
        return worker


def ending(code: int) -> str:
    """The exit code of a process, in words.

    >>> ending(7), ending(-9)
    ('exit code 7', 'exit code -9 (SIGKILL: by hand, by a scheduler, or out of memory)')
    """
    if code >= 0:
        return f"exit code {code}"
    more = ": by hand, by a scheduler, or out of memory" if code == -signal.SIGKILL else ""
    return f"exit code {code} ({signal.Signals(-code).name}{more})"


def visible(device: str, count: int, said: str | None) -> tuple[str, ...]:
    """The GPUs that a study on ``device`` may use, by their names in CUDA_VISIBLE_DEVICES.

    ``count`` GPUs are visible to this process, and ``said`` is its CUDA_VISIBLE_DEVICES.

    >>> visible("cuda", 2, None), visible("cuda", 2, "4,6"), visible("cuda:1", 2, "4,6"), visible("cpu", 0, None)
    (('0', '1'), ('4', '6'), ('6',), ())
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return ()
    names = [name.strip() for name in said.split(",")][:count] if said else [str(i) for i in range(count)]
    return (names[int(index)],) if index else tuple(names)


class _Worker:
    def __init__(self, threads: int, gpu: str | None) -> None:
        self.gpu = gpu
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sublevel.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def ask(self, job: str, progress: Progress) -> str:
        """Send a job, pass its progress on, return its answer."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"job": job, "path": [p or os.getcwd() for p in sys.path]}) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            row = json.loads(line)
            if "answer" in row:
                return row["answer"]
            progress(row["progress"])
        raise WorkerDied(ending(self._death()))

    def _death(self) -> int:
        """Wait until the process ends, end the processes that it has started, and return its exit code.

        Its number stays reserved until it is waited for, so no other group of processes can have it.
        """
        if hasattr(os, "waitid"):
            with suppress(ChildProcessError):  # waited for already
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
            self.end()
        return self.process.wait()

    def end(self) -> None:
        """Kill the process and the processes of its session."""
        if self.process.returncode is None:  # not waited for yet, so its number is still reserved
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def kill(self) -> None:
        """Kill the process and wait until it has ended."""
        self.end()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # closing fails if the dead process left data unread
                    pipe.close()
