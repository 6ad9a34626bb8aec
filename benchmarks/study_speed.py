"""The demo as a whole: wall time and peak memory of a first run, time of a second, one job against two, --help.

    python benchmarks/study_speed.py     # the demo, what it was at first, then a small study with one and two jobs

The preset grows with what the package can show; `demo_first.toml` does not, so its time can be compared over releases.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record, spread

SUBLEVEL = [sys.executable, "-m", "sublevel.cli"]
SMALL = ["--set", "levels=6", "--set", "seeds=4", "--set", "branches=imp,finetune", "--set", "geometry={}"]


def run(*arguments: str, out: Path) -> float:
    """Wall seconds of one command."""
    began = time.perf_counter()
    subprocess.run([*SUBLEVEL, *arguments, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def watched(*arguments: str, out: Path) -> tuple[float, dict[str, float]]:
    """Wall seconds of one command, and the largest resident memory of it and of its workers, in GiB."""
    began, peaks = time.perf_counter(), {}
    process = subprocess.Popen([*SUBLEVEL, *arguments, "--out", str(out)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for pid in [process.pid, *children(process.pid)]:
            peaks[pid] = max(peaks.get(pid, 0.0), resident(pid))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"sublevel ended with {process.returncode}")
    return time.perf_counter() - began, {
        "parent": peaks.pop(process.pid),
        "largest worker": max(peaks.values()),
    }


def children(pid: int) -> list[int]:
    """Its child processes."""
    try:
        return [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> float:
    """Peak resident memory in GiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Measure and record."""
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp())
    try:
        fixed, _ = watched("run", str(Path(__file__).with_name("demo_first.toml")), "--jobs", "2", out=folder / "fixed")
        first, memory = watched("run", "demo", "--jobs", "2", out=folder / "demo")
        again = [run("run", "demo", out=folder / "demo") for _ in range(3)]
        helps = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([*SUBLEVEL, "--help"], check=True, stdout=subprocess.DEVNULL)
            helps.append(time.perf_counter() - began)
        pairs = []
        for i in range(2):
            one = run("run", "demo", *SMALL, "--jobs", "1", out=folder / f"one{i}")
            two = run("run", "demo", *SMALL, "--jobs", "2", out=folder / f"two{i}")
            pairs.append((one, two))
    finally:
        shutil.rmtree(folder)
    record(
        "study-speed",
        __file__,
        {
            "demo as first timed, seconds": fixed,
            "demo, first run, seconds": first,
            "demo, peak resident GiB per process": memory,
            "demo, second run, seconds": spread(again),
            "sublevel --help, seconds": spread(helps),
            "study of 52 networks, one job, seconds": spread([a for a, _ in pairs]),
            "cells per minute, two jobs / one job, start-up included": spread([a / b for a, b in pairs]),
            "targets": "demo as first timed <= 210 s, <= 2 GiB, second run <= 5 s, help <= 1 s, two jobs >= 1.8",
            "median ratio": statistics.median(a / b for a, b in pairs),
        },
    )


if __name__ == "__main__":
    main()
