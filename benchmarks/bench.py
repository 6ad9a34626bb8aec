"""All benchmarks of a CPU in turn, each in a process of its own, and their figures beside the targets.

    make bench                        # about 15 minutes on two cores
    python benchmarks/bench.py NAME   # some of them

Nothing else should run meanwhile: a neighbour on the same cores takes more from one side of a ratio than from another.
Each script writes its own record into benchmarks/records. `hvp.py`, which needs two other libraries, is left to itself,
as is what takes long: `study_speed.py`, which times the demo as a whole, and the full lengths of two others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = {
    "train-speed": ["train_speed.py"],
    "populations": ["populations.py"],
    "path-speed-30": ["path_speed.py", "30"],
    "growth": ["growth.py"],
    "study-speed-small": ["study_speed.py", "small"],
    "faults-many-cells-2000": ["faults/many_cells.py", "2000"],
}
"""The record's name, and the script with its arguments."""


def figures(found: Any, at: str = "") -> list[str]:
    """A line for every spread and every ratio of a record."""
    if isinstance(found, dict) and "median" in found:
        return [f"{at}: {found['median']:.4g} [{found['min']:.4g}, {found['max']:.4g}], n = {found['n']}"]
    if isinstance(found, dict):
        return [line for key, value in found.items() for line in figures(value, f"{at} > {key}" if at else str(key))]
    told = isinstance(found, float) or "target" in at
    return [f"{at}: {found:.4g}" if isinstance(found, float) else f"{at}: {found}"] if told else []


def main(chosen: list[str]) -> int:
    """Run them, print their figures, and say which failed."""
    failed = []
    for name, (script, *arguments) in SCRIPTS.items():
        if chosen and name not in chosen:
            continue
        began = time.monotonic()
        command = [sys.executable, str(HERE / script), *arguments]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        print(f"\n{name} ({script}, {time.monotonic() - began:.0f} s)", flush=True)
        if done.returncode:
            failed.append(name)
            continue
        found = json.loads((HERE / "records" / f"{date.today().isoformat()}-{name}.json").read_text())
        for line in figures({k: v for k, v in found.items() if k not in ("versions", "hardware", "date", "script")}):
            print(f"  {line}")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
