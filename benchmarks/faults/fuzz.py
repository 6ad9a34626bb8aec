"""Mutated input: study files, tickets, store entries and data files with something in them changed, cut or put in.

python benchmarks/faults/fuzz.py [share]     # share of the full counts below (1: minutes on one core)

What is read is refused in one sentence of the package's own, or means what it says: a study's resolved form reads back
as itself, a ticket or an entry has the bits of the one that was not changed, data pass the checks that all data pass.
Anything else is counted as wrong: another exception (a traceback to a user), a result with other bits, more than
SECONDS for one case (a hang), or a file made by code that was read (`canary`).
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sublevel as sl
from sublevel.data import load
from sublevel.data.sources import check
from sublevel.engine.store import Store
from sublevel.errors import SublevelError
from sublevel.study.documents import preset_names, read
from sublevel.study.spec import parse
from sublevel.tickets import Ticket

COUNTS = {"study files": 2000, "tickets": 250, "store entries": 250, "data files": 200}
SECONDS = 20
Verdict = str
"""``refused``, ``understood``, or what was wrong."""

NET = """
from torch import nn


def tiny(classes, width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.ReLU(), nn.Linear(width, classes))
"""

STUDY = """
name = "tiny"
seeds = [0]
levels = 1
rewind = "1it"
branches = ["imp", {{ name = "oneshot", options = {{ criterion = "snip" }} }}]
[data]
name = "arrays"
root = "{root}"
validation = 12
[model]
name = "fuzz_net:tiny"
options = {{ width = 3 }}
[train]
epochs = 1
batch_size = 20
lr = 0.05
[geometry.paths]
points = 3
to_dense = {{ branches = ["imp"] }}
"""

VALUES = (
    "nan", "inf", "-inf", "-1", "0", "1e308", "99999999999999999999", "0.5", "true", "[]", "[[]]", "{}", '""', '"x"',
    '"../../etc"', '"canary:run"', '"-3it"', '"1e9ep"', '"<script>"', '"\\u0000"', "[1, 1]", '["imp", "imp"]',
    "2026-01-01", '"999999999999it"',
)  # fmt: skip


class Hang(Exception):
    """A case took longer than it may."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise Hang after SECONDS."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(case: Callable[[], Verdict]) -> Verdict:
    """What became of a case. A refusal must be one line of text."""
    try:
        with limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return case()
    except SublevelError as error:
        return "refused" if str(error).strip() and "Traceback" not in str(error) else f"refused with {str(error)!r}"
    except Hang:
        return f"more than {SECONDS} s"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits flipped, bytes put in, taken out, or doubled, the end cut off."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at, n = rng.randrange(len(out) + 1), rng.choice([1, 2, 8, 64])
        how = rng.randrange(5)
        if how == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            out[at:at] = rng.randbytes(n)
        elif how == 2:
            del out[at : at + n]
        elif how == 3:
            out[at:at] = out[at : at + n]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def text_changed(text: str, rng: random.Random) -> str:
    """One to three changes of lines of TOML: another value, a key misspelt, a line lost, doubled or moved."""
    lines = text.splitlines()
    for _ in range(rng.randrange(1, 4)):
        at, how = rng.randrange(len(lines)), rng.random()
        key, equals, _ = lines[at].partition("=")
        if how < 0.6 and equals:
            lines[at] = f"{key}= {rng.choice(VALUES)}"
        elif how < 0.7 and equals:
            i = rng.randrange(len(key.strip()) or 1)
            lines[at] = f"{key[:i]}{rng.choice('abz_.')}{key[i + 1 :]}={lines[at].partition('=')[2]}"
        elif how < 0.8:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif how < 0.9:
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
        else:
            lines.pop(at)
        lines = lines or [""]
    return "\n".join(lines) + "\n"


