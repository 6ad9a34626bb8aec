"""The same study gives the same tables: any job count, any kill, any damage between two runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from tiny_runs import Running, cli, entries, objects, paused, python, tables, until

pytestmark = pytest.mark.slow

RUN = ("run", "tiny.toml", "--jobs", 2)


def runs(folder: Path) -> Path:
    return folder / "sublevel-runs"


def test_a_killed_group_leaves_no_worker_and_the_same_command_goes_on(finished: Path, workshop: Path) -> None:
    """kill -9 of the whole process group in the middle, then the same command with two jobs again."""
    store = runs(workshop) / ".store"
    running = Running(*RUN, cwd=workshop)
    until(lambda: len(entries(store)) > 20 and len(running.alive()) == 3)
    running.kill_group()
    until(lambda: not running.alive(), seconds=5)
    there = len(entries(store))
    assert 20 < there < 128, "the run was not killed in the middle"
    done = cli(*RUN, cwd=workshop)
    assert done.returncode == 0, done.stderr
    cached = int(re.findall(r"cells: (\d+) in the store", done.stdout)[0])
    assert there <= cached < 138, "cells that several branches share count once in the store"
    assert "damaged" not in done.stdout
    assert tables(runs(workshop) / "tiny") == tables(runs(finished) / "tiny")


@pytest.mark.full
def test_a_worker_killed_in_mid_cell_is_replaced(finished: Path, workshop: Path) -> None:
    pause = workshop / "pause"
    pause.touch()
    running = Running(*RUN, cwd=workshop, TINY_PAUSE=str(pause))
    first = until(lambda: paused(pause))
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(paused(pause)) >= 3)  # both workers and the one that came for the dead one
    pause.unlink()
    code, _, err = running.end()
    assert code == 0, err
    assert tables(runs(workshop) / "tiny") == tables(runs(finished) / "tiny")
    assert not running.alive()


def test_an_interrupt_stops_within_seconds_and_says_that_it_can_go_on(workshop: Path) -> None:
    """In the middle of a cell that would not end by itself."""
    pause = workshop / "pause"
    pause.touch()
    running = Running(*RUN, cwd=workshop, TINY_PAUSE=str(pause))
    until(lambda: len(paused(pause)) == 2)
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    code, _, err = running.end(timeout=20)
    assert time.monotonic() - began < 5
    assert code == 130
    assert "the same command resumes" in err
    assert "Traceback" not in err
    until(lambda: not running.alive(), seconds=5)


def test_an_interrupt_of_a_single_job(workshop: Path) -> None:
    pause = workshop / "pause"
    pause.touch()
    running = Running("run", "small.toml", "--jobs", 1, cwd=workshop, TINY_PAUSE=str(pause))
    until(lambda: paused(pause))
    os.killpg(running.process.pid, signal.SIGINT)
    code, _, err = running.end(timeout=20)
    assert code == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_workers_do_not_outlive_their_parent(workshop: Path, how: signal.Signals) -> None:
    """Killed alone: nobody is left to end the workers, which stand in the middle of a cell."""
    pause = workshop / "pause"
    pause.touch()
    running = Running(*RUN, cwd=workshop, TINY_PAUSE=str(pause))
    until(lambda: len(paused(pause)) == 2)
    running.process.send_signal(how)
    running.process.wait()
    until(lambda: not running.alive(), seconds=5)
    running.process.communicate()


TABLES = """
import sys
import sublevel as sl
from sublevel.study.result import to_csv
result = sl.Study("tiny.toml", out=sys.argv[1], store="shared-store").run(jobs=int(sys.argv[2]), report=False)
for name, table in result.tables.items():
    path = result.folder / "tables" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_csv(table))
"""


@pytest.mark.full
def test_two_runs_on_one_store_at_once(finished: Path, workshop: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        both = [pool.submit(python, "-c", TABLES, out, jobs, cwd=workshop) for out, jobs in (("one", 1), ("two", 2))]
    for done in both:
        assert done.result().returncode == 0, done.result().stderr
    expected = tables(runs(finished) / "tiny")
    assert tables(workshop / "one" / "tiny") == expected
    assert tables(workshop / "two" / "tiny") == expected
    assert not (workshop / "shared-store" / "damaged").exists()


def test_damage_between_two_runs_is_found_recomputed_and_said(copied: Path) -> None:
    """A flipped bit in an object that others were made from, a truncated entry, a missing object."""
    store = runs(copied) / ".store"
    before = tables(runs(copied) / "tiny")
    largest = sorted(objects(store), key=lambda p: p.stat().st_size)
    data = bytearray(largest[-1].read_bytes())
    data[-1] ^= 4
    largest[-1].write_bytes(bytes(data))
    largest[0].unlink()
    cut = entries(store)[7]
    cut.write_bytes(cut.read_bytes()[:-20])
    shutil.rmtree(runs(copied) / "tiny" / "tables")
    done = cli("run", "tiny.toml", "--jobs", 1, cwd=copied)
    assert done.returncode == 0, done.stderr
    assert "2 damaged files are set aside" in done.stdout
    assert "nothing to compute" not in done.stdout
    assert tables(runs(copied) / "tiny") == before


def test_a_second_run_computes_nothing_and_leaves_the_report_alone(finished: Path) -> None:
    report = runs(finished) / "tiny" / "report.html"
    before = report.stat().st_mtime_ns
    done = cli(*RUN, cwd=finished)
    assert done.returncode == 0, done.stderr
    assert "nothing to compute" in done.stdout
    assert report.stat().st_mtime_ns == before


def test_what_was_taken_from_a_run_is_put_back(copied: Path) -> None:
    run = runs(copied) / "tiny"
    before = tables(run)
    (run / "tables" / "levels.csv").unlink()
    (run / "tables" / "legs.csv").write_text("not a table\n")
    done = cli(*RUN, cwd=copied)
    assert "nothing to compute" in done.stdout
    assert tables(run) == before


def test_the_number_of_threads_of_the_surroundings_changes_nothing(finished: Path, workshop: Path) -> None:
    """Threads belong to the study; a variable of the environment must not reach the numbers."""
    done = python("-c", TABLES, "out", 1, cwd=workshop, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert tables(workshop / "out" / "tiny") == tables(runs(finished) / "tiny")


@pytest.mark.full
def test_code_edited_under_a_running_study_is_not_stored_as_the_old_code(workshop: Path) -> None:
    """The keys were made from the code as it was; a worker that comes later imports the code as it is."""
    pause = workshop / "pause"
    pause.touch()
    running = Running("run", "small.toml", "--jobs", 2, cwd=workshop, TINY_PAUSE=str(pause))
    first = until(lambda: paused(pause))
    net = workshop / "tiny_net.py"
    net.write_text(net.read_text().replace("relu()", "tanh()"))
    pause.unlink()
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    code, out, err = running.end()
    assert code == 1, (out, err)
    assert "have changed since the run began" in out
    again = cli("run", "small.toml", "--jobs", 1, cwd=workshop)
    assert again.returncode == 0, again.stderr
    assert "0 in the store" in again.stdout, "results of the new code were kept under the keys of the old"
