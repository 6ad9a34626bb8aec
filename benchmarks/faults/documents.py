"""Documents of somebody else's with right checksums and wrong types, depths and sizes; what becomes of each.

    python benchmarks/faults/documents.py            # 5,000 cases, with a record
    python benchmarks/faults/documents.py 0.05       # a twentieth of them
    python benchmarks/faults/documents.py 1 leases   # those of one kind

A case changes one to three places of a manifest, a ticket, an archive, an entry, an object, a root, a log, a lease or
a training under way, seals it again, and hands it to the commands that read it. It must be read or refused, within 10
seconds and 1 GiB. Nothing may be touched but the folder of runs, no code of the document's imported, no address asked.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import re
import resource
import select
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import fuzz
import torch
from mutations import VALUES, changed, changed_files, changed_ticket, dumped, resealed, write_tar
from safetensors.torch import save

import sublevel as sl
from sublevel import models
from sublevel.cli import main
from sublevel.cli.output import console
from sublevel.engine.log import read_log
from sublevel.engine.partial import Partial
from sublevel.engine.store import Store
from sublevel.engine.store.archive import Archive
from sublevel.engine.store.content import digest
from sublevel.engine.store.leases import Leases
from sublevel.space import Space
from sublevel.study.compute import CellCheckpointer
from sublevel.study.tickets import retrain

CASES = 5_000
SECONDS, MEMORY = 10.0, 2**30
KINDS = ("manifests", "tickets", "archives", "stored", "logs", "leases")
GOOD = ("understood", "refused")

MORE = """
[geometry.spectra]
branches = ["imp"]
k = 2
steps = 8
restarts = 0
negative = 0
spaces = ["own"]
[geometry.legs]
[geometry.topology]
points = 3
refine = 0
"""

CODE = "open('ran', 'w').close()\n\n\ndef run(*_, **__):\n    pass\n"
"""A module that documents name, and that nothing may import."""


class Shapes:
    """A finished run, its archive and tickets, and the ways to make them wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fuzz_net.py").write_text(fuzz.NET)
        (folder / "canary_code.py").write_text(CODE)
        result = fuzz.a_run(folder, MORE)
        self.problem = result.problem
        self.run, self.store = result.folder, folder / "runs" / ".store"
        self.manifest = json.loads((self.run / "study.json").read_text())
        self.log = (self.run / "events.jsonl").read_text().splitlines()
        result.ticket("imp", 1).save(folder / "own.safetensors", end=True)
        registered().save(folder / "lenet.safetensors")
        self.tickets_ = {"fuzz_net:tiny": folder / "own.safetensors", "lenet-300-100": folder / "lenet.safetensors"}
        assert command("export", self.run, folder / "a.tar") == "understood"
        archive = Archive(folder / "a.tar")
        self.files = {file.name: archive.read(file.name) for file in archive.files("")}
        for path in self.run.parent.rglob("*"):
            os.utime(path, (1e9, 1e9))
        gc.freeze()  # each case looks for garbage, not among all this

    def scratch(self) -> Path:
        """A folder of runs as they were before any case."""
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        shutil.copytree(self.run.parent, self.folder / "scratch")
        return self.folder / "scratch"

    def manifests(self, rng: random.Random) -> str:
        """A changed study.json beside a good run."""
        runs = self.scratch()
        bad, good = runs / "bad", runs / "tiny"
        bad.mkdir()
        (bad / "study.json").write_bytes(dumped(changed(self.manifest, rng)))
        found = command("ls", "--out", runs)
        if found not in GOOD:
            return found
        return chosen(
            rng,
            {
                4: lambda: command("compare", good, bad),
                3: lambda: command("ls", "bad", "--out", runs),
                2: lambda: command("gc", *rng.choice([(), ("--dry-run",), ("--weights", "none")]), "--out", runs),
                1: lambda: command("report", "--no-figures", bad),
                5: lambda: command("export", bad, self.folder / "bad.tar"),
                6: lambda: command(*export_ticket(bad, self.folder)),
                7: lambda: command("plan", "--diff", good, bad, "--out", runs),
                8: lambda: command("status", bad, "--out", runs),
            },
        )

    def tickets(self, rng: random.Random) -> str:
        """A changed document or tensor in a ticket, with its checksums."""
        model = rng.choice(list(self.tickets_))
        path = self.folder / "bad.safetensors"
        path.write_bytes(changed_ticket(self.tickets_[model].read_bytes(), rng))
        out = self.folder / "state.safetensors"
        return chosen(
            rng,
            {
                4: lambda: command("ticket", "show", path),
                5: lambda: command("ticket", "apply", path, "--model", model, "--out", out),
                3: lambda: command("ticket", "apply", path, "--model", model, "--out", out, "--masks", "--at", "start"),
                2: lambda: tried(lambda: str(retrain(sl.load_ticket(path), self.problem)) and "understood"),
            },
        )

    def archives(self, rng: random.Random) -> str:
        """A changed file in an archive, or a changed header, all with right checksums, taken into a store."""
        path, runs = self.folder / "bad.tar", self.scratch()
        write_tar(path, changed_files(self.files, rng), rng)
        shutil.rmtree(runs / ".store") if rng.random() < 0.5 else None
        before = state(runs)
        found = command("import", path, "--out", runs)
        if found != "understood":
            return found if state(runs) == before else "a refused archive was written"
        return self.used(rng, runs)

    def stored(self, rng: random.Random) -> str:
        """A changed file in the store itself, sealed again."""
        runs = self.scratch()
        shutil.rmtree(runs / ".store")
        for name, data in changed_files(self.files, rng).items():
            (runs / ".store" / name).parent.mkdir(parents=True, exist_ok=True)
            (runs / ".store" / name).write_bytes(data)
        (runs / ".store" / "format.json").write_bytes((self.store / "format.json").read_bytes())
        return self.used(rng, runs)

    def used(self, rng: random.Random, runs: Path) -> str:
        """What the commands make of a store."""
        out, run = ("--out", runs), runs / "tiny"
        return chosen(
            rng,
            {
                8: lambda: tried(lambda: "understood" if sl.open(run).tables else "no tables"),
                7: lambda: command("ls", "--stored", *out),
                6: lambda: command("verify", *rng.choice([(), ("--rebuild",)]), *out),
                5: lambda: command("gc", *rng.choice([(), ("--dry-run",), ("--weights", "ends")]), *out),
                4: lambda: command("export", "tiny", self.folder / "bad.tar", *out),
                3: lambda: command("import", runs / ".store", "--out", self.folder / "other"),
                9: lambda: command(*export_ticket(run, self.folder)),
                2: lambda: command("compare", run, self.run),
                1: lambda: command(
                    *rng.choice([("report", run), ("run", self.folder / "tiny.toml", *out)]), "--no-figures"
                ),
            },
        )

    def logs(self, rng: random.Random) -> str:
        """Changed lines of a log."""
        runs = self.folder / "logs"
        (runs / "bad").mkdir(parents=True, exist_ok=True)
        path = runs / "bad" / "events.jsonl"
        lines = [dumped(changed(json.loads(line), rng)) if rng.random() < 0.3 else line.encode() for line in self.log]
        path.write_bytes(
            b"\n".join(lines[: rng.randrange(len(lines)) + 1]) + rng.choice([b"\n", b"", b'{"event": "beg'])
        )
        found = command("status", "--out", runs)
        return found if found not in GOOD else tried(lambda: str(read_log(path).left(2e9)) and "understood")

    def leases(self, rng: random.Random) -> str:
        """Leases and trainings under way of other types and times."""
        runs = self.scratch()
        files, key = Store(runs / ".store").files, rng.choice(["0" * 64, "f" * 64])
        good = {"run": "x", "seconds": 60.0, "machine": "another", "pid": os.getpid(), "born": "1"}
        half = {"key": key, "step": 1, "total": 0.5, "seen": 2, "history": [{"step": 1, "train_loss": 0.5}]}
        name = f"{key}.{rng.choice([0, 1, 10**20, 'x', -1, '٣'])}"
        body = resealed(changed(good, rng)) if rng.random() < 0.8 else dumped(changed(good, rng))
        rest = (
            dumped(changed(half, rng)) + b"\n" + save({"state:theta": torch.zeros(3), "saved:1:theta": torch.zeros(3)})
        )
        for place, data in (("leases", body), ("partial", f"{digest(rest)}\n".encode() + rest)):
            (runs / ".store" / place).mkdir(exist_ok=True)
            (runs / ".store" / place / (name if place == "leases" else key)).write_bytes(data)

        def case() -> str:
            with Leases(files, seconds=20) as held:
                held.claim(key)
            return "understood" if CellCheckpointer(Partial(files, key)).load() else "refused"

        found = command("gc", "--out", runs)
        return found if found not in GOOD else tried(case)


