"""Code of the user's that ends the process, asks the terminal, leaves the folder or forks: a failed cell or a result.

Never an exit code of 0 without tables, a wait without end, tables in another place, or another cell's answer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from sublevel.cli import main
from sublevel.engine.graph import Graph, Node
from sublevel.engine.job import Job
from sublevel.engine.schedule import Schedule
from sublevel.engine.store import Store
from sublevel.engine.worker import run_job
from sublevel.errors import ModelError
from sublevel.own_code import contained
from tiny_runs import furnish, tables

LOOPS = """
import os, sys, time

def leaves(theta, mask, steps):
    os.chdir("/")
    return theta

def exits(theta, mask, steps):
    sys.exit(0)

def exits_with_words(theta, mask, steps):
    sys.exit("the licence is over")

def exits_at_once(theta, mask, steps):
    os._exit(0)

def closes(theta, mask, steps):
    raise GeneratorExit

def asks(theta, mask, steps):
    input("how many? ")

def stops(theta, mask, steps):
    breakpoint()
    return theta

def forks(theta, mask, steps):
    os.fork()
    return theta

def forks_and_exits(theta, mask, steps):
    if os.fork() == 0:
        time.sleep(0.2)
        sys.exit(0)
    return theta

def helped(theta, mask, steps):
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    return theta

def silent(theta, mask, steps):
    raise AssertionError
"""
REASONS = {
    "exits": "the code ended the program: SystemExit: 0",
    "exits_with_words": "the code ended the program: SystemExit: the licence is over",
    "exits_at_once": "the code ended the program: SystemExit: os._exit(0)",
    "closes": "the code ended the program: GeneratorExit",
    "asks": "EOFError",
    "stops": "breakpoint(), and there is no terminal",
    "forks": "two processes would compute one cell",
    "forks_and_exits": "two processes would compute one cell",
    "silent": "AssertionError",
}
WHERE = {
    0: "exits exits_at_once closes forks leaves silent helped",
    1: "exits_with_words stops asks forks_and_exits leaves",
}
SCRIPT = """
import json, sys, sublevel as sl
from sublevel.engine.executors import Workers
from sublevel.engine.executors.local import InProcess
jobs = int(sys.argv[1])
pool = Workers(1, 1) if jobs else None
shutdown, Workers.shutdown = Workers.shutdown, lambda self: None
keys = dict(data={"name": "arrays", "root": "data.npz"}, model={"name": "lenet-300-100"}, levels=1, branches=["imp"])
for name in sys.argv[2:]:
    keys |= {"name": name, "loop": f"loops:{name}", "train": {"epochs": 1}}
    study = sl.Study(dict(keys), out=f"runs-{jobs}")
    result = study.run(executor=pool or InProcess(), report=False)
    if name == "leaves":
        result.write(figures=False)
    reasons = result.failures["error"][result.failures["kind"] != "skipped"]
    print("\\nENDED", name, json.dumps([len(result.levels), sorted(set(reasons))]))
if pool:
    shutdown(pool)
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    folder = furnish(tmp_path_factory.mktemp("contained"))
    (folder / "loops.py").write_text(LOOPS)
    (folder / "script.py").write_text(SCRIPT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [0, 1])
