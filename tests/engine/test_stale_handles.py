"""A file server that forgets its handles (ESTALE) under a real run, in all of its processes: nothing whole is moved."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sublevel as sl
from sublevel.engine.store import Store
from sublevel.study.result import to_csv
from tiny_runs import Running, cli, furnish, until

SOURCE = Path(__file__).with_name("stale.c")
RUN = ("run", "small.toml", "--jobs", 2)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="the server is a library made by gcc"
)


@pytest.fixture
def server(tmp_path: Path) -> dict[str, str]:
    """The environment in which calls on the store fail now and then."""
    library = tmp_path / "stale.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"], check=True)
    names = {"STALE_BELOW": "work/sublevel-runs/.store", "STALE_ALL": "all", "STALE_LOG": "log"}
    return {"LD_PRELOAD": str(library)} | {name: str(tmp_path / value) for name, value in names.items()}


@pytest.mark.full
def test_a_run_meets_stale_handles_and_then_nothing_else(
    tmp_path: Path, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call in fifty fails from the start, every call once two entries are there; then the server is back."""
    work = furnish(tmp_path / "work")
    at, met = work / "sublevel-runs" / ".store", tmp_path / "log"
    running = Running(*RUN, cwd=work, STALE_RATE="20", **server)
    until(lambda: len(list(at.glob("cells/??/*.json"))) >= 2 or running.process.poll() is not None)
    (tmp_path / "all").touch()
    code, out, err = running.end()
    assert met.stat().st_size > 10
    assert code == 2, (out, err)
    assert "Stale file handle" in err
    assert "Traceback" not in out + err
    before = {path: path.read_bytes() for path in at.rglob("*") if path.parts[-3] in ("cells", "objects")}
    assert len(before) >= 4
    assert Store(at).damaged() == []

    again = cli(*RUN, cwd=work)
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert Store(at).damaged() == []
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    alone = sl.Study("small.toml", out="alone").run(jobs=1, report=False)
    for name in ("levels", "history"):
        found = (work / "sublevel-runs" / "small" / "tables" / f"{name}.csv").read_text()
        assert found == to_csv(getattr(alone, name)), name


@pytest.mark.full
@pytest.mark.parametrize("rate", [5, 20, 60, 200])
def test_a_run_ends_well_or_in_a_sentence_however_often_handles_are_stale(
    tmp_path: Path, server: dict[str, str], rate: int
) -> None:
    work = furnish(tmp_path / "work")
    at = work / "sublevel-runs" / ".store"
    for _ in range(3):
        done = cli(*RUN, cwd=work, timeout=300, STALE_RATE=str(rate), **server)
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert done.returncode == 0 or "Stale file handle" in done.stderr
        assert Store(at).damaged() == []
    assert cli(*RUN, cwd=work).returncode == 0
