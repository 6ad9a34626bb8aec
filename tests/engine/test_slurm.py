"""Cells on Slurm: a real one of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_here
from slurm_here import Slurm

import tiny_runs
from tiny_runs import Running, cli, paused, tables, until

pytest.importorskip("submitit", reason="submitit is not installed (pip install 'sublevel[slurm]')")

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(slurm_here.missing()), reason=slurm_here.missing()),
]

RUN = ("run", "small.toml", "--set", "levels=1")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.furnish(tmp_path_factory.mktemp("slurm") / "workshop")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    made = Slurm(tmp_path_factory.mktemp("cluster") / "slurm")
    yield made
    made.stop()


def test_a_node_that_is_killed_changes_no_number(slurm: Slurm, shop: Path) -> None:
    """The worker on it stands in the middle of a cell, which is tried again on the other node."""
    pause = shop / "pause"
    pause.touch()
    running = Running(*RUN, "--executor", "slurm", cwd=shop, TINY_PAUSE=str(pause), **slurm.environment)
    here = cli(*RUN, "--jobs", 1, "--out", "here", cwd=shop)
    assert here.returncode == 0, here.stderr
    (pid,) = until(lambda: paused(pause))
    slurm.kill_node(slurm.processes()[pid])
    until(lambda: len(paused(pause)) == 2)
    pause.unlink()
    code, out, err = running.end()
    assert code == 0, (out, err)
    assert "failed" not in out
    assert tables(shop / "sublevel-runs" / "small") == tables(shop / "here" / "small")
    until(lambda: not slurm.says("squeue", "-h"), 20)
    assert not [p for p in (shop / "sublevel-runs" / "small").iterdir() if p.name.startswith(".slurm")]


def test_what_slurm_does_not_take_is_said_at_once(slurm: Slurm, shop: Path) -> None:
    began = time.monotonic()
    for asked, said in (('partition="nowhere"', "nowhere"), ('colour="red"', "colour")):
        done = cli(
            "run", "small.toml", "--executor", "slurm", "--store", "new", "--set", f"run.slurm.{asked}",
            cwd=shop, **slurm.environment,
        )  # fmt: skip
        assert done.returncode == 2, (done.stdout, done.stderr)
        sentence = done.stderr.splitlines()[-1]  # below what sbatch says itself
        assert sentence.startswith("sublevel: ")
        assert "run.slurm" in sentence
        assert said in sentence
    assert time.monotonic() - began < 40
