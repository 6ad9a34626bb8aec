"""A worker: one JSON string in, one JSON string out.

The same function runs a job in this process and in a worker process (``python -m sublevel.engine.worker``), which reads
jobs from standard input, one on each line, and answers on its standard output. The caller's main module is not
imported, so it works from notebooks and from scripts without a main guard.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import lru_cache
from queue import Queue
from typing import Any, TextIO

from sublevel.engine.job import Compute, Job, Progress
from sublevel.engine.partial import Partial
from sublevel.engine.store import Document, Store
from sublevel.engine.store.content import finite
from sublevel.errors import DamagedEntry, Diverged, StoreError, SublevelError, kind_and_text
from sublevel.foreign import plain

leave = os._exit
"""Ends the process at once; in ``os`` it is refused to code of the user's."""


STILL = 60.0
"""Seconds for which the interpreter of a worker under a limit of memory may stand still."""


def run_job(text: str, progress: Progress = lambda row: None, compute: Compute | None = None) -> str:
    """Compute one cell and write its entry; the answer holds the ``entry``, or the ``error``.

    It first reports where it runs. ``compute`` takes the place of the function that the job names.
    """
    started = time.perf_counter()
    progress({"host": socket.gethostname(), "pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")})
    try:
        job = Job.of(text)
        return json.dumps({"entry": _entry(job, progress, compute or job.compute, started)})
    except Exception as error:
        return json.dumps({"error": _described(error)})


def take_part(text: str) -> None:
    """Compute a cell together with other processes, one of which stores the result and reports errors."""
    with suppress(SublevelError):
        job = Job.of(text)
        store = opened_store(job.store)
        job.compute(job, store, Partial(store.files, job.key, keeps=False), lambda row: None)


def _entry(job: Job, progress: Progress, compute: Compute, started: float) -> Document:
    """Compute a cell; store its objects, then its entry."""
    store = opened_store(job.store)
    partial = Partial(store.files, job.key)
    try:
        result, tensors = compute(job, store, partial, progress)
        found = finite(result) | {"objects": {name: store.put_tensors(each) for name, each in tensors.items()}}
    except Diverged as error:  # it would happen again, so it is a stored result
        found = {"values": {}, "objects": {}, "failure": {"kind": "diverged", "message": str(error)}}
    about = {"key": job.key, "kind": job.kind, "inputs": job.inputs, "labels": job.labels}
    body = {**about, **found, "seconds": round(time.perf_counter() - started, 3)}
    store.write_entry(job.key, body)
    partial.drop()
    return body


@lru_cache(maxsize=1)
def opened_store(address: str) -> Store:
    """The store at an address; the last one stays open."""
    return Store(address)


def _described(error: Exception) -> dict[str, Any]:
    kinds = [(DamagedEntry, "damaged"), (StoreError, "store"), (SublevelError, "refused")]
    kind = next((name for cls, name in kinds if isinstance(error, cls)), "error")
    text = kind_and_text(error)
    if kind != "error":
        text = text.partition(": ")[2]
    return {
        "kind": kind,
        "message": plain(text),
        "digest": error.digest if isinstance(error, DamagedEntry) else "",
        "traceback": plain("".join(traceback.format_exception(error))),
    }


def main() -> None:
    """Serve jobs until standard input ends.

    User code sees an empty standard input; its output goes to standard error; its forked children cannot reach the
    pipes of jobs and answers.
    """
    jobs, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdin, sys.stdout = open(0, encoding="utf-8", closefd=False), sys.stderr  # noqa: SIM115 - for the whole process
    lines = _read(jobs)
    _end_if_still()  # after the thread that reads: there may be memory for one
    pipes = jobs.fileno(), answers.fileno()
    os.register_at_fork(after_in_child=lambda: [os.close(each) for each in pipes])

    def say(row: dict[str, Any]) -> None:
        answers.write(json.dumps(row) + "\n")
        answers.flush()

    while True:
        request = json.loads(lines.get())
        sys.path[:] = request["path"]
        answer = run_job(request["job"], progress=lambda row: say({"progress": finite(row)}))
        say({"answer": answer})


def _end_if_still() -> None:
    """Under a limit of memory (ulimit -v), end the process if no thread of it gets its turn for `STILL` seconds.

    Without memory for the handling of a MemoryError, CPython tries for ever and lets no other thread run, so the
    process would outlive even its parent.
    """
    limits = {resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    if limits == {resource.RLIM_INFINITY}:
        return

    def live() -> None:
        while True:
            with suppress(RuntimeError):
                faulthandler.dump_traceback_later(STILL, exit=True)
            time.sleep(STILL / 10)

    with suppress(RuntimeError):  # no memory for a thread
        threading.Thread(target=live, daemon=True).start()


def _read(jobs: TextIO) -> Queue[str]:
    """Lines of ``jobs``, by a thread. At its end the process ends, even in the middle of a job: the parent is gone.

    If the process leads a session, its forked children end too.
    """
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in jobs:
            lines.put(line)
        if os.getsid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        leave(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    main()
