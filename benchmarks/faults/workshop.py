"""A small study, run as a person would, and a judge of its store that shares no code with it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

STUDY = """
name = "faults"
levels = {levels}
fraction = 0.4
rewind = "2it"
branches = ["imp", "oneshot", "finetune", "reinit", "random-prune"]
seeds = {seeds}
[data]
name = "fashion-mnist-small"
train_size = 300
test_size = 100
[model]
name = "lenet-300-100"
[train]
epochs = 1
batch_size = 50
lr = 0.05
"""


class Workshop:
    """A folder with a study in it, and what an undisturbed run of it gives."""

    def __init__(self, folder: Path, levels: int, seeds: int) -> None:
        self.folder = folder
        (folder / "faults.toml").write_text(STUDY.format(levels=levels, seeds=seeds))
        began = time.perf_counter()
        done = self.run("undisturbed", jobs=2)
        assert done.returncode == 0, done.stderr
        self.seconds = time.perf_counter() - began
        self.tables = self.tables_of("undisturbed")
        self.store = folder / "undisturbed" / ".store"
        self.entries = len(whole(self.store))
        assert self.entries
        assert self.tables

    def command(self, out: str, jobs: int, store: Path | str | None = None) -> list[str]:
        """The study as a command; ``out`` is the folder of its run and, unless told otherwise, of its store."""
        at = [] if store is None else ["--store", str(store)]
        run = ["run", "faults.toml", "--no-figures", "--out", out, "--jobs", str(jobs)]
        return [sys.executable, "-m", "sublevel.cli", *run, *at]

    def start(self, out: str, jobs: int, store: Path | str | None = None) -> subprocess.Popen[str]:
        """Begin a run, in a process group of its own."""
        return subprocess.Popen(
            self.command(out, jobs, store),
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "SUBLEVEL_LEASE": "3", "SUBLEVEL_KEEP": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, out: str, jobs: int, store: Path | str | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return ended(self.start(out, jobs, store))

    def tables_of(self, out: str) -> dict[str, bytes]:
        """The bytes of every table of a run."""
        return {p.name: p.read_bytes() for p in sorted((self.folder / out / "faults" / "tables").glob("*.csv"))}

    def computed(self, out: str) -> int:
        """How many cells the last run into that folder computed."""
        return json.loads((self.folder / out / "faults" / "study.json").read_text())["last_run"]["computed"]


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a run."""
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a run with signal 9, and wait until its workers have seen that it is gone."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@contextmanager
def workshop(levels: int = 2, seeds: int = 2) -> Iterator[Workshop]:
    """A workshop in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        yield Workshop(Path(folder), levels, seeds)


def sound(path: Path) -> bool:
    """Whether an object or an entry is what it says."""
    data = path.read_bytes()
    if path.parent.parent.name == "objects":
        return hashlib.sha256(data).hexdigest() == path.name
    try:
        document = json.loads(data)
        text = json.dumps(document["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest() == document["checksum"]
    except (ValueError, KeyError, TypeError):
        return False


def whole(store: Path) -> dict[str, bytes]:
    """The entries that are sound with all their objects, by key."""
    found = {}
    for path in (store / "cells").glob("??/*.json"):
        if sound(path):
            names = json.loads(path.read_bytes())["body"]["objects"].values()
            objects = [store / "objects" / name[:2] / name for name in names]
            if all(each.is_file() and sound(each) for each in objects):
                found[path.stem] = path.read_bytes()
    return found


def unsound(store: Path) -> list[str]:
    """Objects and entries that are not what they say, where a run would read them."""
    files = [p for kind in ("cells", "objects") for p in (store / kind).glob("??/*")]
    return [str(p.relative_to(store)) for p in files if not sound(p)]
