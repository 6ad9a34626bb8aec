"""Kills of workers and parents whose store is in object storage that also fails now and then.

    python benchmarks/faults/storage.py 20

A real server that speaks S3 (moto) runs in a process of its own. Between it and the store, one request in ten is
answered with 429, 500 or 503, or the answer is cut in the middle of its body. A run with two workers loses one or both
of them at a random request, and at a later one its parent, alone or with the workers. Half of these requests still
reach the storage. The run is then run again and must end with the tables of a run that nothing disturbed. A judge that
reads the bucket without the store's code must find every entry whole, none moved, and nothing set aside.
"""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from workshop import Workshop, ended, unsound, whole, workshop

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

SHARE = 0.1
"""Share of the requests that fail."""

Act = Callable[[str], bool]
"""Called with the method of a request; whether it did what it is for."""


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
    """Decides which requests fail, at random, and acts at the request that it is told."""

    def __init__(self, rng: random.Random) -> None:
        self.failed: Counter[str] = Counter()
        self.requests = 0
        self._rng, self._lock = rng, Lock()
        self._plan: list[tuple[int, Act]] = []

    def plan(self, *acts: tuple[int, Act]) -> None:
        """Call each act ``n`` requests from now, with the method of that request, and again until it is done."""
        with self._lock:
            self._plan = sorted(((self.requests + n, act) for n, act in acts), key=lambda each: each[0])

    def __call__(self, method: str, *_: object) -> int | str | None:
        """The answer in place of the storage's; None to pass the request on."""
        with self._lock:
            self.requests += 1
            if self._plan and self.requests >= self._plan[0][0] and self._plan[0][1](method):
                self._plan.pop(0)
                return self._rng.choice([503, None])  # lost with its sender, or done after the sender's death
            answer = self._rng.choice([429, 500, 503, "cut"]) if self._rng.random() < SHARE else None
            if answer is not None:
                self.failed[f"{method}: {answer}"] += 1
            return answer


class Bucket:
    """A bucket behind a server that fails now and then, and a judge who asks the storage itself."""

    def __init__(self, address: str, rng: random.Random) -> None:
        import s3fs

        from faulty import Between

        self._name, self._between = f"bucket-{uuid.uuid4().hex}", Between(address)
        os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        # without the attempts of botocore, which wait for seconds each
        os.environ |= {"AWS_ENDPOINT_URL": self._between.url, "AWS_MAX_ATTEMPTS": "1"}
        self._judge = s3fs.S3FileSystem(endpoint_url=address, use_listings_cache=False, skip_instance_cache=True)
        self._judge.mkdir(self._name)
        self.failing = self._between.answer = Failing(rng)  # type: ignore[method-assign]

    def url(self, out: str) -> str:
        """The address of a store, for runs."""
        return f"s3://{self._name}/{out}"

    def judged(self, out: str) -> tuple[dict[str, bytes], list[str]]:
        """The whole entries of a store by key, and what is wrong in it."""
        with tempfile.TemporaryDirectory() as folder:
            if self._judge.find(f"{self._name}/{out}"):
                self._judge.get(f"{self._name}/{out}/", folder, recursive=True)
            store = Path(folder)
            entries, named = whole(store), [p.stem for p in (store / "cells").glob("??/*.json")]
            wrong = [f"{name} is damaged" for name in unsound(store)]
            wrong += [f"{key} has lost an object" for key in sorted({*named} - {*entries})]
            return entries, wrong + [f"{p.name} was set aside" for p in (store / "damaged").glob("*")]

    def close(self) -> None:
        """Stop the failing server."""
        self._between.close()


