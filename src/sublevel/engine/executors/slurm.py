"""Jobs on Slurm: long-lived worker jobs, submitted with submitit, that get their cells through a shared folder.

A cell may take a second, so one Slurm job per cell would queue for longer than it runs. Results go through the store.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from sublevel.engine.executors import visibility
from sublevel.engine.executors.base import Setting, WorkerDied, own_paths
from sublevel.engine.executors.mailbox import POLL, Lines, append, serve
from sublevel.engine.job import Progress
from sublevel.errors import ConfigError, StoreError, SublevelError

JOBS = 8
"""Default number of worker jobs; ``--jobs`` overrides it."""

MINUTES = 12 * 60
"""Default time limit of a worker job, in minutes; the study's ``run.slurm.time`` overrides it."""

ASK = 5.0
"""Seconds between two queries of the states of jobs."""

SILENCE = 120.0
"""Seconds without a heartbeat after which a worker counts as dead, whatever Slurm reports."""

STARTS = 3
"""Number of worker jobs in a row that may end before they say hello."""

QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED")

ALIVE = (*QUEUED, "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")


@dataclass
class _Task:
    name: str
    job: str
    progress: Progress
    future: Future[str] = field(default_factory=Future)


@dataclass
class _WorkerJob:
    """A worker job: ``waiting`` for a node, then ``ready``, then ``gone``."""

    name: str
    job: Any
    lines: Lines
    state: str = "waiting"
    node: str = ""
    task: _Task | None = None
    heard: float = field(default_factory=time.monotonic)


