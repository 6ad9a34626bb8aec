"""Freed memory is used again: counted in page faults, in a process of its own. How much is free is known."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from sublevel import memory

FAULTS = """
import resource, sys
import torch
from sublevel.numerics import keep_freed
kept = keep_freed() if sys.argv[1] == "keep" else False
def work():
    for _ in range(20):
        torch.ones(10 * 2**20)  # 40 MiB, 10,240 pages: more than glibc ever keeps by itself
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[bool, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env={**clean, **environment}, check=True, capture_output=True, text=True
    )
    kept, count = done.stdout.split()
    return kept == "1", int(count)


def test_freed_memory_is_asked_for_once() -> None:
    kept, few = faults("keep")
    if not kept:
        pytest.skip("not glibc")
    _, many = faults("leave")
    assert many >= 20, "at least one for every block, however large the system's pages are"
    assert few < many / 10


def test_what_the_environment_has_settled_stays() -> None:
    assert not faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0]


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_free_memory_is_that_of_the_machine_and_of_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.free() < machine
    assert memory.limit() == math.inf
    mine = 2**50
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (mine, mine))
    assert (memory.limit(), memory.free() < machine) == (mine, True)
    mine = 2**20
    assert (memory.limit(), memory.free()) == (mine, 0)
