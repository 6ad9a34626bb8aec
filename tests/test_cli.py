"""The command line: exit codes, one clear sentence on standard error, and nothing written when the input is bad."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_runs
from sublevel.cli import main
from sublevel.presets import MINUTES
from sublevel.study.documents import preset_names
from tiny_runs import cli, entries, objects


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workshop where nothing has run yet, and the working directory."""
    folder = tiny_runs.furnish(tmp_path / "workshop")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def after(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workshop after the tiny study was run, and the working directory."""
    folder = Path(shutil.copytree(finished, tmp_path / "after"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> Said:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        return Said(end.value.code, *capsys.readouterr())

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }


def test_help_is_quick_and_short() -> None:
    code = (
        "import sys, sublevel.cli; sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for words in ((), ("--help",)):
        out = subprocess.run([sys.executable, "-m", "sublevel.cli", *words], capture_output=True, text=True, check=True)
        assert len(out.stdout.splitlines()) <= 40
        for command in ("run", "plan", "report", "ls", "verify", "doctor"):
            assert command in out.stdout


@pytest.mark.parametrize("command", ["run", "plan", "report", "ls", "verify", "gc", "export", "import", "doctor"])
def test_every_command_explains_itself(do, command: str) -> None:
    said = do(command, "--help")
    assert said.code == 0
    assert 3 < len(said.out.splitlines()) < 40


def test_help_names_every_preset_with_its_time(do) -> None:
    assert sorted(MINUTES) == preset_names()
    words = " ".join(do("--help").out.split())
    assert all((f"{name} {minutes}" if minutes else name) in words for name, minutes in MINUTES.items())


BAD: list[tuple[tuple[object, ...], str]] = [
    (("run",), "--study requires an argument"),
    (("rnu", "demo"), "rnu"),
    (("run", "demmo"), "did you mean 'demo'?"),
    (("run", "absent.toml"), "no study file absent.toml"),
    (("run", "tiny.toml", "--jbos", 2), "--jbos"),
    (("run", "tiny.toml", "--jobs", "many"), "many"),
    (("run", "tiny.toml", "--jobs", 0), "jobs must be at least 1, got 0"),
    (("run", "tiny.toml", "--jobs", -1), "jobs must be at least 1, got -1"),
    (("plan", "tiny.toml", "--jobs", 0), "jobs must be at least 1, got 0"),
    (("run", "tiny.toml", "--set", "levels"), "key=value"),
    (("run", "tiny.toml", "--set", "level=3"), "did you mean 'levels'?"),
    (("run", "tiny.toml", "--set", "train.lr=inf"), "lr must be positive and finite"),
    (("run", "tiny.toml", "--set", "levels=200"), "ask for fewer levels"),
    (("run", "tiny.toml", "--set", "data.name=arays"), "did you mean 'arrays'?"),
    (("run", "tiny.toml", "--set", "data.root=absent.npz"), "absent.npz"),
    (("run", "tiny.toml", "--set", "model.name=absent_net:f"), "no module 'absent_net'"),
    (("run", "tiny.toml", "--set", "model.name=tiny_net:tinny"), "did you mean 'tiny'?"),
    (("run", "tiny.toml", "--set", "model.options.widht=3"), "widht"),
    (("run", "small.toml", "--set", "branches=imp,onshot"), "did you mean 'oneshot'?"),
    (("run", "tiny.toml", "--device", "warp"), "warp"),
    (("run", "tiny.toml", "--store", "data.npz"), "not a store"),
    (("run", "tiny.toml", "--store", "."), "not a store"),
    (("run", "tiny.toml", "--store", "data.npz/inside"), "cannot write"),
    (("run", "tiny.toml", "--out", "data.npz"), "cannot write"),
    (("plan", "tiny.toml", "--set", "fraction=1"), "fraction"),
    (("report", "absent"), "not the folder of a run"),
    (("verify",), "there is no store"),
    (("gc",), "there is no store"),
    (("export", "tiny", "tiny.tar"), "there is no store"),
    (("import", "absent.tar"), "no archive and no store absent.tar"),
    (("import", "data.npz"), "data.npz cannot be imported"),
    (("import", "."), "there is no store"),
    (("ls", "absent"), "neither a run nor a key"),
    (("ls", "level=1", "lvl=2"), "a filter is field=value"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(map(str, a)) for a, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(do, shop: Path, arguments: tuple[object, ...], sentence: str) -> None:
    before = contents(shop)
    said = do(*arguments)
    assert said.code == 2
    assert sentence in said.err
    lines = said.err.rstrip("\n").split("\n")
    assert lines[0].startswith("sublevel: ")
    assert len(lines) == 1 or "model.name" in str(arguments), said.err
    assert said.out == "" or said.out.startswith("note: ")
    assert contents(shop) == before
    assert not (shop / "sublevel-runs").exists()


def folder_of_one_class(shop: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        (shop / "images" / split / "cat").mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((6, 6), 20 * i, np.uint8)).save(shop / "images" / split / "cat" / f"{i}.png")


def damaged_npz(shop: Path) -> None:
    data = bytearray((shop / "data.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (shop / "data.npz").write_bytes(bytes(data))


def truncated_npz(shop: Path) -> None:
    (shop / "data.npz").write_bytes((shop / "data.npz").read_bytes()[:1000])


def pickled_npz(shop: Path) -> None:
    np.savez(shop / "data.npz", **tiny_runs.arrays() | {"train_x": np.array([{}, {}], dtype=object)})


@pytest.mark.parametrize(
    ("spoil", "settings", "sentence"),
    [
        (folder_of_one_class, ["data.name=folder", "data.root=images"], "there is one class only, 'cat'"),
        (lambda shop: None, ["data.name=folder", "data.root=nowhere"], "does not exist"),
        (damaged_npz, [], "cannot be read"),
        (truncated_npz, [], "cannot be read"),
        (pickled_npz, [], "cannot be read"),
    ],
)
def test_bad_data_are_one_line(do, shop: Path, monkeypatch, spoil, settings: list[str], sentence: str) -> None:
    monkeypatch.setenv("SUBLEVEL_CACHE", str(shop.parent / "cache"))
    spoil(shop)
    options = [word for s in settings for word in ("--set", s)]
    said = do("run", "tiny.toml", *options)
    assert said.code == 2
    assert sentence in said.err
    assert len(said.err.splitlines()) == 1
    assert not (shop / "sublevel-runs").exists()


MODULES = {
    "broken_import": ("raise RuntimeError('the house is on fire')\n", "importing broken_import failed", "on fire"),
    "broken_syntax": ("def f(:\n", "importing broken_syntax failed", "broken_syntax.py"),
    "broken_call": ("def f(classes):\n    return 1 / 0\n", "ZeroDivisionError", "return 1 / 0"),
    "broken_forward": (
        "from torch import nn\nclass N(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.l = nn.Linear(7, 3)\n    def forward(self, x):\n        return self.l(x.flatten(1))\n\n\n"
        "def f():\n    return N()\n",
        "fails on inputs of shape [1, 6, 6]",
        "self.l(x.flatten(1))",
    ),
}


@pytest.mark.parametrize("module", MODULES)
def test_own_code_that_fails_shows_its_traceback_below_the_sentence(do, shop: Path, module: str) -> None:
    text, sentence, traceback = MODULES[module]
    (shop / f"{module}.py").write_text(text)
    said = do("run", "tiny.toml", "--set", f"model.name={module}:f")
    assert said.code == 2
    first, *rest = said.err.splitlines()
    assert first.startswith("sublevel: ")
    assert sentence in first
    assert traceback in "\n".join(rest)
    assert not (shop / "sublevel-runs").exists()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("nn.Sequential(nn.Flatten(), nn.Linear(36, 4))", "the data have 3 classes; expected [3]"),
        ("nn.Linear(6, 3)", "the data have 3 classes; expected [3]"),
        ("'a net'", "returned str"),
        ("nn.BatchNorm2d(1)", "expected [3]"),
        ("nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 12)), nn.AdaptiveAvgPool1d(1), nn.Flatten())", "no "),
    ],
)
def test_a_network_that_does_not_fit(do, shop: Path, body: str, sentence: str) -> None:
    name = f"misfit_{abs(hash(body))}"
    (shop / f"{name}.py").write_text(f"from torch import nn\n\n\ndef f():\n    return {body}\n")
    said = do("run", "tiny.toml", "--set", f"model.name={name}:f")
    assert said.code == 2
    assert sentence in said.err
    assert not (shop / "sublevel-runs").exists()


def test_a_run_says_what_it_did(finished: Path) -> None:
    words = (finished / "output.txt").read_text().splitlines()
    assert words[0].startswith("note: own code that would run: tiny_net:tiny (network, ")  # before it is imported
    assert words[1] == "138 cells: 0 in the store, 138 to run"
    assert words[-1] == "report: sublevel-runs/tiny/report.html"
    run = finished / "sublevel-runs" / "tiny"
    for name in ("report.html", "summary.json", "study.json", "tables/levels.csv", "tables/failures.csv"):
        assert (run / name).is_file(), name
    assert not (run / "figures").exists(), "it was asked for no figures"


def test_plan_counts(do, after: Path) -> None:
    said = do("plan", "tiny.toml", "--jobs", 3)
    assert said.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.startswith(("train", "mask"))}
    assert rows["train"] == ["28", "28", "0", "0"]
    assert "own code that would run: tiny_net:tiny" in said.out
    before = contents(after)
    more = do("plan", "tiny.toml", "--set", "seeds=[3, 5, 7]", "--jobs", 3)
    row = next(line.split() for line in more.out.splitlines() if line.startswith("train"))
    assert row == ["train", "42", "28", "0", "14"] or (int(row[1]), int(row[2])) == (42, 28)
    assert contents(after) == before


def test_plan_writes_nothing(do, shop: Path) -> None:
    before = contents(shop)
    assert do("plan", "small.toml").code == 0
    assert contents(shop) == before
    assert not (shop / "sublevel-runs").exists()


def test_ls(do, after: Path) -> None:
    assert "tiny_net:tiny" in do("ls").out
    every = do("ls", "tiny").out
    assert every.rstrip().endswith("138 cells")
    some = do("ls", "tiny", "kind=train", "branch=imp", "level=2").out
    assert some.rstrip().endswith("2 cells")
    assert "train/imp/L2/s3" in some
    assert do("ls", "kind=mask", "seed=5").out == do("ls", "tiny", "kind=mask", "seed=5").out
    assert do("ls", "sublevel-runs/tiny", "kind=spectrum").code == 0
    key = entries(after / "sublevel-runs" / ".store")[0].stem
    found = do("ls", key[:12])
    assert found.code == 0
    assert key[:12] in found.out
    assert do("ls", "tiny", "status=failed").out.rstrip().endswith("0 cells")
    assert do("ls", "--out", "elsewhere").out.strip() == "no runs in elsewhere"


def test_ls_a_run_that_is_damaged_does_not_hide_the_others(do, after: Path) -> None:
    runs = after / "sublevel-runs"
    shutil.copytree(runs / "tiny", runs / "other")
    (runs / "other" / "study.json").write_text("{")
    said = do("ls")
    assert "tiny_net:tiny" in said.out
    assert "other" in said.out + said.err


def test_verify(do, after: Path) -> None:
    store = after / "sublevel-runs" / ".store"
    good = do("verify")
    assert good.code == 0
    assert f"{len(entries(store))} entries" in good.out
    assert "0 not whole" in good.out
    victim = objects(store)[3]
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    cut = entries(store)[0]
    cut.write_bytes(cut.read_bytes()[:50])
    bad = do("verify", "--store", store)
    assert bad.code == 1
    assert f"damaged, set aside: {victim.name}" in bad.out
    assert f"damaged, set aside: {cut.name}" in bad.out
    assert "will be computed again" in bad.out
    assert not victim.exists()
    assert not cut.exists()


def test_doctor(do) -> None:
    said = do("doctor")
    assert "torch" in said.out
    assert said.code == (0 if "no problems" in said.out else 1)


@pytest.mark.skipif(torch.version.cuda is not None, reason="for a CPU build of PyTorch")
def test_doctor_finds_a_gpu_that_pytorch_cannot_use(do, tmp_path: Path, monkeypatch) -> None:
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: Some Card (UUID: GPU-1)'\n")
    listing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = do("doctor")
    assert said.code == 1
    assert "there is a GPU (GPU 0: Some Card), but this PyTorch is a CPU build" in said.out


@pytest.mark.slow
def test_report_again(do, after: Path) -> None:
    run = after / "sublevel-runs" / "tiny"
    before = contents(run)
    shutil.rmtree(run / "tables")
    (run / "report.html").unlink()
    assert do("report", "tiny", "--no-figures").code == 0
    again = contents(run)
    assert {n: t for n, t in again.items() if n != "summary.json"} == {
        n: t for n, t in before.items() if n != "summary.json"
    }


@pytest.mark.full
def test_figures_for_print_stand_beside_the_report(do, after: Path) -> None:
    assert do("report", "tiny").code == 0
    assert {p.suffix for p in (after / "sublevel-runs" / "tiny" / "figures").iterdir()} == {".svg", ".pdf"}


@pytest.mark.full
def test_a_full_disk_during_a_run_is_one_sentence(shop: Path) -> None:
    disk = shop / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        for jobs in (1, 2):
            done = cli("run", "tiny.toml", "--store", "disk/store", "--jobs", jobs, cwd=shop)
            assert done.returncode == 2
            assert done.stderr.count("\n") == 1, done.stderr
            assert "No space left" in done.stderr
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_output_into_a_closed_pipe(finished: Path) -> None:
    command = f"{sys.executable} -m sublevel.cli ls tiny | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=finished, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


DELETED = """
import os, sys
os.rmdir(os.getcwd())
import sublevel
try:
    sublevel.Problem
except sublevel.errors.ConfigError as error:
    print(error)
from sublevel.cli import main
main(["plan", "demo"])
"""


def test_a_deleted_working_folder_is_one_sentence(tmp_path: Path) -> None:
    """Importing torch there ends the process."""
    (tmp_path / "d").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DELETED], cwd=tmp_path / "d", capture_output=True, text=True, check=False
    )
    said = "the working folder was deleted: change to another one (cd) and try again\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, said, f"sublevel: {said}")
