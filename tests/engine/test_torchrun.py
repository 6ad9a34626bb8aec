"""A study whose trainings several processes share: the tables of one process, to rounding; whole after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tiny_runs import cli, environment, inside, paused, python, tables, until

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
RUN = ("-m", "sublevel.cli", "run", "small.toml", "--executor", "torchrun", "--no-figures")


def together(n: int, *more: object, cwd: Path, **said: str):
    return python(*TORCHRUN, n, *RUN, *more, cwd=cwd, **said)


def levels(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "tables" / "levels.csv")


@pytest.mark.full
def test_the_tables_of_two_processes(workshop: Path) -> None:
    """In float64; every branch, masks and all."""
    exact = ("--set", "train.dtype=float64")
    assert cli("run", "small.toml", *exact, "--out", "one", cwd=workshop).returncode == 0
    done = together(2, *exact, "--set", "processes=2", "--out", "two", cwd=workshop)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = levels(workshop / "one" / "small"), levels(workshop / "two" / "small")
    pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.full
def test_a_process_that_is_killed_takes_the_others_and_nothing_is_lost(workshop: Path) -> None:
    two = ("--set", "processes=2")
    assert together(2, *two, "--out", "true", "--store", "true-store", cwd=workshop).returncode == 0
    pause = workshop / "pause"
    pause.touch()
    said = {"TINY_PAUSE": str(pause)}
    running = subprocess.Popen([sys.executable, *TORCHRUN, "2", *RUN, *two], cwd=workshop, env=environment(**said))
    stuck = until(lambda: paused(pause))
    os.kill(stuck[-1], signal.SIGKILL)
    pause.unlink()
    assert running.wait(60) != 0
    assert together(2, *two, cwd=workshop).returncode == 0
    assert tables(workshop / "sublevel-runs" / "small") == tables(workshop / "true" / "small")
    again = together(2, *two, cwd=workshop)
    assert "nothing to compute" in again.stdout, again.stdout + again.stderr


def test_the_number_of_processes_is_the_study_s(workshop: Path) -> None:
    for run, word in (
        (lambda: inside("run", "small.toml", "--set", "processes=2", cwd=workshop), "torchrun --nproc-per-node 2"),
        (lambda: inside("run", "small.toml", "--executor", "torchrun", cwd=workshop), "torchrun has started"),
    ):
        done = run()
        assert done.returncode == 2
        assert word in done.stderr
        assert not (workshop / "sublevel-runs").exists()
