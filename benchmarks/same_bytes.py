"""The same study with one job, with two, and killed in the middle: are the tables the same, byte for byte?

python benchmarks/same_bytes.py
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record

SUBLEVEL = [sys.executable, "-m", "sublevel.cli", "run", "demo", "--set", "levels=3", "--set", "seeds=2"]
SMALL = [
    *("--set", 'branches=["imp","finetune","oneshot","finetune-mask","reinit","random-prune"]'),
    *("--set", "train.epochs=3", "--set", "rewind=40it"),
    *("--set", "geometry={legs={size=500}, paths={size=500, from_start={}, orders={}}, spectra={size=300, k=5}}"),
]


def command(out: Path, jobs: int) -> list[str]:
    """The study as a command."""
    return [*SUBLEVEL, *SMALL, "--out", str(out), "--jobs", str(jobs)]


def tables(out: Path) -> dict[str, str]:
    """The SHA-256 of every table."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((out / "demo" / "tables").glob("*.csv"))}


def killed(out: Path, after: float) -> int:
    """Run with two jobs, kill the whole process group after some seconds; how many entries are in the store."""
    process = subprocess.Popen(command(out, 2), stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(list((out / ".store" / "cells").glob("??/*.json")))


def main() -> None:
    """Run all three, compare, record."""
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp())
    try:
        for name, jobs in (("one", 1), ("two", 2)):
            subprocess.run(command(folder / name, jobs), check=True, stdout=subprocess.DEVNULL)
        left = [killed(folder / "killed", after) for after in (15.0, 20.0)]
        subprocess.run(command(folder / "killed", 2), check=True, stdout=subprocess.DEVNULL)
        found = {name: tables(folder / name) for name in ("one", "two", "killed")}
    finally:
        shutil.rmtree(folder)
    record(
        "same-bytes",
        __file__,
        {
            "entries in the store after each kill": left,
            "two jobs give the bytes of one": found["two"] == found["one"],
            "a killed and resumed run gives the bytes of one": found["killed"] == found["one"],
            "sha256": found["one"],
        },
    )


if __name__ == "__main__":
    main()
