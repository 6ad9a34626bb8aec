"""What fails keeps its reason, stops only what needs it, and is not tried in vain."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from tiny_runs import cli, python

pytestmark = pytest.mark.slow


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "tables" / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_branch_that_diverges_stops_no_other(workshop: Path) -> None:
    """finetune is sent to infinity; imp and the dense network are none of its business."""
    run = workshop / "sublevel-runs" / "small"
    command = ("run", "small.toml", "--set", "finetune_lr=1e38", "--jobs", 1)
    done = cli(*command, cwd=workshop, page=True)
    assert done.returncode == 1, done.stderr
    assert "failed: train/finetune/L1/s0: training diverged" in done.stdout
    failures = {row["cell"]: row for row in table(run, "failures")}
    assert failures["train/finetune/L1/s0"]["kind"] == "diverged"
    assert "lower lr" in failures["train/finetune/L1/s0"]["error"]
    assert failures["solution/finetune/L1/s0"]["kind"] == "skipped"
    assert "train/finetune/L1/s0" in failures["solution/finetune/L1/s0"]["error"]
    solutions = {(row["branch"], row["level"]) for row in table(run, "levels")}
    assert solutions == {("dense", "0"), ("imp", "1"), ("imp", "2")}
    assert "training diverged" in (run / "report.html").read_text(encoding="utf-8")

    again = cli(*command, cwd=workshop)
    assert again.returncode == 1
    assert "to run" not in again.stdout, "what diverged would diverge again"


@pytest.mark.parametrize("epochs", [1, pytest.param("1it", marks=pytest.mark.full)])
def test_a_dense_network_that_diverges(workshop: Path, epochs: int | str) -> None:
    """Everything needs it. With a single step the loss on the way is finite and only the end point is not."""
    length = f"train.length={epochs}" if isinstance(epochs, str) else f"train.epochs={epochs}"
    done = cli(
        "run", "small.toml", "--set", "train.lr=1e38", "--set", length, "--set", "rewind=0it", cwd=workshop, page=True
    )
    run = workshop / "sublevel-runs" / "small"
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "failed: train/dense/L0/s0: training diverged" in done.stdout
    assert table(run, "levels") == []
    kinds = [row["kind"] for row in table(run, "failures")]
    assert kinds.count("diverged") == 1
    assert set(kinds) == {"diverged", "skipped"}
    assert "training diverged" in (run / "report.html").read_text(encoding="utf-8")


OWN = """
import os
from tiny_net import Net


class Fussy(Net):
    def forward(self, x):
        if float((self.linear.weight == 0).float().mean()) > 0.5:
            {trouble}
        return super().forward(x)


def fussy(classes):
    return Fussy(classes, 4)
"""


def own(workshop: Path, trouble: str) -> tuple[str, ...]:
    (workshop / "fussy_net.py").write_text(OWN.format(trouble=trouble))
    return ("run", "small.toml", "--set", "model.name=fussy_net:fussy", "--set", 'branches=["imp"]')


def test_own_code_that_raises_at_some_weights(workshop: Path) -> None:
    """At level 2 only; the message of the exception is kept, and the cell is tried again after the code is mended."""
    command = own(workshop, "raise ArithmeticError('too few weights')")
    done = cli(*command, "--jobs", 1, cwd=workshop, page=True)
    assert done.returncode == 1, done.stderr
    run = workshop / "sublevel-runs" / "small"
    failures = {row["cell"]: row for row in table(run, "failures")}
    assert failures["train/imp/L2/s0"]["error"] == "ArithmeticError: too few weights"
    assert {row["branch"] for row in table(run, "levels")} == {"dense", "imp"}
    assert "too few weights" in (run / "report.html").read_text(encoding="utf-8")
    own(workshop, "pass")
    assert cli(*command, "--jobs", 1, cwd=workshop).returncode == 0
    assert table(run, "failures") == []


@pytest.mark.full
def test_a_worker_that_dies_every_time_is_a_failed_cell(workshop: Path) -> None:
    """As by running out of memory: three attempts, then the reason, and the others go on."""
    done = cli(*own(workshop, "os.kill(os.getpid(), 9)"), "--jobs", 2, cwd=workshop, timeout=180)
    assert done.returncode == 1, done.stderr
    run = workshop / "sublevel-runs" / "small"
    failures = {row["cell"]: row for row in table(run, "failures")}
    assert failures["train/imp/L2/s0"]["kind"] == "worker"
    assert "SIGKILL" in failures["train/imp/L2/s0"]["error"]
    assert len(table(run, "levels")) == 2


@pytest.mark.full
def test_damaged_data_of_ones_own_heal(workshop: Path) -> None:
    """Tensors given in Python travel to the workers through the store; a damaged copy is replaced."""
    script = workshop / "own_data.py"
    script.write_text(
        "import sys, numpy as np, torch, sublevel as sl\n"
        "a = {k: torch.from_numpy(v) for k, v in np.load('data.npz').items()}\n"
        "pair = lambda s: (a[f'{s}_x'][:, None], a[f'{s}_y'])\n"
        "problem = sl.Problem('tiny_net:tiny', train=pair('train'), test=pair('test'), validation=40)\n"
        "study = sl.Study(problem, seeds=[int(sys.argv[1])], levels=1, train={'length': '2it', 'batch_size': 50})\n"
        "result = study.run(jobs=2, report=False)\n"
        "print(len(result.failures), result.document['problem']['stored'])\n"
    )
    first = python(script, 0, cwd=workshop)
    assert first.stdout.startswith("0 "), first.stderr
    name = first.stdout.split()[1]
    path = workshop / "sublevel-runs" / ".store" / "objects" / name[:2] / name
    path.write_bytes(path.read_bytes()[:-1])
    second = python(script, 1, cwd=workshop)
    assert second.stdout.startswith("0 "), (second.stdout, second.stderr)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
from sublevel.cli import main
main(sys.argv[1:])
"""


