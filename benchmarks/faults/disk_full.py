"""A disk that fills up: one sentence, exit code 2, a store that is whole, and a rerun that goes on once there is space.

python benchmarks/faults/disk_full.py [n]     # n disks of growing size (20: about four minutes); needs root, to mount
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from workshop import Workshop, unsound, whole, workshop


def mounted(place: Path, size: int) -> str:
    """Mount a small disk in memory; why not, if it cannot be done."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()
    except OSError as error:
        return str(error)


def one(shop: Workshop, name: str, size: int) -> tuple[int, list[str], str]:
    """Run on a disk of ``size`` bytes, then on a larger one: entries that fitted, what was wrong, why skipped."""
    place = shop.folder / name
    refused = mounted(place, size)
    if refused:
        return 0, [], refused
    try:
        store, wrong = place / "store", []
        full = shop.run(f"{name}-run", jobs=1, store=store)
        if full.returncode != 2 or "No space left" not in full.stderr or full.stderr.count("\n") != 1:
            wrong.append(f"exit code {full.returncode}: {full.stderr.strip()}")
        wrong += [f"{each} is damaged on the full disk" for each in unsound(store)]
        before = whole(store)
        subprocess.run(["mount", "-o", f"remount,size={2**30}", str(place)], check=True)
        again = shop.run(f"{name}-run", jobs=1, store=store)
        if again.returncode:
            return len(before), [*wrong, f"exit code {again.returncode}: {again.stderr.strip()}"], ""
        after = whole(store)
        wrong += [f"{key} was lost" for key, data in before.items() if after.get(key) != data]
        wrong += ["other tables"] if shop.tables_of(f"{name}-run") != shop.tables else []
        return len(before), wrong, ""
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def measure(shop: Workshop, n: int) -> dict[str, Any]:
    """Disks between a twentieth and nine tenths of what the store takes."""
    needed = sum(-(-p.stat().st_size // 4096) * 4096 for p in shop.store.rglob("*") if p.is_file())
    sizes = [int(needed * (0.05 + 0.85 * (i + 1) / n)) // 4096 * 4096 for i in range(n)]
    found = [one(shop, f"disk-{i}", size) for i, size in enumerate(sizes)]
    return {
        "disks": n,
        "bytes": sizes,
        "entries of the study": shop.entries,
        "entries that fitted": [there for there, _, _ in found],
        "skipped": next((why for _, _, why in found if why), ""),
        "wrong": [sentence for _, wrong, _ in found for sentence in wrong],
    }


if __name__ == "__main__":
    from common import record

    with workshop() as made:
        record("faults-disk-full", __file__, measure(made, int(sys.argv[1]) if len(sys.argv) > 1 else 20))
