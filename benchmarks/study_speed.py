"""The demo as a whole: wall time and peak memory of a first run, time of a second, one job against two, --help.

    python benchmarks/study_speed.py           # half an hour
    python benchmarks/study_speed.py small     # without the demo: five minutes

The preset grows with what the package can show; `demo_first.toml` does not, so its time can be compared over releases.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record, spread

SUBLEVEL = [sys.executable, "-m", "sublevel.cli"]
PAIRS = 2
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


def demo(folder: Path) -> dict[str, object]:
    """The preset, what it was at first, and a second run."""
    fixed, alone = (
        run("run", str(Path(__file__).with_name("demo_first.toml")), "--jobs", jobs, out=folder / f"fixed{jobs}")
        for jobs in ("2", "1")
    )
    first, memory = watched("run", "demo", "--jobs", "2", out=folder / "demo")
    again = [run("run", "demo", out=folder / "demo") for _ in range(3)]
    return {
        "demo as first timed, seconds": fixed,
        "demo as first timed, one job, seconds": alone,
        "demo as first timed, two jobs / one job": alone / fixed,
        "demo, first run, seconds": first,
        "demo, peak resident GiB per process": memory,
        "demo, second run, seconds": spread(again),
    }


def small(folder: Path) -> dict[str, object]:
    """A study of imp and fine-tuning without geometry, with one and with two jobs, start-up included."""
    pairs = []
    for i in range(PAIRS):
        one = run("run", "demo", *SMALL, "--jobs", "1", out=folder / f"one{i}")
        two = run("run", "demo", *SMALL, "--jobs", "2", out=folder / f"two{i}")
        pairs.append((one, two))
    return {
        "study of 52 networks, one job, seconds": spread([a for a, _ in pairs]),
        "networks per minute, two jobs": spread([52 * 60 / b for _, b in pairs]),
        "cells per minute, two jobs / one job, start-up included": spread([a / b for a, b in pairs]),
    }


def helps() -> float:
    """Seconds of sublevel --help."""
    began = time.perf_counter()
    subprocess.run([*SUBLEVEL, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(chosen: list[str]) -> None:
    """Measure and record."""
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp())
    try:
        found = small(folder) | {"sublevel --help, seconds": spread([helps() for _ in range(5)])}
        found |= {} if "small" in chosen else demo(folder)
    finally:
        shutil.rmtree(folder)
    targets = "demo as first timed <= 210 s, <= 2 GiB, second run <= 5 s, help <= 1 s, two jobs >= 1.8"
    record("-".join(["study-speed", *chosen]), __file__, {**found, "targets": targets})


if __name__ == "__main__":
    main(sys.argv[1:])
