"""Freed memory is used again: counted in page faults, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
