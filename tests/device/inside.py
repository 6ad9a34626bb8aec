"""python inside.py OUT.json PART...: parts of the tests, in a process whose ``cuda`` is the pretend device.

With SUBLEVEL_REAL_GPU=1 it is the real one, and nothing is counted. OUT.json gets what each part found, by its name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "study" / "golden")]

REAL = os.environ.get("SUBLEVEL_REAL_GPU") == "1"
if REAL:
    machine: Any = None
else:
    import pretend

    machine = pretend.start()

import mutants  # noqa: E402

import tiny_runs  # noqa: E402


@contextlib.contextmanager
def counted(found: dict[str, Any]) -> Iterator[None]:
    """Put what the device sees inside into ``found``."""
    if machine is None:
        yield
        return
    machine.seen.__init__()
    yield
    seen = machine.seen
    found |= {"launched": seen.launched, "waits": dict(seen.waits), "tf32": dict(seen.tf32)}
    found |= {"unordered": dict(seen.unordered)}


def study(name: str, out: str, device: str = "cuda") -> dict[str, Any]:
    """Run a study file of the working folder, by one job; its tables are in OUT/NAME."""
    from sublevel.cli import main

    code = 0
    try:
        main(["run", f"{name}.toml", "--device", device, "--jobs", "1", "--out", out, "--no-figures"])
    except SystemExit as end:
        code = int(end.code or 0)
    return {"code": code, "run": str(Path(out, name).resolve())}


def tiny(engine: str) -> dict[str, Any]:
    """The tiny study under an engine."""
    text = tiny_runs.STUDY.replace("lr = 0.05", f'lr = 0.05\nengine = "{engine}"')
    Path("tiny.toml").write_text(text)
    return study("tiny", f"on-device-{engine}")


def small(steps: str) -> dict[str, Any]:
    """A small study whose epoch has so many steps."""
    name, size = f"steps{steps}", 200 // int(steps)
    text = tiny_runs.SMALL.replace('"small"', f'"{name}"').replace("batch_size = 50", f"batch_size = {size}")
    Path(f"{name}.toml").write_text(text)
    return study(name, name)


def every(name: str) -> dict[str, Any]:
    """The study with every measurement, branch and criterion, under ENGINE@DEVICE."""
    from test_golden_tables import tables

    from sublevel.prune.registry import SCORES

    engine, _, device = name.partition("@")
    folder = Path(f"every-{name}").resolve()
    return {"tables": tables(folder, device, *sorted(SCORES), dtype="float32", engine=engine)}


def mutant(name: str) -> dict[str, Any]:
    """A small study under the engine of graphs, with a fault in the package; without one where it is `none`."""
    rates = 'engine = "graph"\nwarmup = "2it"'
    text = tiny_runs.SMALL.replace("lr = 0.05", f"lr = 0.05\n{rates}").replace("epochs = 1", "epochs = 2")
    Path("small.toml").write_text(text)
    if name == "host":
        Path("small.toml").write_text(text.replace('engine = "graph"\n', ""))
        return study("small", "on-host", "cpu")
    with mutants.made(name):
        return study("small", f"mutant-{name}")


def snippets(page: str) -> dict[str, Any]:
    """The code of a page of the docs, with every problem on the device: what it prints, and what the page says."""
    import sublevel.report
    import test_docs
    from sublevel import Problem

    defaults = Problem.__init__.__defaults__
    desk = Path(tempfile.mkdtemp(dir="."))
    test_docs.furnish(desk)
    test_docs.TEXTS[page], _, rest = test_docs.TEXTS[page].partition(ON_THE_HOST)
    assert rest or page != "own-network.md", f"{page} has no heading {ON_THE_HOST.strip()!r}"
    sys.path.insert(0, str(desk.resolve()))
    before, write = Path.cwd(), sublevel.report.write
    os.chdir(desk)
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"  # one job: no worker processes
    try:
        Problem.__init__.__defaults__ = tuple("cuda" if d == "cpu" else d for d in defaults)
        sublevel.report.write = test_docs.no_report
        with test_docs.registries_kept():
            done = list(test_docs.run(page, Path.cwd()))
    finally:
        Problem.__init__.__defaults__, sublevel.report.write = defaults, write
        os.chdir(before)
        sys.path.remove(str((before / desk).resolve()))
        sys.modules.pop("my_nets", None)
    return {"snippets": [(printed.rstrip(), expected.rstrip()) for _, printed, expected in done]}


def check(name: str) -> dict[str, Any]:
    """A function of `checks`."""
    import checks

    getattr(checks, name)(machine)
    return {}


ON_THE_HOST = "\n## Tickets in your own training code"
"""From here on a page trains a network of the reader's, which lies on the CPU."""

PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "tiny": tiny, "small": small, "every": every, "mutant": mutant, "snippets": snippets, "check": check,
}  # fmt: skip


def main(out: str, *parts: str) -> None:
    """Run the parts, ``KIND:NAME`` each, and write what they found."""
    results: dict[str, dict[str, Any]] = {}
    for part in parts:
        kind, _, name = part.partition(":")
        found: dict[str, Any] = {}
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), counted(found):
            try:
                found |= PARTS[kind](name)
            except Exception:
                found["fault"] = traceback.format_exc()
        results[part] = found | {"said": said.getvalue()[-6000:]}
    Path(out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
    if not REAL:  # autograd's threads may still drop tensors that are Python objects, and abort as Python ends
        os._exit(0)  # https://github.com/pytorch/pytorch/issues/38228