def registered() -> sl.Ticket:
    """A ticket of a registered network for the inputs of the small study."""
    net = models.build("lenet-300-100", input_shape=(1, 6, 6), classes=3)
    about = {"model": {"name": "lenet-300-100", "options": {}}, "data": {"input_shape": [1, 6, 6], "classes": 3}}
    space = Space.of(net)
    return sl.Ticket(space.full_mask(), {"start": space.point(net)}, space, {}, about)


class Peak:
    """The largest memory of this process while it read a case; documents are made beside that."""

    def __init__(self) -> None:
        self.largest = 0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Begin a new peak where the system has one to reset, which is Linux alone."""
        gc.collect()
        linux = sys.platform == "linux"
        if linux:
            Path("/proc/self/clear_refs").write_text("5")
        try:
            yield
        finally:
            if linux:
                found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
                assert found is not None
                peak = int(found[1]) * 1024
            else:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.largest = max(self.largest, peak)


PEAK = Peak()


def tried(case: Callable[[], str]) -> str:
    """What became of a case, whose memory is measured."""
    with PEAK.measured():
        return fuzz.tried(case)


def chosen(rng: random.Random, acts: dict[int, Callable[[], str]]) -> str:
    """What became of one of several commands, which are given by their weights."""
    return rng.choices(list(acts.values()), list(acts))[0]()


def export_ticket(run: Path, folder: Path) -> tuple[object, ...]:
    named = ("--branch", "imp", "--level", 1, "--seed", 0, "--code", "fuzz_net:tiny")
    return "ticket", "export", run, *named, "--out", folder / "out.safetensors", "--end"


def command(*words: object) -> str:
    """What became of a command: a traceback or another exit code than 0, 1 and 2 is a fault."""
    console.cache_clear()
    out, err = io.StringIO(), io.StringIO()

    def case() -> str:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main(list(map(str, words)))
        except SystemExit as end:
            said = out.getvalue() + err.getvalue()
            if "\x1b" in said:
                return "an escape sequence was printed"
            if "Traceback" in said or end.code not in (0, 1, 2):
                return f"{words[:2]}: exit code {end.code}: {said[-300:]}"
            return "understood" if end.code == 0 else "refused"
        return "no exit code"

    try:
        found = tried(case)
        return found if found in GOOD else f"{' '.join(map(str, words[:2]))}: {found}"
    finally:
        console.cache_clear()


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Names, bytes and times of a folder."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


@contextlib.contextmanager
def workplace(top: Path) -> Iterator[tuple[Path, Callable[[], bool]]]:
    """A folder to work in with a canary and a home beside it, an address nobody may ask; whether any was touched."""
    for name in ("work", "canary", "home"):
        (top / name).mkdir()
    (top / "canary" / "kept").write_text("kept")
    (top / "canary" / "settings.json").write_text("{}")
    here, before = Path.cwd(), dict(os.environ)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        VALUES.append(f"http://127.0.0.1:{listening.getsockname()[1]}/x")
        os.chdir(top / "work")
        os.environ |= {"HOME": str(top / "home"), "SUBLEVEL_CACHE": str(top / "cache")}
        sys.path.insert(0, str(top / "work"))
        untouched = state(top / "canary"), state(top / "home")

        def touched() -> bool:
            asked = bool(select.select([listening], [], [], 0)[0])
            return asked or (top / "work" / "ran").exists() or (state(top / "canary"), state(top / "home")) != untouched

        try:
            yield top / "work", touched
        finally:
            VALUES.pop()
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)
            sys.path.remove(str(top / "work"))
            for module in ("fuzz_net", "canary_code"):
                sys.modules.pop(module, None)


def shapes(cases: int = CASES, seed: int = 0, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Run the cases; verdicts by kind, the slowest one in seconds of this process, and the largest memory in bytes."""
    with tempfile.TemporaryDirectory() as name, workplace(Path(name)) as (work, touched):
        made = Shapes(work)
        found, slowest = {}, 0.0
        for kind in kinds:
            case: Callable[[random.Random], str] = getattr(made, kind)
            verdicts = Counter[str]()
            for i in range(-(-cases // len(kinds))):
                began = time.process_time()
                verdicts[case(random.Random(f"{seed}:{kind}:{i}"))] += 1
                slowest = max(slowest, time.process_time() - began)
            found[kind] = dict(verdicts)
            print(
                f"{kind}: {found[kind]}, {slowest:.2f} s, {PEAK.largest / 2**20:.0f} MiB", file=sys.stderr, flush=True
            )
        return {"cases": found, "slowest": round(slowest, 2), "memory": PEAK.largest, "touched": touched()}


def wrong(found: dict[str, Any]) -> dict[str, Any]:
    """What should not have been."""
    bad = {kind: {v: n for v, n in counts.items() if v not in GOOD} for kind, counts in found["cases"].items()}
    out: dict[str, Any] = {kind: counts for kind, counts in bad.items() if counts}
    return out | {name: found[name] for name, over in over_limit(found).items() if over}


def over_limit(found: dict[str, Any]) -> dict[str, bool]:
    return {
        "slowest": found["slowest"] > SECONDS,
        "memory": found["memory"] > MEMORY,
        "touched": bool(found["touched"]),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from common import record

    share, kinds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, sys.argv[2:] or KINDS
    began = time.perf_counter()
    fuzz.SECONDS = 120  # of the clock, for a wait without end; those of the processor are measured
    found = shapes(round(share * CASES * len(kinds) / len(KINDS)), kinds=kinds)
    print(json.dumps(found, indent=1))
    if share == 1.0 and kinds == KINDS:
        record("fuzz-documents", __file__, found | {"seconds": time.perf_counter() - began, "wrong": wrong(found)})
    sys.exit(bool(wrong(found)))
