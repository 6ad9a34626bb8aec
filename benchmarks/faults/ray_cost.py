"""What Ray adds: CPU time of a study of ten CPU-minutes on a Ray of this machine, against worker processes.

    python benchmarks/faults/ray_cost.py       # fifteen minutes on two cores; nothing else may run

CPU time is that of the whole machine (/proc/stat), so Ray's own processes count, and the start of everything. Both
runs have a store of their own and write the same tables, which is looked at too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import workshop  # noqa: F401 - finds benchmarks/common.py

STUDY = ("--set", "geometry={}", "--set", "branches=imp,finetune,reinit,random-prune", "--no-figures", "--jobs", "2")


def busy() -> float:
    """Seconds that the machine's processors have worked since it was started, in all."""
    user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def run(folder: Path, *arguments: str) -> tuple[float, float, dict[str, bytes]]:
    """CPU seconds, wall seconds and tables of the study."""
    folder.mkdir()
    command = [sys.executable, "-m", "sublevel.cli", "run", "demo", *STUDY, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    before, began = busy(), time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    spent = busy() - before, time.monotonic() - began
    return *spent, {p.name: p.read_bytes() for p in sorted((folder / "sublevel-runs").glob("*/tables/*.csv"))}


def measure(seeds: int) -> dict[str, Any]:
    """Both, and an idle minute's worth of the machine itself."""
    before = busy()
    time.sleep(10)
    idle = (busy() - before) / 10
    with tempfile.TemporaryDirectory() as folder:
        plain, wall, tables = run(Path(folder) / "plain", "--set", f"seeds={seeds}")
        with_ray, wall_ray, same = run(Path(folder) / "ray", "--set", f"seeds={seeds}", "--executor", "ray")
    return {
        "networks of how many seeds": seeds,
        "CPU seconds, worker processes": plain,
        "CPU seconds, Ray": with_ray,
        "added": with_ray / plain - 1,
        "wall seconds, worker processes": wall,
        "wall seconds, Ray": wall_ray,
        "processors busy while nothing ran": idle,
        "tables the same": tables == same and bool(tables),
        "target": "added <= 0.1 on a study of at least 600 CPU seconds",
    }


if __name__ == "__main__":
    from common import record

    record("faults-ray-cost", __file__, measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
