"""Documents of somebody else's with right checksums and wrong types, depths and sizes; what becomes of each.

    python benchmarks/faults/documents.py            # 5,000 cases, with a record
    python benchmarks/faults/documents.py 0.05       # a twentieth of them

A case changes one to three places of a manifest, a ticket, an archive, an entry, a log or a lease, seals it again, and
reads it as the commands do. It must be read or refused, within 10 seconds and 1 GiB. A folder beside it must stay as it
was.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import fuzz

import sublevel as sl
from sublevel.cli import main
from sublevel.engine.log import read_log
from sublevel.engine.store import Store
from sublevel.engine.store.archive import Archive
from sublevel.engine.store.content import sealed, unsealed
from sublevel.engine.store.leases import leased
from sublevel.study.store_admin import check_rows
from sublevel.tickets.file import KEY

Case = Callable[[random.Random], str]
CASES = 5_000
SECONDS, MEMORY = 10.0, 2**30
KINDS = ("manifests", "tickets", "archives", "stored", "logs", "leases")

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, -0.5, 1e308, float("inf"), float("-inf"), float("nan"),
    "", "x", "../../../canary/kept", "/etc/passwd", "\x1b[2J", "\ud800", "=1+1", "http://127.0.0.1:9/x", "os:system",
    "0" * 64, "f" * 64, "a" * 100_000, [], [1], [[]], [None] * 1_000, {}, {"a": 1}, {"": {}}, {"name": []},
)  # fmt: skip


def deep(kind: str, levels: int) -> Any:
    """Lists or groups inside each other."""
    out: Any = 0
    for _ in range(levels):
        out = [out] if kind == "list" else {"a": out}
    return out


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(document: Any, rng: random.Random) -> Any:
    """A copy with one to three values replaced, dropped, doubled or renamed."""
    out = copy.deepcopy(document)
    for _ in range(rng.randrange(1, 4)):
        found = list(places(out))
        if not found:
            return out
        *way, last = rng.choice(found)
        at = out
        for key in way:
            at = at[key]
        how = rng.randrange(10)
        if how == 0:
            del at[last]
        elif how == 1 and isinstance(at, dict):
            at[rng.choice(["x", "", "__class__", "key", "name"])] = at.pop(last)
        elif how == 2 and isinstance(at, list):
            at.insert(0, copy.deepcopy(at[last]))
        elif how == 3:
            at[last] = deep(rng.choice(["list", "group"]), rng.choice([50, 150, 400]))
        elif how == 4:
            at[last] = {"was": at[last]}
        else:
            at[last] = copy.deepcopy(rng.choice(VALUES))
    return out


def dumped(document: Any) -> bytes:
    """JSON, with the numbers and texts that JSON has not; 5,000 levels where it is too deep to write."""
    try:
        return json.dumps(document).encode()
    except RecursionError:
        return b"[" * 5_000 + b"]" * 5_000


class Shapes:
    """A finished run, its archive and a ticket, and the ways to make them wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        result = fuzz.a_run(folder)
        self.run, self.store = result.folder, folder / "runs" / ".store"
        self.manifest = json.loads((self.run / "study.json").read_text())
        self.log = (self.run / "events.jsonl").read_text().splitlines()
        result.ticket("imp", 1).save(folder / "t.safetensors")
        self.ticket = (folder / "t.safetensors").read_bytes()
        fuzz_command("export", str(self.run), str(folder / "a.tar"))
        self.archive = Archive(folder / "a.tar")
        self.names = [file.name for file in self.archive.files("")]
        self.entries = sorted((self.store / "cells").rglob("*.json"))

    def manifests(self, rng: random.Random) -> str:
        """A changed study.json beside a good run, listed and reported."""
        bad = self.run.with_name("bad")
        shutil.rmtree(bad, ignore_errors=True)
        bad.mkdir()
        (bad / "study.json").write_bytes(dumped(changed(self.manifest, rng)))
        result = fuzz_command("ls", "--out", str(self.run.parent))
        if result not in ("understood", "refused"):
            return result
        command = rng.choice(["compare", "ls", "gc", "export", "tables", "tables", "tables"])
        words = {
            "compare": ("compare", str(self.run), str(bad)),
            "ls": ("ls", "bad", "--out", str(self.run.parent)),
            "gc": ("gc", "--dry-run", "--out", str(self.run.parent)),
            "export": ("export", str(bad), str(self.folder / "bad.tar")),
        }
        out = fuzz.tried(lambda: read_tables(bad)) if command == "tables" else fuzz_command(*words[command])
        shutil.rmtree(bad)
        return out

    def tickets(self, rng: random.Random) -> str:
        """A changed document in a ticket, with its checksum."""
        n = int.from_bytes(self.ticket[:8], "little")
        header = json.loads(self.ticket[8 : 8 + n])
        document = json.loads(header["__metadata__"][KEY])
        document.pop("checksum")
        if rng.random() < 0.8:
            document = changed(document, rng)
        else:
            header = changed(header, rng)
        if isinstance(header.get("__metadata__"), dict) and KEY in header["__metadata__"]:
            text = dumped_canonical(document)
            if isinstance(document, dict):
                sum_ = hashlib.sha256(text.encode()).hexdigest()
                text = dumped_canonical(document | {"checksum": sum_})
            header["__metadata__"][KEY] = text
        head = dumped(header)
        path = self.folder / "bad.safetensors"
        path.write_bytes(len(head).to_bytes(8, "little") + head + self.ticket[8 + n :])
        return fuzz_command("ticket", "show", str(path))

    def archives(self, rng: random.Random) -> str:
        """A changed entry or root in an archive, or a changed header, all with right checksums."""
        import tarfile

        files = {name: self.archive.read(name) for name in self.names}
        victim = rng.choice([name for name in files if name.endswith(".json")])
        body = unsealed(files[victim])
        files[victim] = resealed(changed(body, rng))
        about: Any = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in files.items()}
        header: Any = {"format": 1, "files": about}
        if rng.random() < 0.1:
            header = changed(header, rng)
        path = self.folder / "bad.tar"
        with path.open("wb") as out:
            for name, data in {"archive.json": dumped(header), **files}.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                out.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
            out.write(bytes(1024))

        def case() -> str:
            check_rows(Archive(path))
            return "understood"

        return fuzz.tried(case)

    def stored(self, rng: random.Random) -> str:
        """A changed entry in the store itself, sealed again: the tables of the run, and the store's own commands."""
        path = rng.choice(self.entries)
        true = path.read_bytes()
        path.write_bytes(resealed(changed(unsealed(true), rng)))
        try:
            how = rng.choice(["tables", "tables", "ls"])
            if how == "ls":
                return fuzz_command("ls", "--stored", "--out", str(self.run.parent))
            return fuzz.tried(lambda: read_tables(self.run))
        finally:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(true)

    def logs(self, rng: random.Random) -> str:
        """Changed lines of a log."""
        path = self.run / "bad.jsonl"
        lines = [dumped(changed(json.loads(line), rng)) if rng.random() < 0.3 else line.encode() for line in self.log]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return fuzz.tried(lambda: str(read_log(path)) and "understood")

    def leases(self, rng: random.Random) -> str:
        """Leases of other types and times."""
        key = rng.choice(["0" * 64, "f" * 64])
        path = self.store / "leases" / f"{key}.{rng.choice([0, 1, 10**20, 'x'])}"
        path.parent.mkdir(exist_ok=True)
        good = {"host": "elsewhere", "pid": 1, "born": 0.0, "token": "t", "until": 1e9, "lease": 60.0}
        path.write_bytes(dumped(changed(good, rng)))
        try:
            return fuzz.tried(lambda: str(leased(Store(self.store).files)) and "understood")
        finally:
            path.unlink()


