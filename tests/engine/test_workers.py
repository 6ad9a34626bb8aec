"""Worker processes: one that dies is replaced and said so; nothing hangs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sublevel as sl
from sublevel.engine.events import Event
from sublevel.engine.executors import WorkerDied, Workers
from sublevel.engine.job import Job
from sublevel.study.result import to_csv
from tiny_runs import arrays, furnish, until


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(1, threads=1)
    yield pool
    pool.shutdown()


def ask(workers: Workers, job: str) -> dict[str, object]:
    return json.loads(workers.submit(job, lambda row: None).result(timeout=60))


def pids(workers: Workers) -> list[int]:
    return [w.process.pid for w in workers._all if w.process.poll() is None]


def test_a_job_that_is_none_is_answered_with_an_error(workers: Workers) -> None:
    assert "error" in ask(workers, json.dumps({"kind": "nothing"}))


def test_an_idle_worker_that_was_killed_is_replaced(workers: Workers) -> None:
    """A job as large as a pipe holds, too: what could not be sent must not be in the way of saying so."""
    for job in ("{}", json.dumps({"long": "x" * 300_000})):
        (pid,) = pids(workers)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not pids(workers))
        with pytest.raises(WorkerDied):
            workers.submit(job, lambda row: None).result(timeout=30)
        assert "error" in ask(workers, "{}")
        assert pids(workers) != [pid]


def test_shutdown_leaves_no_process_and_no_waiting_future(workers: Workers) -> None:
    future = workers.submit("{}", lambda row: None)
    workers.shutdown()
    end = time.monotonic() + 20
    while not future.done() and time.monotonic() < end:
        time.sleep(0.01)
    assert future.done()
    assert pids(workers) == []
    workers.shutdown()


def test_each_worker_sees_one_gpu_and_the_one_in_its_place_the_same() -> None:
    word = b"CUDA_VISIBLE_DEVICES="

    def seen() -> dict[int, str]:
        told = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids(pool)}
        return {p: w[len(word) :].decode() for p, words in told.items() for w in words if w.startswith(word)}

    def all_see(*gpus: str) -> bool:
        """A process that was forked this moment has the environment of its parent, until it runs its own program."""
        return sorted(seen().values()) == list(gpus)

    pool = Workers(3, threads=1, gpus=("4", "6"))
    try:
        until(lambda: all_see("4", "4", "6"))
        before = seen()
        (pid,) = (pid for pid, gpu in before.items() if gpu == "6")
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in pids(pool))
        answers = [pool.submit("{}", lambda row: None) for _ in range(3)]
        until(lambda: all(a.done() for a in answers))
        (died,) = (a.exception() for a in answers if a.exception())
        assert "worker process died" in str(died)
        until(lambda: all_see("4", "4", "6"))
    finally:
        pool.shutdown()


def test_a_file_of_ones_own_does_not_hide_the_library(tmp_path, monkeypatch) -> None:
    """Workers are started where the user is, where a file may be called like a module of Python."""
    (tmp_path / "queue.py").write_text("raise RuntimeError('this is not the queue of the library')\n")
    monkeypatch.chdir(tmp_path)
    pool = Workers(1, threads=1)
    try:
        assert "error" in ask(pool, "{}")
    finally:
        pool.shutdown()


FORKS = """
import os, time

def compute(job, *_):
    if os.fork() == 0:
        with open("child", "w") as file:
            file.write(str(os.getpid()))
        os.rename("child", "born")
        time.sleep(600)
    while not os.path.exists("born"):
        time.sleep(0.01)
    os.kill(os.getpid(), 9) if job.kind == "dies" else time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["dies", "waits"])
def test_what_a_worker_has_forked_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """One that dies by itself; one whose run was killed, so that its jobs end."""
    (tmp_path / "forks.py").write_text(FORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = Workers(1, threads=1)
    try:
        job = Job("ab" * 32, kind, {}, {}, str(tmp_path / "store"), "forks:compute")
        future = pool.submit(job.text(), lambda row: None)
        child = int(str(until(lambda: (tmp_path / "born").exists() and (tmp_path / "born").read_text())))
        if kind == "waits":
            stdin = pool._all[0].process.stdin
            assert stdin is not None
            stdin.close()
        with pytest.raises(WorkerDied, match="SIGKILL"):
            future.result(timeout=60)
        until(lambda: not running(child))
    finally:
        pool.shutdown()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def removing(event: Event) -> None:
    """Takes the file of the data away before the first cell is handed out."""
    if event.what == "begin":
        Path("data.npz").rename("elsewhere.npz")


def test_workers_do_not_read_data_that_they_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(furnish(tmp_path))
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    mapped = sl.Study("small.toml", out="mapped").run(jobs=2, listener=removing, report=False)
    assert not len(mapped.failures)
    assert len(list((tmp_path / "cache" / "splits").iterdir())) == 1

    Path("elsewhere.npz").rename("data.npz")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "file" / "none"))
    alone = sl.Study("small.toml", out="alone").run(jobs=1, report=False)
    assert to_csv(alone.levels) == to_csv(mapped.levels)

    failing = sl.Study("small.toml", out="failing").run(jobs=2, listener=removing, report=False)
    assert "data.npz" in failing.failures["error"].iloc[0]


def test_data_given_in_python_are_shared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    found = arrays()
    train, test = ((found[f"{part}_x"][:, None], found[f"{part}_y"]) for part in ("train", "test"))
    problem = sl.Problem("lenet-300-100", train=train, test=test, validation=40)
    name = problem.share()
    again = sl.Problem.of(problem.spec(stored="of no use"), lambda digest: pytest.fail("loaded"), name)
    assert again.fingerprint() == problem.fingerprint()
    assert again.on("cpu", "float64").splits.digest == problem.splits.digest
    assert sl.Problem("lenet-300-100", train=train, test=test, loop="own_loop:sgd").share() is None
