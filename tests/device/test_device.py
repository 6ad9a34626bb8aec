"""Studies on a GPU, or on the pretend one: nothing mixes, no step waits, and the numbers are those of the CPU.

The device is a process of its own: `inside.py` runs the parts there. The pretend device is compiled by g++.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_runs
from tiny_runs import tables

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import checks  # noqa: E402
import guard  # noqa: E402
import mutants  # noqa: E402

REAL = os.environ.get("SUBLEVEL_REAL_GPU") == "1"
pretended = pytest.mark.skipif(REAL, reason="only the pretend device counts")
pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(not REAL and bool(guard.missing()), reason=guard.missing() or "a real GPU"),
]

Parts = dict[str, dict[str, Any]]
CHECKS = [
    name
    for name, f in inspect.getmembers(checks, inspect.isfunction)
    if [*inspect.signature(f).parameters] == ["machine"]
]
BENCHMARK = "the_benchmark_measures_ieee_float32"
QUICK = [
    *("tiny:eager", "tiny:graph", "small:4", "small:16", "snippets:README.md"),
    *(f"check:{name}" for name in CHECKS if name != BENCHMARK),
]
PAGES = ["own-network.md", "ticket.md", "checkpoints.md"]
SLOW = [f"check:{BENCHMARK}", *(f"snippets:{page}" for page in PAGES)]
EVERY = ["every:eager@cpu", "every:eager@cuda", "every:graph@cuda"]
MUTANTS = ["mutant:host", "mutant:none", *(f"mutant:{name}" for name in mutants.MUTANTS)]


def on_device(folder: Path, parts: list[str]) -> Parts:
    """Run the parts in a process where ``cuda`` is the device."""
    tiny_runs.furnish(folder)
    command = [sys.executable, "-X", "faulthandler", str(HERE / "inside.py"), "found.json", *parts]
    done = subprocess.run(
        command, cwd=folder, env=tiny_runs.with_gpus(), capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return on_device(tmp_path_factory.mktemp("quick"), QUICK)


def waits(found: dict[str, Any]) -> int:
    """How often the host waited in training."""
    return sum(n for where, n in found["waits"].items() if where.startswith("sublevel/train/"))


def sound(found: dict[str, Any]) -> dict[str, Any]:
    assert "fault" not in found, found["fault"] + found["said"]
    assert found.get("code", 0) == 0, found["said"]
    return found


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_the_tables_are_those_of_the_cpu(quick: Parts, finished: Path, engine: str) -> None:
    found = sound(quick[f"tiny:{engine}"])
    here, there = tables(finished / "sublevel-runs" / "tiny"), tables(Path(found["run"]))
    if REAL:
        assert {name: t.count(b"\n") for name, t in there.items()} == {n: t.count(b"\n") for n, t in here.items()}
    else:
        assert there == here
        assert found["launched"] > 1000
        assert found["tf32"] == {}


@pretended
def test_no_step_of_training_waits_for_the_device(quick: Parts) -> None:
    few, many = (sound(quick[f"small:{steps}"]) for steps in (4, 16))
    assert waits(few) == waits(many) > 0


@pytest.mark.parametrize("name", [name for name in CHECKS if name != BENCHMARK])
def test_on_the_device(quick: Parts, name: str) -> None:
    sound(quick[f"check:{name}"])


def check_snippets(found: dict[str, Any]) -> None:
    assert REAL or found["launched"] > 1000
    for printed, expected in sound(found)["snippets"]:
        assert printed == expected


def test_documented_code_runs_on_the_device(quick: Parts) -> None:
    check_snippets(quick["snippets:README.md"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return on_device(tmp_path_factory.mktemp("every"), EVERY)


@pretended
@pytest.mark.full
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_every_measurement_branch_and_criterion_is_that_of_the_cpu(whole: Parts, engine: str) -> None:
    host, found = (sound(whole[f"every:{name}"]) for name in ("eager@cpu", f"{engine}@cuda"))
    assert found["launched"] > 1000
    assert found["tables"] == host["tables"]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return on_device(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.mark.full
@pytest.mark.parametrize("page", PAGES)
def test_more_of_the_documented_code(slow: Parts, page: str) -> None:
    check_snippets(slow[f"snippets:{page}"])


@pytest.mark.full
def test_the_benchmark_of_a_gpu(slow: Parts) -> None:
    sound(slow[f"check:{BENCHMARK}"])


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return on_device(tmp_path_factory.mktemp("mutants"), MUTANTS)


@pretended
@pytest.mark.full
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_fault_is_caught(mutated: Parts, name: str) -> None:
    host, none, found = (mutated[f"mutant:{which}"] for which in ("host", "none", name))
    expected = tables(Path(host["run"]))
    caught: Callable[[dict[str, Any]], bool] = lambda f: (  # noqa: E731
        f["code"] != 0 or waits(f) > waits(none) or tables(Path(f["run"])) != expected
    )
    assert not caught(sound(none))
    assert caught(found)