ONLY_WORKERS = """
import os, resource, sys
if "sublevel.engine.worker" in sys.orig_argv:
    resource.setrlimit(resource.RLIMIT_AS, (int(os.environ["LIMIT"]) * 2**20,) * 2)
"""


@pytest.mark.full
@pytest.mark.parametrize("limit", [40, 300, 550, 650, 1500])
def test_workers_alone_under_a_limit_of_memory(workshop: Path, tmp_path: Path, limit: int) -> None:
    """The command is free: the cell fails with a reason where its libraries or its weights do not fit; others go on."""
    (tmp_path / "sitecustomize.py").write_text(ONLY_WORKERS)
    more = {"LIMIT": str(limit), "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = own(workshop, "__import__('torch').ones(2**32, dtype=__import__('torch').uint8)")
    done = cli(*command, "--jobs", 2, cwd=workshop, timeout=900, **more)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    run = workshop / "sublevel-runs" / "small"
    (reason,) = [row["error"] for row in table(run, "failures") if row["kind"] != "skipped"]
    assert reason
    assert limit < 1000 or ("memory" in reason and {row["branch"] for row in table(run, "levels")} == {"dense", "imp"})
    own(workshop, "pass")
    assert cli(*command, "--jobs", 2, cwd=workshop).returncode == 0
    assert table(run, "failures") == []


STANDS_STILL = """
import re, resource, sys, time
from sublevel.engine import worker
worker.STILL = 1.5
resource.setrlimit(resource.RLIMIT_AS, (eval(sys.argv[1]),) * 2)
worker._end_if_still()
while time.process_time() < 3:
    pass
re.match("(a|a)*b", "a" * int(sys.argv[2]))  # no other thread gets its turn
"""


@pytest.mark.parametrize(("limit", "letters", "code"), [("2**33", 40, 1), ("2**33", 2, 0), ("-1", 2, 0)])
def test_a_worker_that_stands_still_under_a_limit_of_memory_ends(
    tmp_path: Path, limit: str, letters: int, code: int
) -> None:
    """CPython does so where no memory is left for an exception: a run once waited for ever, and so did its orphans."""
    done = python("-c", STANDS_STILL, limit, letters, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert ("Timeout" in done.stderr) == bool(code)


@pytest.mark.parametrize("kib", [30_000, 40_000, 300_000])
def test_a_limit_too_small_for_the_libraries_is_one_sentence(workshop: Path, kib: int) -> None:
    limited = LIMITED.replace("8 * 2**30", str(kib * 1024))
    done = python("-c", limited, "plan", "small.toml", cwd=workshop)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.fullmatch(r"sublevel: not enough memory( in the \d+ MiB of this process.*)?\n", done.stderr)


@pytest.mark.full
def test_workers_under_a_limit_of_memory(workshop: Path) -> None:
    """As by `ulimit -v`: the cell fails with the reason, nothing is damaged, and a run without the limit goes on."""
    command = own(workshop, "__import__('torch').ones(2**34, dtype=__import__('torch').uint8)")
    done = python("-c", LIMITED, *command, "--no-figures", "--jobs", 2, cwd=workshop, timeout=300)
    assert done.returncode == 1, done.stderr
    run = workshop / "sublevel-runs" / "small"
    failures = {row["cell"]: row for row in table(run, "failures")}
    assert "memory" in failures["train/imp/L2/s0"]["error"]
    assert {row["branch"] for row in table(run, "levels")} == {"dense", "imp"}
    assert cli("verify", cwd=workshop).returncode == 0
    own(workshop, "pass")
    assert cli(*command, "--jobs", 2, cwd=workshop).returncode == 0
    assert table(run, "failures") == []