def read_tables(run: Path) -> str:
    """Every table of a run."""
    return "understood" if sl.open(run).tables else "no tables"


def resealed(body: Any) -> bytes:
    """An entry or a root with its checksum; plain JSON where it cannot have one."""
    try:
        return sealed(body)
    except (ValueError, RecursionError, TypeError):
        return dumped({"body": body, "checksum": ""})


def dumped_canonical(document: Any) -> str:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"))
    except (RecursionError, TypeError):
        return "[" * 5_000


def fuzz_command(*words: str) -> str:
    """What became of a command: a traceback or another exit code than 0, 1 and 2 is a fault."""
    import contextlib
    import io

    from sublevel.cli.output import console

    console.cache_clear()
    out, err = io.StringIO(), io.StringIO()

    def case() -> str:
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main(list(words))
        except SystemExit as end:
            said = out.getvalue() + err.getvalue()
            if "\x1b" in said:
                return "an escape sequence was printed"
            if "Traceback" in said or end.code not in (0, 1, 2):
                return f"exit code {end.code}: {said[-200:]}"
            return "understood" if end.code == 0 else "refused"
        return "no exit code"

    try:
        return fuzz.tried(case)
    finally:
        console.cache_clear()


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Names, bytes and times of a folder."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def shapes(cases: int = CASES, seed: int = 0, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Run the cases; verdicts by kind, the slowest one in seconds of this process, and the largest memory in bytes."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "work").mkdir()
        (top / "canary").mkdir()
        (top / "canary" / "kept").write_text("kept")
        (top / "canary" / "settings.json").write_text("{}")
        (top / "work" / "fuzz_net.py").write_text(fuzz.NET)
        sys.path.insert(0, str(top / "work"))
        try:
            made = Shapes(top / "work")
            before, found, slowest = state(top / "canary"), {}, 0.0
            for kind in kinds:
                case: Case = getattr(made, kind)
                rng, verdicts = random.Random(f"{seed}:{kind}"), Counter[str]()
                for _ in range(-(-cases // len(kinds))):
                    began = time.process_time()
                    verdicts[case(rng)] += 1
                    slowest = max(slowest, time.process_time() - began)
                found[kind] = dict(verdicts)
            touched = state(top / "canary") != before
        finally:
            sys.path.remove(str(top / "work"))
            sys.modules.pop("fuzz_net", None)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"cases": found, "slowest": round(slowest, 2), "memory": memory, "touched": touched}


def wrong(found: dict[str, Any]) -> dict[str, Any]:
    """What should not have been."""
    good = ("understood", "refused")
    bad = {kind: {v: n for v, n in counts.items() if v not in good} for kind, counts in found["cases"].items()}
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

    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    found = shapes(round(share * CASES))
    print(json.dumps(found, indent=1))
    if share == 1.0:
        record("documents", __file__, {**found, "wrong": wrong(found)})
    sys.exit(bool(wrong(found)))
