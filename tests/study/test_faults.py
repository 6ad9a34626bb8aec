"""The short forms of benchmarks/faults: one kill with damage, one pair of runs, one full disk, some hundred cells."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny_runs import python

FAULTS = Path(__file__).parents[2] / "benchmarks" / "faults"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts as they import one another."""
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(FAULTS))
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == FAULTS:
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture(scope="module")
def shop(scripts: None) -> Iterator[Any]:
    from workshop import workshop  # type: ignore[import-not-found]

    with workshop(levels=1, seeds=1) as made:
        yield made


@pytest.mark.full
def test_a_kill_and_damage(shop: Any) -> None:
    """A kill among the first entries, and six damaged files; `test_resume.py` has a kill, and damage, of its own."""
    from kills import measure  # type: ignore[import-not-found]

    found = measure(shop, 1, seed=186)
    assert found["wrong"] == []
    assert sum(found["files damaged"].values()) >= 5


@pytest.mark.full
def test_a_disk_that_fills_up(shop: Any) -> None:
    """`test_store.py` fills one without a run."""
    from disk_full import measure  # type: ignore[import-not-found]

    found = measure(shop, 1)
    if found["skipped"]:
        pytest.skip(found["skipped"])
    assert found["wrong"] == []
    assert 0 < found["entries that fitted"][0] < found["entries of the study"]


@pytest.mark.full
def test_two_runs_at_once(shop: Any) -> None:
    """Its short sister in `test_leases.py` holds both runs at one cell."""
    from pairs import measure  # type: ignore[import-not-found]

    found = measure(shop, 2)
    assert found["wrong"] == []
    assert found["cells computed by both runs together, where none was killed"] == [found["entries of the study"]]


MANY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from many_cells import measure
print(json.dumps([measure(50), measure(500)]))
"""


@pytest.mark.full
def test_many_cells(tmp_path: Path) -> None:
    """How fast is for the record; here, that the time per cell does not grow and the memory hardly does.

    In a process of its own: the memory of one that ran other tests moves by itself.
    """
    told = python("-c", MANY, FAULTS, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    few, many = json.loads(told.stdout)
    assert many["entries"] == many["cells"] == 500
    assert many["seconds"] / 500 < 3 * few["seconds"] / 50
    memory = many["memory after each tenth, MiB"]
    assert memory[-1] - memory[0] < 450 * 4 / 1024


@pytest.mark.full
def test_kills_of_runs_in_object_storage(shop: Any) -> None:
    pytest.importorskip("moto.server", reason="moto's server is not installed")
    from storage import measure  # type: ignore[import-not-found]

    assert measure(shop, 2)["wrong"] == []
