"""A workshop with a tiny network, tiny data and a tiny study, and ways to run commands in it as a person would."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import gpus
from sublevel.cli import main
from sublevel.cli.output import console

NET = '''
import os
import time

from torch import nn


class Net(nn.Module):
    """A convolution with BatchNorm, a linear layer. Stands still in training while the file in $TINY_PAUSE exists.

    A batch of two is no training: with two examples the run asks beforehand which parameters the loss uses.
    """

    def __init__(self, classes, width):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width * 16, classes)

    def forward(self, x):
        pause = os.environ.get("TINY_PAUSE", "")
        if self.training and len(x) > 2 and os.path.exists(pause):
            with open(f"{pause}.{os.getpid()}", "w"):
                pass
            while os.path.exists(pause):
                time.sleep(0.02)
        return self.linear(self.norm(self.conv(x)).relu().flatten(1))


def tiny(classes, width=4):
    return Net(classes, width)
'''

STUDY = """
name = "tiny"
seeds = [3, 5]
levels = 2
fraction = 0.4
rewind = "2it"
branches = ["imp", "oneshot", "finetune", "finetune-mask", "reinit", "random-prune"]
[data]
name = "arrays"
root = "data.npz"
validation = 40
[model]
name = "tiny_net:tiny"
[train]
epochs = 2
batch_size = 50
lr = 0.05
[geometry.legs]
branches = ["imp"]
[geometry.paths]
points = 3
refine = 0
successive = { branches = ["imp"] }
orders = { branches = ["imp"], levels = [1] }
to_dense = { branches = ["finetune"] }
[geometry.spectra]
branches = ["imp"]
levels = [1]
k = 2
steps = 12
restarts = 0
negative = 1
"""

SMALL = """
name = "small"
levels = 2
fraction = 0.4
rewind = "1it"
branches = ["imp", "finetune"]
[data]
name = "arrays"
root = "data.npz"
validation = 40
[model]
name = "tiny_net:tiny"
[train]
epochs = 1
batch_size = 50
lr = 0.05
"""


def furnish(folder: Path) -> Path:
    """Put the network, the data and the studies into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny_net.py").write_text(NET)
    (folder / "tiny.toml").write_text(STUDY)
    (folder / "small.toml").write_text(SMALL)
    np.savez(folder / "data.npz", **arrays())
    return folder


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Three noisy patterns of 6 x 6 pixels, 240 to train on and 60 to test."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 256, (3, 6, 6))
    out = {}
    for split, n in (("train", 240), ("test", 60)):
        y = np.arange(n) % 3
        x = patterns[y] * 0.5 + rng.normal(64, 60, (n, 6, 6))
        out |= {f"{split}_x": x.clip(0, 255).astype(np.uint8), f"{split}_y": y.astype(np.int64)}
    return out


def environment(**more: str) -> dict[str, str]:
    """One thread, no terminal, and a mark by which a process and its children can be found again."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TINY_")}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "TINY_MARK": uuid.uuid4().hex} | more


def with_gpus() -> dict[str, str]:
    """The same where GPUs are seen."""
    seen = environment() | gpus.shown()
    return {name: value for name, value in seen.items() if value is not None}


WITHOUT_PAGE = """
from pathlib import Path
import sublevel.report
from sublevel.cli import main


def write(tables, summary, out, *, page, **_):
    (Path(out) / page).touch()
    return Path(out) / page


sublevel.report.write = write
main()
"""
"""The command, with an empty file for the page of a run: drawing its figures takes longer than a tiny study."""


def command(*arguments: object, page: bool) -> list[object]:
    """The arguments of Python for a command; of a study no figures for print, and a page if it is looked at."""
    if arguments[:1] != ("run",):
        return ["-m", "sublevel.cli", *arguments]
    quick = () if "--figures" in arguments else ("--no-figures",)
    return [*(("-m", "sublevel.cli") if page else ("-c", WITHOUT_PAGE)), *arguments, *quick]


def cli(
    *arguments: object, cwd: Path, timeout: float = 120, page: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return python(*command(*arguments, page=page), cwd=cwd, timeout=timeout, **more)


def inside(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, which need not import everything again."""
    out, err = io.StringIO(), io.StringIO()
    console.cache_clear()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "path", [str(cwd), *sys.path])
        with pytest.raises(SystemExit) as end:
            main(list(map(str, arguments)))
    sys.modules.pop("tiny_net", None)
    console.cache_clear()
    return subprocess.CompletedProcess(arguments, cast(int, end.value.code), out.getvalue(), err.getvalue())


def python(*arguments: object, cwd: Path, timeout: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**more), timeout=timeout, capture_output=True, text=True, check=False
    )


class Running:
    """A command under way, in a process group of its own."""

    def __init__(self, *arguments: object, cwd: Path, **more: str) -> None:
        self.environment = environment(**more)
        self.mark = self.environment["TINY_MARK"]
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command(*arguments, page=False))],
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )

    def kill_group(self) -> None:
        """kill -9 of the whole process group, as a job scheduler would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def end(self, timeout: float = 120) -> tuple[int, str, str]:
        """Wait for the end: exit code, output, errors."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def alive(self) -> list[int]:
        """All living processes that were started by this command, itself included."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _marked(pid, self.mark)]


def _marked(pid: int, mark: str) -> bool:
    try:
        living = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return living and f"TINY_MARK={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def until(condition: Callable[[], object], seconds: float = 60) -> object:
    """Wait until something is so, and return it; fail after some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not come true in {seconds} s")


def paused(pause: Path) -> list[int]:
    """The processes that stand still in a forward pass of training."""
    return [int(p.suffix[1:]) for p in pause.parent.glob(f"{pause.name}.*")]


def tables(run: Path) -> dict[str, bytes]:
    """The bytes of every table."""
    return {p.name: p.read_bytes() for p in sorted((run / "tables").glob("*.csv"))}


def entries(store: Path) -> list[Path]:
    """The entries of a store."""
    return sorted((store / "cells").glob("??/*.json"))


def objects(store: Path) -> list[Path]:
    """The objects of a store."""
    return sorted((store / "objects").glob("??/*"))


def finished(factory: pytest.TempPathFactory) -> Path:
    """A workshop in which the tiny study was run once, by one job. Copy it before changing it.

    It is run once for all processes of pytest-xdist; each has a copy.
    """
    own = factory.getbasetemp() / "finished"
    shared = own.parent.parent / "finished" if "PYTEST_XDIST_WORKER" in os.environ else own
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "output.txt").exists():
            done = cli("run", "tiny.toml", "--jobs", 1, cwd=furnish(shared), page=True)
            assert done.returncode == 0, done.stderr + done.stdout
            (shared / "output.txt").write_text(done.stdout)
        return own if own.exists() else Path(shutil.copytree(shared, own))