class Slurm:
    """As many worker jobs as there are cells to run, and at most ``jobs``.

    ConfigError if submitit or Slurm is not installed, or refuses the study's options.
    """

    def __init__(self, setting: Setting) -> None:
        try:
            import submitit
        except ImportError:
            raise ConfigError("the executor slurm needs submitit: pip install 'sublevel[slurm]'") from None
        if shutil.which("sbatch") is None:
            raise ConfigError("the executor slurm needs the commands of Slurm; there is no sbatch on this machine")
        s, self.slots = setting, setting.jobs or JOBS
        gpus = {"gpus_per_node": math.ceil(s.gpus)} if s.gpus and "gres" not in s.options else {}
        usual = {"job_name": "sublevel", "time": MINUTES, "cpus_per_task": s.threads, "stderr_to_stdout": True}
        self._folder = setting.folder / f".slurm-{uuid.uuid4().hex[:8]}"
        self._token = visibility.place(setting.store)
        try:
            self._submitter = submitit.SlurmExecutor(self._folder / "jobs")
            self._submitter.update_parameters(**{**usual, **gpus, **s.options})
        except (TypeError, ValueError, RuntimeError) as error:
            self._tidy()
            raise ConfigError(f"run.slurm: {' '.join(str(error).split())}") from None
        self._new: SimpleQueue[_Task] = SimpleQueue()
        self._tasks: deque[_Task] = deque()
        self._workers: list[_WorkerJob] = []
        self._asked_at, self._mute = 0.0, 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._attend, daemon=True)
        self._thread.start()

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Queue the job for the next free worker."""
        task = _Task(uuid.uuid4().hex, job, progress)
        self._new.put(task)
        return task.future

    def shutdown(self) -> None:
        """Cancel the worker jobs and remove the folder."""
        self._closed.set()
        self._thread.join()
        if self._workers:  # also ended ones, which slurm may have queued again
            _command("scancel", *(w.job.job_id for w in self._workers))
        self._tidy()

    def _tidy(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        visibility.take_away(self._token)

    def _attend(self) -> None:
        """The loop of the only thread that changes the state."""
        while not self._closed.wait(POLL):
            try:
                with suppress(Empty):
                    while True:
                        self._tasks.append(self._new.get_nowait())
                for worker in self._workers:
                    self._listen(worker)
                self._hire()
                for worker in self._workers:
                    if worker.state == "ready" and worker.task is None and self._tasks:
                        worker.task = task = self._tasks.popleft()
                        append(self._folder / "mail" / f"{worker.name}.in", {"task": task.name, "job": task.job})
                self._ask()
            except Exception as error:  # the study must end, not hang
                self._give_up(error if isinstance(error, SublevelError) else StoreError(f"slurm: {error}"))

    def _listen(self, worker: _WorkerJob) -> None:
        for row in worker.lines.new():
            worker.heard = time.monotonic()
            if "hello" in row:
                if not row["sees"]:
                    raise StoreError(visibility.refusal(self._token, row["node"]))
                self._bury(worker, "slurm started it again")  # on another node, after its own failed
                worker.state, worker.node, self._mute = "ready", row["node"], 0
            elif "bye" in row:
                worker.state = "gone"
                if worker.task is not None:  # it received the task while it was ending
                    self._tasks.appendleft(worker.task)
                worker.task = None
            elif worker.task is not None and row.get("task") == worker.task.name:
                if "answer" in row:
                    worker.task.future.set_result(row["answer"])
                    worker.task = None
                else:
                    worker.task.progress(row["progress"])

    def _hire(self) -> None:
        """Submit a worker job for each cell that has none."""
        there = [w for w in self._workers if w.state != "gone"]
        wanted = min(self.slots - len(there), len(self._tasks) - sum(w.task is None for w in there))
        if wanted <= 0:
            return
        names = [str(len(self._workers) + i) for i in range(wanted)]
        mail = self._folder / "mail"
        mail.mkdir(parents=True, exist_ok=True)
        for name in names:
            (mail / f"{name}.in").touch()
            (mail / f"{name}.out").touch()
        same = ([each] * wanted for each in (own_paths(), self._token))
        try:
            jobs = self._submitter.map_array(serve, [str(mail)] * wanted, names, *same)
        except Exception as error:  # with the reason of sbatch
            said = " ".join(str(error).split())
            raise ConfigError(f"slurm refuses the worker jobs (run.slurm): {said}") from None
        self._workers += [_WorkerJob(n, j, Lines(mail / f"{n}.out")) for n, j in zip(names, jobs, strict=True)]
        self._asked_at = time.monotonic()

    def _ask(self) -> None:
        """Find the workers whose jobs have ended or that are silent."""
        now = time.monotonic()
        there = [w for w in self._workers if w.state != "gone"]
        if not there or now - self._asked_at < ASK:
            return
        self._asked_at = now
        states = _states([w.job.job_id for w in there])
        for worker in there:
            state = "" if states is None else states.get(worker.job.job_id, "not in the queue")
            if state and state not in ALIVE:
                self._listen(worker)  # its last words
                if worker.state != "gone":
                    self._lose(worker, state)
            elif worker.state == "ready" and state in QUEUED:
                _command("scancel", worker.job.job_id)  # it would wait for minutes; a new one may start at once
                self._lose(worker, "its node failed, or it was preempted")
            elif worker.state == "ready" and now - worker.heard > SILENCE:
                self._lose(worker, f"no sign of life for {SILENCE:.0f} s")

    def _lose(self, worker: _WorkerJob, why: str) -> None:
        if worker.state == "waiting":
            self._mute += 1
            if self._mute >= STARTS:
                last = _last_line(Path(worker.job.paths.stdout))
                raise ConfigError(f"the worker jobs of slurm end before they begin ({why}): {last}")
        worker.state = "gone"
        self._bury(worker, why)

    def _bury(self, worker: _WorkerJob, why: str) -> None:
        """Fail the cell of a worker that has ended."""
        if worker.task is not None:
            said = f"slurm job {worker.job.job_id} on {worker.node or 'no node'} died: {why}"
            worker.task.future.set_exception(WorkerDied(said))
            worker.task = None

    def _give_up(self, error: Exception) -> None:
        for task in [*self._tasks, *(w.task for w in self._workers if w.task is not None)]:
            if not task.future.done():
                task.future.set_exception(error)
        self._tasks.clear()
        for worker in self._workers:
            worker.task = None


def _states(ids: Sequence[str]) -> dict[str, str] | None:
    """Job id -> state; None if Slurm does not answer."""
    arrays = sorted({i.partition("_")[0] for i in ids})
    done = _command("squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(arrays)}", "--format=%i %T")
    if done is None or (done.returncode and "Invalid job id" not in done.stderr):
        return None
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _command(*words: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _last_line(log: Path) -> str:
    """The last line of a job's log."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return f"there is no {log}"
    return next((line.strip() for line in reversed(lines) if line.strip()), "it is empty")
