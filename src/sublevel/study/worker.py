"""A worker: one JSON string in, one JSON string out.

The same function runs a job in this process and in a worker process (``python -m sublevel.study.worker``), which
reads jobs from standard input, a line each, and answers on its standard output. Nothing of the caller's main module
is imported, so it works from notebooks and from scripts without a main guard.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from queue import Queue
from typing import Any, TextIO

from sublevel.engine.store import Store, canonical, digest
from sublevel.errors import DamagedEntry, Diverged, ModelError, StoreError, SublevelError
from sublevel.foreign import plain
from sublevel.own_code import contained
from sublevel.study.arithmetic import arithmetic

Say = Callable[[dict[str, Any]], None]


def run_job(job: str, progress: Say = lambda row: None, local: Any = None) -> str:
    """Compute one cell and write its entry; the answer is its digests and values, or its error.

    The first that it reports is where it runs.
    ``local`` is a problem that this process has already. The job holds ``key``, ``kind``, ``inputs``, ``problem``,
    ``identity`` (the digest of the problem's fingerprint, or None), ``splits`` (the name of those that are shared, or
    None), ``store``, ``threads`` and ``labels``.
    """
    started = time.perf_counter()
    document = json.loads(job)
    progress({"host": socket.gethostname(), "pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")})
    try:
        with arithmetic(document["threads"]):
            return json.dumps({"entry": _compute(document, progress, local, started)})
    except Diverged as error:
        return json.dumps({"entry": _keep_divergence(document, error, started)})
    except Exception as error:
        return json.dumps({"error": _described(error)})


def take_part(job: str) -> None:
    """Take part in a training of which another process keeps the result, or finds the same fault."""
    from sublevel.study.partial import Reader

    document = json.loads(job)
    with arithmetic(document["threads"]), suppress(SublevelError), contained():
        _output(document, Reader(_store(document["store"]).files, document["key"]))


def _compute(job: dict[str, Any], progress: Say, local: Any, started: float) -> dict[str, Any]:
    from sublevel.study.cells import KERNELS
    from sublevel.study.partial import Partial

    store = _store(job["store"])
    with contained():  # whatever forks or ends in here, one process goes on to write
        output = _output(job, Partial(store.files, job["key"]), progress, local)
    objects = {name: store.put_tensors(tensors) for name, tensors in output.objects.items()}
    result = {"version": KERNELS[job["kind"]][1], "values": finite(output.values), "objects": objects}
    return _keep(store, job, result, started)


def _output(job: dict[str, Any], keeper: Any, progress: Say = lambda row: None, local: Any = None) -> Any:
    """What the job's kernel gives back."""
    from sublevel.study.cells import KERNELS, Context, register

    register()
    store, problem = _store(job["store"]), local
    if problem is None:
        problem = _problem(canonical(job["problem"]).decode(), job["identity"], job["store"], job["splits"])
    return KERNELS[job["kind"]][0](Context(problem, store, progress, keeper), **job["inputs"])


def _keep(store: Store, job: dict[str, Any], result: dict[str, Any], started: float) -> dict[str, Any]:
    from sublevel.study.partial import Partial

    about = {name: job[name] for name in ("key", "kind", "inputs", "labels")}
    body = {**about, **result, "seconds": round(time.perf_counter() - started, 3)}
    store.write_entry(job["key"], body)
    Partial(store.files, job["key"]).drop()
    return body


def _keep_divergence(job: dict[str, Any], error: Diverged, started: float) -> dict[str, Any]:
    """Divergence is a result: it would happen again, so it is kept and not tried again."""
    failure = {"kind": "diverged", "message": str(error)}
    return _keep(_store(job["store"]), job, {"values": {}, "objects": {}, "failure": failure}, started)


def finite(value: Any) -> Any:
    """JSON has no nan and no infinity: they become null, an empty field of a table."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=1)
def _store(path: str) -> Store:
    return Store(path)


@lru_cache(maxsize=1)
def _problem(description: str, identity: str | None, store: str, splits: str | None) -> Any:
    """The problem, which must be the one that the keys were made from: its code or its data may have been edited."""
    from sublevel.problem import Problem

    problem = Problem.from_description(json.loads(description), _store(store).get_tensors, splits)
    if identity is not None and digest(canonical(problem.fingerprint())) != identity:
        raise ModelError("the network's code or the data have changed since the run began: start it again")
    return problem


def _described(error: Exception) -> dict[str, Any]:
    kinds = [(DamagedEntry, "damaged"), (StoreError, "store"), (SublevelError, "refused")]
    kind = next((name for cls, name in kinds if isinstance(error, cls)), "error")
    text = str(error) if isinstance(error, SublevelError) else f"{type(error).__name__}: {error}"
    return {
        "kind": kind,
        "message": plain(text).removesuffix(": "),
        "digest": getattr(error, "digest", ""),
        "traceback": plain("".join(traceback.format_exception(error))),
    }


def main() -> None:
    """Serve jobs until standard input ends.

    User code finds an empty standard input, what it prints goes to standard error, and a child that it forks has
    neither the jobs nor the answers.
    """
    jobs, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdin, sys.stdout = open(0, encoding="utf-8", closefd=False), sys.stderr  # noqa: SIM115 - for the whole process
    pipes = jobs.fileno(), answers.fileno()
    os.register_at_fork(after_in_child=lambda: [os.close(each) for each in pipes])

    def say(row: dict[str, Any]) -> None:
        answers.write(json.dumps(row) + "\n")
        answers.flush()

    for line in _lines(jobs):
        request = json.loads(line)
        sys.path[:] = request["path"]
        answer = run_job(request["job"], progress=lambda row: say({"progress": finite(row)}))
        say({"answer": answer})


def _lines(jobs: TextIO) -> Iterator[str]:
    """Lines of ``jobs``; when it ends, so does the process, even in the middle of a job: the parent is gone."""
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in jobs:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    main()