class Kills:
    """Kills at chosen requests of a run, and how many there were, by victim and by method of the request."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.process: subprocess.Popen[str] | None = None

    def workers(self, n: int) -> Act:
        """Kill n workers at the first request at which n are alive."""

        def act(method: str) -> bool:
            found = self._children()
            return len(found) >= n and self._kill(f"{n} of 2 workers", method, found[:n])

        return act

    def parent(self, with_workers: bool) -> Act:
        """Kill the parent, and its workers at the same moment."""

        def act(method: str) -> bool:
            assert self.process is not None
            also = self._children() if with_workers else []
            return self._kill("parent and workers" if with_workers else "parent", method, [self.process.pid, *also])

        return act

    def _children(self) -> list[int]:
        """The live workers of the run."""
        assert self.process is not None
        with suppress(OSError):
            found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return [int(pid) for pid in found]
        return []

    def _kill(self, victim: str, method: str, pids: list[int]) -> bool:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.done[f"{victim}, at a {method}"] += 1
        return True


def rerun(shop: Workshop, out: str, url: str) -> str:
    """Run to the end in this process, which has torch loaded; what it said where it failed."""
    from sublevel.cli import main

    said, code = io.StringIO(), None
    with redirect_stdout(said), redirect_stderr(said):
        try:
            main(shop.command(out, 1, url)[3:])
        except SystemExit as end:
            code = end.code
    return "" if code in (0, None) else f"exit code {code}: {said.getvalue()[-500:]}"


def one(shop: Workshop, bucket: Bucket, kills: Kills, out: str, rng: random.Random, length: int) -> dict[str, Any]:
    """One run that loses workers and its parent, and one rerun: entries there at the death, and what was wrong."""
    a, b = sorted(rng.randrange(length) for _ in range(2))
    bucket.failing.plan((a, kills.workers(rng.choice([1, 2]))), (b, kills.parent(rng.random() < 0.5)))
    kills.process = shop.start(out, jobs=2, store=bucket.url(out))
    kills.process.communicate(timeout=600)  # ends with the last worker, which holds the pipe
    bucket.failing.plan()
    before, wrong = bucket.judged(out)
    wrong = [f"after the kill: {each}" for each in wrong]
    failed = rerun(shop, out, bucket.url(out))
    if failed:
        return {"entries": len(before), "wrong": [*wrong, failed]}
    after, more = bucket.judged(out)
    wrong += [f"after the rerun: {each}" for each in more]
    wrong += [f"{key} was lost or written again" for key in before if after.get(key) != before[key]]
    wrong += ["other tables"] if shop.tables_of(out) != shop.tables else []
    return {"entries": len(before), "wrong": wrong}


def measure(shop: Workshop, n: int, seed: int = 0) -> dict[str, Any]:
    """All rounds, or those until Ctrl-C, with what went wrong."""
    rng, kills, found = random.Random(seed), Kills(), []
    os.environ |= {"SUBLEVEL_LEASE": "3", "SUBLEVEL_KEEP": "0"}
    os.chdir(shop.folder)
    began = time.perf_counter()
    with server() as address:
        bucket = Bucket(address, random.Random(seed))
        first = ended(shop.start("first", jobs=2, store=bucket.url("first")))
        assert first.returncode == 0, first.stderr
        assert shop.tables_of("first") == shop.tables
        length = bucket.failing.requests
        with suppress(KeyboardInterrupt):
            for i in range(n):
                found.append(one(shop, bucket, kills, f"run-{i}", rng, length))
                print(found[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
        bucket.close()
    at = sorted(each["entries"] for each in found)
    return {
        "runs": len(found),
        "kills": kills.done.total(),
        "kills by victim and request": dict(sorted(kills.done.items())),
        "runs with some of their entries at the kill of the parent": sum(0 < each < shop.entries for each in at),
        "entries of the study": shop.entries,
        "entries at the kill of the parent": {"min": at[0], "median": at[len(at) // 2], "max": at[-1]},
        "requests": bucket.failing.requests,
        "requests that failed": dict(sorted(bucket.failing.failed.items())),
        "seconds": time.perf_counter() - began,
        "wrong": [sentence for each in found for sentence in each["wrong"]],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from common import record

    with workshop(levels=1, seeds=1) as made:
        record("faults-storage", __file__, measure(made, int(sys.argv[1]) if len(sys.argv) > 1 else 20))
