"""Two runs on one store at a time: every cell once, the same tables; and with one of the two killed on the way.

python benchmarks/faults/pairs.py [n]     # n pairs (20: about six minutes on two cores)
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from typing import Any

from workshop import Workshop, ended, kill, unsound, whole, workshop


def pair(shop: Workshop, rng: random.Random, out: str, killing: bool) -> tuple[int, list[str]]:
    """Two runs that start up to two seconds apart: cells that were computed, and what was wrong."""
    store = shop.folder / out / "store"
    first = shop.start(f"{out}/a", rng.choice([1, 2]), store)
    time.sleep(rng.uniform(0, 2))
    second = shop.start(f"{out}/b", rng.choice([1, 2]), store)
    if killing:
        time.sleep(rng.uniform(0.2, 0.8) * shop.seconds)
        kill(first)
    ends = {"b": ended(second)} | ({} if killing else {"a": ended(first)})
    wrong = [f"exit code {done.returncode}: {done.stderr.strip()}" for done in ends.values() if done.returncode]
    computed = 0
    if not wrong:
        computed = sum(shop.computed(f"{out}/{name}") for name in ends)
        wrong += [f"other tables in {name}" for name in ends if shop.tables_of(f"{out}/{name}") != shop.tables]
        wrong += [f"{name} is damaged" for name in unsound(store)]
        wrong += [] if set(whole(store)) == set(whole(shop.store)) else ["other entries"]
        if not killing and computed != shop.entries:
            wrong.append(f"{computed} cells computed for {shop.entries} entries")
    shutil.rmtree(shop.folder / out)
    return computed, wrong


def measure(shop: Workshop, n: int) -> dict[str, Any]:
    """All pairs; in every second one the first run is killed."""
    rng = random.Random(0)
    found = [pair(shop, rng, f"pair-{i}", killing=i % 2 == 1) for i in range(n)]
    return {
        "pairs": n,
        "of these with a kill": n // 2,
        "entries of the study": shop.entries,
        "cells computed by both runs together, where none was killed": sorted({c for c, _ in found[::2]}),
        "wrong": [sentence for _, wrong in found for sentence in wrong],
    }


if __name__ == "__main__":
    from common import record

    with workshop() as made:
        record("faults-pairs", __file__, measure(made, int(sys.argv[1]) if len(sys.argv) > 1 else 20))
