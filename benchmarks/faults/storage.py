"""Kills of runs whose store is in object storage that also fails now and then.

    python benchmarks/faults/storage.py 20

A real server that speaks S3 (moto) runs in a process of its own. Between it and the store, one request in ten is
answered with 429, 500 or 503, or the answer is cut in the middle of its body. A run is killed a little after a random
entry is there, run again, and must end with the tables of a run that nothing disturbed, with every entry whole and
nothing set aside.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from workshop import Workshop, ended, kill, workshop

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

SHARE = 0.1
"""Share of the requests that fail."""


@contextmanager
def server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "moto.server", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := re.search(r"(http://127\S+)", line)))
        Thread(target=process.stderr.read, daemon=True).start()  # its log is of no use, and must not fill the pipe
        yield address
    finally:
        process.kill()
        process.wait()


class Failing:
    """Decides which requests fail: some of them, at random."""

    def __init__(self, rng: random.Random) -> None:
        self.failed: Counter[str] = Counter()
        self.requests = 0
        self._rng = rng

    def __call__(self, method: str, *_: object) -> int | str | None:
        """The answer in place of the storage's; None to pass the request on."""
        self.requests += 1
        answer = self._rng.choice([429, 500, 503, "cut"]) if self._rng.random() < SHARE else None
        if answer is not None:
            self.failed[f"{method}: {answer}"] += 1
        return answer


@contextmanager
def storage(rng: random.Random) -> Iterator[tuple[str, Failing]]:
    """A bucket behind a server that fails now and then; runs find it by the environment."""
    import s3fs

    from faulty import Between

    with server() as address:
        between, bucket = Between(address), f"bucket-{uuid.uuid4().hex}"
        os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ["AWS_ENDPOINT_URL"] = between.url
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
        between.answer = Failing(rng)  # type: ignore[method-assign]
        try:
            yield f"s3://{bucket}", between.answer
        finally:
            between.close()


def state(url: str) -> tuple[set[str], list[str], list[str]]:
    """Keys of the entries that are whole, of those that are not, and what was set aside."""
    from sublevel.engine.store import Store

    store = Store(url)
    keys = list(store.keys())
    whole = {key for key in keys if store.read_entry(key) is not None}
    return whole, sorted(set(keys) - whole), store.damaged()


def wait(process: subprocess.Popen[str], url: str, entries: int, rng: random.Random) -> None:
    """Until a random number of entries is there, and a little longer."""
    from sublevel.engine.store import Store

    k, store = rng.randrange(entries), Store(url)
    while process.poll() is None and len([*store.keys()]) < k:
        time.sleep(0.1)
    time.sleep(rng.random() * 0.3)


def one(shop: Workshop, url: str, out: str, rng: random.Random) -> tuple[int, list[str]]:
    """One kill and one rerun: entries there at the kill, and what was wrong afterwards."""
    process = shop.start(out, jobs=2, store=url)
    wait(process, url, shop.entries, rng)
    kill(process)
    before, broken, aside = state(url)
    wrong = [f"{key} is not whole after the kill" for key in broken] + [f"{name} was set aside" for name in aside]
    again = shop.run(out, jobs=2, store=url)
    if again.returncode:
        return len(before), [*wrong, f"exit code {again.returncode}: {again.stderr.strip()}"]
    after, broken, aside = state(url)
    wrong += [f"{key} was lost" for key in before - after] + [f"{name} was set aside" for name in aside]
    wrong += [f"{key} is not whole after the rerun" for key in broken]
    wrong += ["other tables"] if shop.tables_of(out) != shop.tables else []
    return len(before), wrong


def measure(shop: Workshop, n: int, seed: int = 0) -> dict[str, Any]:
    """All kills, or those until Ctrl-C, with what went wrong."""
    rng, found = random.Random(seed), []
    with storage(random.Random(seed)) as (bucket, failing):
        first = ended(shop.start("first", jobs=2, store=f"{bucket}/first"))
        assert first.returncode == 0, first.stderr
        assert shop.tables_of("first") == shop.tables
        with suppress(KeyboardInterrupt):
            for i in range(n):
                found.append(one(shop, f"{bucket}/{i}", f"run-{i}", rng))
                print(found[-1], flush=True)
        requests, failed = failing.requests, dict(failing.failed)
    at = sorted(there for there, _ in found)
    return {
        "kills": len(found),
        "kills between the first entry and the last": sum(0 < there < shop.entries for there in at),
        "entries of the study": shop.entries,
        "entries at the kill": {"min": at[0], "median": at[len(at) // 2], "max": at[-1]},
        "requests": requests,
        "requests that failed": failed,
        "wrong": [sentence for _, wrong in found for sentence in wrong],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from common import record

    with workshop(levels=1, seeds=1) as made:
        record("faults-storage", __file__, measure(made, int(sys.argv[1]) if len(sys.argv) > 1 else 20))