def arrays(folder: Path) -> Path:
    """A small data set as one file."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 6, 6), dtype=np.uint8)
    y = np.arange(60, dtype=np.int64) % 3
    np.savez(folder / "data.npz", train_x=x[:48], train_y=y[:48], test_x=x[48:], test_y=y[48:])
    return folder / "data.npz"


def study_case(path: Path) -> Verdict:
    """Read, resolve, and lay out its cells, as ``plan`` does before it measures."""
    spec = parse(read(str(path)), path.name)
    if parse(spec.document()) != spec:
        return "the resolved study does not read back as itself"
    if spec.data.name == "arrays" and spec.levels * len(spec.seeds) * len(spec.branches) < 10_000:
        study = sl.Study(read(str(path)), out=path.parent / "runs")
        graph, _ = study.cells
        if not graph.nodes:
            return "no cells"
    return "understood"


def study_files(folder: Path, n: int, rng: random.Random) -> Counter[Verdict]:
    """Half from a small study, half from the presets; one in eight has its bytes changed and not its lines."""
    presets = Path(sl.__file__).parent / "presets"
    small = STUDY.format(root=arrays(folder))
    texts = [small] * len(preset_names()) + [(presets / f"{name}.toml").read_text() for name in preset_names()]
    found: Counter[Verdict] = Counter()
    for i in range(n):
        text, path = rng.choice(texts), folder / f"study-{i}.toml"
        path.write_bytes(
            bytes_changed(text.encode(), rng) if rng.random() < 1 / 8 else text_changed(text, rng).encode()
        )
        found[tried(lambda path=path: study_case(path))] += 1
        path.unlink()
    return found


def a_run(folder: Path, more: str = "") -> sl.Result:
    """A finished run of the small study, with ``more`` keys of its groups."""
    path = folder / "tiny.toml"
    path.write_text(STUDY.format(root=arrays(folder)) + more)
    return sl.Study(str(path), out=folder / "runs").run(jobs=1, report=False)


def tickets(folder: Path, n: int, rng: random.Random) -> Counter[Verdict]:
    """A ticket with both its points; what loads must be that ticket."""
    true = a_run(folder).ticket("imp", 1)
    true.save(folder / "true.safetensors", end=True)
    data, path = (folder / "true.safetensors").read_bytes(), folder / "changed.safetensors"
    expected = Ticket.load(folder / "true.safetensors")

    def case() -> Verdict:
        got = Ticket.load(path)
        same = torch.equal(got.mask, expected.mask) and torch.equal(got.start.theta, expected.start.theta)
        same = same and torch.equal(got.end.theta, expected.end.theta) and got.about == expected.about
        return "understood" if same else "another ticket was read as good"

    found: Counter[Verdict] = Counter()
    for _ in range(n):
        path.write_bytes(bytes_changed(data, rng))
        found[tried(case)] += 1
    return found


def store_entries(folder: Path, n: int, rng: random.Random) -> Counter[Verdict]:
    """Entries and objects of a finished run; what is read must be what was written, or nothing."""
    result = a_run(folder)
    root = folder / "runs" / ".store"
    files = sorted(p for part in ("cells", "objects") for p in (root / part).rglob("*") if p.is_file())
    true = {path: path.read_bytes() for path in files}
    keys = {path: path.name.partition(".")[0] for path in files}
    store = Store(root)
    entries = {path: store.read_entry(keys[path]) for path in files if path.suffix == ".json"}
    assert all(entries.values())
    assert len(result.failures) == 0

    def case(path: Path) -> Verdict:
        store = Store(root)
        if path in entries:
            got = store.read_entry(keys[path])
            if got is None:
                return "refused"
            return "understood" if got == entries[path] else "another entry was read as good"
        return "understood" if store.get(keys[path]) == true[path] else "another object was read as good"

    found: Counter[Verdict] = Counter()
    for _ in range(n):
        path = rng.choice(files)
        path.write_bytes(bytes_changed(true[path], rng))
        found[tried(lambda path=path: case(path))] += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(true[path])
    return found


def data_files(folder: Path, n: int, rng: random.Random) -> Counter[Verdict]:
    """An .npz, a .safetensors and a folder of images. What loads must pass the checks of any data."""
    from PIL import Image
    from safetensors.numpy import save_file

    npz = arrays(folder)
    with np.load(npz) as file:
        named = {name: file[name] for name in file.files}
    save_file(named, folder / "data.safetensors")
    pictures = folder / "pictures"
    for i in range(12):
        place = pictures / ("train" if i < 8 else "test") / "ab"[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(named["train_x"][i]).save(place)
    images = sorted(pictures.rglob("*.png"))

    def case(source: str, root: Path) -> Verdict:
        check(load(source, root=root, **({"size": 6} if source == "folder" else {})))
        return "understood"

    found: Counter[Verdict] = Counter()
    for _ in range(n):
        path = rng.choice([npz, folder / "data.safetensors", *images[:2]])
        true = path.read_bytes()
        path.write_bytes(bytes_changed(true, rng))
        picture = path.suffix == ".png"
        source, root = ("folder", pictures) if picture else ("arrays", path)
        found[tried(lambda source=source, root=root: case(source, root))] += 1
        path.write_bytes(true)
    return found


KINDS = {"study files": study_files, "tickets": tickets, "store entries": store_entries, "data files": data_files}


def fuzz(share: float = 1.0, seed: int = 0) -> dict[str, Counter[Verdict]]:
    """All kinds; how often each came to each end. ``share`` of COUNTS, at least ten of each."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fuzz_net.py").write_text(NET)
        canary = folder / "ran"
        (folder / "canary.py").write_text(f"open({str(canary)!r}, 'w')\n\n\ndef run():\n    pass\n")
        sys.path.insert(0, str(folder))
        try:
            for kind, case in KINDS.items():
                own = folder / kind.replace(" ", "-")
                own.mkdir()
                rng = random.Random(f"{seed}:{kind}")
                found[kind] = case(own, max(10, round(share * COUNTS[kind])), rng)
                if kind != "study files" and canary.exists():
                    found[kind]["code was run"] += 1
                canary.unlink(missing_ok=True)  # a study file that names it as its network may run it
        finally:
            sys.path.remove(str(folder))
            for module in ("fuzz_net", "canary"):
                sys.modules.pop(module, None)
    return found


def wrong(found: dict[str, Counter[Verdict]]) -> dict[str, dict[Verdict, int]]:
    """What should not have been."""
    good = ("refused", "understood")
    bad = {kind: {v: n for v, n in counts.items() if v not in good} for kind, counts in found.items()}
    return {kind: counts for kind, counts in bad.items() if counts}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from common import record

    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    found = fuzz(share)
    print(json.dumps(found, indent=1))
    if share == 1.0:
        record(
            "fuzz", __file__, {"cases": {kind: dict(counts) for kind, counts in found.items()}, "wrong": wrong(found)}
        )
    sys.exit(bool(wrong(found)))
