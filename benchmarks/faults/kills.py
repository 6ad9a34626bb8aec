"""Kills and power cuts: a run with two jobs is killed at a random moment, its store damaged, and run again to its end.

python benchmarks/faults/kills.py [n]     # n kills (200: about an hour on two cores); each ends in a whole run

After every one: the tables are those of an undisturbed run, byte for byte; every entry that was whole before the rerun
is there with the same bytes; nothing that was damaged stands where it would be read.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from workshop import Workshop, kill, unsound, whole, workshop


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit changed."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


DAMAGE = {
    "truncated": lambda data, rng: data[: rng.randrange(len(data))],
    "empty": lambda data, rng: b"",
    "bit flipped": flip,
    "nulls": lambda data, rng: bytes(len(data)),
    "lost": None,
}


def damage(store: Path, rng: random.Random) -> Counter[str]:
    """What a power cut may leave behind, in up to six files; the marker may be empty if an entry can vouch for it."""
    done: Counter[str] = Counter()
    folders = ("cells", "objects", "studies", "leases", "tmp")
    files = [p for folder in folders for p in sorted((store / folder).rglob("*")) if p.is_file() and p.stat().st_size]
    for path in rng.sample(files, min(len(files), rng.randrange(7))):
        how = rng.choice(list(DAMAGE))
        change = DAMAGE[how]
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(path.read_bytes(), rng))
        done[f"{path.relative_to(store).parts[0]}: {how}"] += 1
    if rng.random() < 0.2 and whole(store):
        (store / "format.json").write_bytes(b"")
        done["marker: empty"] += 1
    return done


def wait(process: subprocess.Popen[str], shop: Workshop, store: Path, rng: random.Random) -> None:
    """Any moment of the run, or (four times of five) one while its entries are written: a little after the kth."""
    if rng.random() < 0.2:
        time.sleep(rng.random() * shop.seconds)
        return
    k = rng.randrange(shop.entries)
    while process.poll() is None and len(list((store / "cells").glob("??/*.json"))) < k:
        time.sleep(0.001)
    time.sleep(rng.random() * 0.03)


def one(shop: Workshop, rng: random.Random, out: str) -> tuple[int, Counter[str], list[str]]:
    """One kill, some damage, one rerun: entries there at the kill, damage done, and what was wrong afterwards."""
    store = shop.folder / out / ".store"
    process = shop.start(out, jobs=2)
    wait(process, shop, store, rng)
    kill(process)
    there = len(whole(store))
    done = damage(store, rng)
    before = whole(store)
    again = shop.run(out, jobs=2)
    if again.returncode:
        return there, done, [f"exit code {again.returncode}: {again.stderr.strip()}"]
    after = whole(store)
    wrong = [f"{key} was lost" for key, data in before.items() if after.get(key) != data]
    wrong += [f"{name} is damaged" for name in unsound(store)]
    wrong += ["other tables"] if shop.tables_of(out) != shop.tables else []
    wrong += [f"{len(after)} entries"] if not set(after) >= set(whole(shop.store)) else []
    shutil.rmtree(shop.folder / out)
    return there, done, wrong


def measure(shop: Workshop, n: int, seed: int = 0) -> dict[str, Any]:
    """All kills, with what went wrong."""
    rng = random.Random(seed)
    found = [one(shop, rng, f"run-{i}") for i in range(n)]
    at = sorted(there for there, _, _ in found)
    return {
        "kills": n,
        "kills between the first entry and the last": sum(0 < there < shop.entries for there in at),
        "entries of the study": shop.entries,
        "entries at the kill": {"min": at[0], "median": at[n // 2], "max": at[-1]},
        "files damaged": dict(sum((done for _, done, _ in found), Counter())),
        "undisturbed run, seconds": shop.seconds,
        "wrong": [sentence for _, _, wrong in found for sentence in wrong],
    }


if __name__ == "__main__":
    from common import record

    with workshop() as made:
        record("faults-kills", __file__, measure(made, int(sys.argv[1]) if len(sys.argv) > 1 else 200))