def test_whatever_a_loop_does_the_run_ends_with_tables_and_reasons(workshop: Path, jobs: int) -> None:
    """All in one process, by one worker (jobs 1) or in it (jobs 0); its standard input is a pipe that never ends."""
    held, end = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "script.py", str(jobs), *WHERE[jobs].split()],
            cwd=workshop,
            stdin=held,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
    finally:
        os.close(held)
        os.close(end)
    assert done.returncode == 0, done.stderr
    ends = [line.split(" ", 2)[1:] for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert [name for name, _ in ends] == WHERE[jobs].split()
    for name, text in ends:
        levels, reasons = json.loads(text)
        if name in REASONS:
            assert levels == 0, name
            assert len(reasons) == 1, name
            assert REASONS[name] in reasons[0]
        else:
            assert (levels, reasons) == (2, []), name
    assert tables(workshop / f"runs-{jobs}" / "leaves")
    assert not list(Path("/").glob("runs-*"))


@pytest.mark.parametrize("name", ["leaving", "leaving_at_once"])
def test_the_command_never_ends_well_without_tables(workshop: Path, name: str, monkeypatch, capsys) -> None:
    (workshop / "leaving.py").write_text("import sys\n\n\ndef build(classes):\n    sys.exit(0)\n")
    (workshop / "leaving_at_once.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(str(workshop))
    with pytest.raises(SystemExit) as end:
        main(["run", "small.toml", "--set", f"model.name={name}:build"])
    said = capsys.readouterr()
    note = f"note: own code that would run: {name}:build (network, {workshop / name}.py)\n"
    assert (end.value.code, said.out) == (2, note)
    assert "SystemExit: 0" in said.err


ENDINGS = """
import multiprocessing, os, posix, subprocess, threading
from sublevel.errors import ModelError
from sublevel.own_code import contained

def swallowed():
    try:
        os._exit(0)
    except BaseException:
        pass

def in_a_thread():
    thread = threading.Thread(target=os._exit, args=(0,))
    thread.start()
    thread.join()

def nested():
    with contained():
        os._exit(0)

def imported():
    from os import _exit
    _exit(0)

def helped():
    child = multiprocessing.get_context("fork").Process(target=print, args=("a child",))
    child.start()
    child.join()
    assert child.exitcode == 0
    if os.fork() == 0:
        os.execv("/bin/sh", ["sh", "-c", "exit 7"])
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    subprocess.run(["/bin/sh", "-c", "true"], check=True)

before = os._exit, os.execv, posix.execve
for end in [
    lambda: os._exit(0), lambda: posix._exit(0), lambda: os.execv("/bin/true", ["true"]),
    lambda: os.execlp("true", "true"), lambda: os.execvpe("true", ["true"], {}),
    swallowed, in_a_thread, nested, imported,
]:
    try:
        with contained():
            end()
    except ModelError as error:
        print(error)
with contained():
    helped()
assert before == (os._exit, os.execv, posix.execve)
print("here", flush=True)
os._exit(3)
"""


def test_what_ends_or_replaces_the_process_at_once_fails() -> None:
    done = subprocess.run([sys.executable, "-c", ENDINGS], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (3, 11), (done.stdout, done.stderr)
    called = re.compile(r"the code ended the program: .*os\.(_exit\(0\)|execve?\(b?'.*true'\))")
    assert all(map(called.match, lines[:9])), lines
    assert lines[9:] == ["a child", "here"]


def test_a_child_ends_where_its_parent_goes_on(tmp_path: Path) -> None:
    def forking() -> None:
        with contained():
            os.fork()

    with pytest.raises(ModelError, match="two processes"):
        forking()
    (tmp_path / str(os.getpid())).touch()
    assert len(list(tmp_path.iterdir())) == 1
    began = time.monotonic()
    with contained():  # one that does its work and ends is no fault, and is not waited for
        if os.fork() == 0:
            os._exit(0)
    assert time.monotonic() - began < 1


def test_the_folder_and_the_input_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sys.stdin

    def asking() -> None:
        with contained():
            os.chdir("/")
            input()

    with pytest.raises(EOFError):
        asking()
    assert Path.cwd() == tmp_path
    assert sys.stdin is before
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc").exists() else 0
    for _ in range(5):
        with contained():
            pass
    assert not descriptors or len(os.listdir("/proc/self/fd")) == descriptors


class Textless(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


def test_an_error_without_a_text_has_a_reason(tmp_path: Path) -> None:
    def failing(*_: object) -> None:
        raise Textless

    job = Job("ab" * 32, "x", {}, {}, str(tmp_path / "store"), "mine:fails")
    said = json.loads(run_job(job.text(), compute=failing))["error"]
    assert (said["kind"], said["message"]) == ("error", "Textless: its text cannot be shown")


def test_streams_that_own_code_closes_or_replaces_are_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as out, open(os.devnull, "w") as other:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", other)
        with contained():
            sys.stdout.close()
            sys.stderr = None  # type: ignore[assignment]
        print(end="")
        assert sys.stderr is other


def test_a_thread_of_own_code_does_not_keep_the_process() -> None:
    end = threading.Event()
    with contained():
        thread = threading.Thread(target=end.wait)
        thread.start()
    later = threading.Thread(target=end.wait)
    later.start()
    end.set()
    assert (thread.daemon, later.daemon) == (True, False)


def test_ctrl_c_passes_and_a_faked_one_in_a_worker_does_not() -> None:
    with pytest.raises(KeyboardInterrupt), contained():
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(ModelError, match="KeyboardInterrupt"), contained():
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)


class Stale:
    """Answers the first job well, and every later one with the answer to the first."""

    slots = 1

    def __init__(self) -> None:
        self.first = ""

    def submit(self, job, progress) -> Future[str]:
        future: Future[str] = Future()
        entry = {"key": json.loads(job)["key"], "values": {}, "objects": {}, "seconds": 0.0}
        self.first = self.first or json.dumps({"entry": entry})
        future.set_result(self.first)
        return future

    def shutdown(self) -> None:
        pass


def test_the_answer_of_another_cell_is_no_result(tmp_path: Path) -> None:
    graph = Graph()
    for i, name in enumerate("ab"):
        graph.add(Node(name, "train", {"n": i}))
    schedule = Schedule(
        graph,
        Store(tmp_path / "s"),
        lambda node, inputs: f"{inputs['n']:064x}",
        lambda node: 1.0,
    )
    outcomes = schedule.run(Stale(), lambda node, key, inputs: Job(key, node.kind, inputs, {}, "", ""))
    assert outcomes["a"].status == "done"
    assert outcomes["b"].status == "failed"
    assert outcomes["b"].error["message"] == "a worker answered with the result of another cell"
