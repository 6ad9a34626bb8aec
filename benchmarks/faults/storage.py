"""Kills of runs whose store is in object storage, and one request of each kind that fails.

    python benchmarks/faults/storage.py 20

A real server that speaks S3 (moto) runs in a process of its own. A run is killed at a random moment, run again, and
must end with the tables of a run that nothing disturbed, with every entry whole and nothing set aside.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workshop import Workshop, ended, kill, workshop


@contextmanager
def server() -> Iterator[str]:
    """A bucket on a server of its own process; its address is in the environment meanwhile."""
    command = [sys.executable, "-m", "moto.server", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := re.search(r"(http://127\S+)", line)))
        named = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        os.environ.update(named | {"AWS_DEFAULT_REGION": "us-east-1"})
        # its log is of no use, and must not fill the pipe
        subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        import s3fs

        bucket = f"bucket-{uuid.uuid4().hex}"
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}"
    finally:
        process.kill()
        process.wait()


def state(url: str) -> tuple[set[str], list[str], list[str]]:
    """Keys of the entries that are whole, of those that are not, and what was set aside."""
    from sublevel.engine.store import Store

    store = Store(url)
    keys = list(store.keys())
    whole = {key for key in keys if store.read_entry(key) is not None}
    return whole, sorted(set(keys) - whole), store.damaged()


def one(shop: Workshop, url: str, out: str, seconds: float, rng: random.Random) -> tuple[int, list[str]]:
    """One kill and one rerun: entries there at the kill, and what was wrong afterwards."""
    process = shop.start(out, jobs=2, store=url)  # type: ignore[arg-type]
    time.sleep(rng.uniform(0.2, 1.0) * seconds)
    kill(process)
    before, broken, aside = state(url)
    wrong = [f"{key} is not whole after the kill" for key in broken] + [f"{name} was set aside" for name in aside]
    again = shop.run(out, jobs=2, store=url)  # type: ignore[arg-type]
    if again.returncode:
        return len(before), [*wrong, f"exit code {again.returncode}: {again.stderr.strip()}"]
    after, broken, aside = state(url)
    wrong += [f"{key} was lost" for key in before - after] + [f"{name} was set aside" for name in aside]
    wrong += ["other tables"] if shop.tables_of(out) != shop.tables else []
    return len(before), wrong


def measure(shop: Workshop, n: int, seed: int = 0) -> dict[str, Any]:
    """All kills, with what went wrong."""
    rng, found = random.Random(seed), []
    with server() as bucket:
        began = time.perf_counter()
        first = ended(shop.start("first", jobs=2, store=f"{bucket}/first"))  # type: ignore[arg-type]
        seconds = time.perf_counter() - began
        assert first.returncode == 0, first.stderr
        for i in range(n):
            found.append(one(shop, f"{bucket}/{i}", f"run-{i}", seconds, rng))
    at = sorted(there for there, _ in found)
    return {
        "kills": n,
        "kills between the first entry and the last": sum(0 < there < shop.entries for there in at),
        "entries of the study": shop.entries,
        "entries at the kill": {"min": at[0], "median": at[n // 2], "max": at[-1]},
        "undisturbed run in a folder, seconds": shop.seconds,
        "undisturbed run in object storage, seconds": seconds,
        "wrong": [sentence for _, wrong in found for sentence in wrong],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from common import record

    with workshop(levels=1, seeds=1) as made:
        record("faults-storage", __file__, measure(made, int(sys.argv[1]) if len(sys.argv) > 1 else 20))
