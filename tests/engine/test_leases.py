"""A cell is computed by one run at a time; what a dead run held is taken over; nothing is decided by local clocks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sublevel.engine.store import Folder, Leases, Store
from sublevel.engine.store.content import sealed
from sublevel.engine.store.leases import machine, standing
from sublevel.errors import ConfigError, StoreError
from tiny_runs import Running, entries, paused, tables, until

KEY = "ab" * 32


@pytest.fixture
def files(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def names(files: Folder) -> list[str]:
    return [file.name for file in files.files("leases/")]


def foreign(files: Folder, generation: int = 0, silent: float = 0.0, **about: object) -> Path:
    """A lease of a run on another machine, which was silent for some seconds."""
    said = {"run": "x", "seconds": 60.0, "machine": "another", "pid": 1, "born": ""} | about
    assert files.create(f"leases/{KEY}.{generation}", sealed(said))
    path = files.path / "leases" / f"{KEY}.{generation}"
    os.utime(path, (files.now() - silent,) * 2)
    return path


def test_one_of_two_has_the_cell_and_gives_it_back(files: Folder) -> None:
    with Leases(files) as one, Leases(files) as two:
        assert one.claim(KEY)
        assert not two.claim(KEY)
        assert not one.claim(KEY), "a run does not get twice what it has"
        assert two.claim("cd" * 32)
        one.release(KEY)
        assert two.claim(KEY)
        assert names(files) == [f"leases/{KEY}.0", f"leases/{'cd' * 32}.0"]
    assert names(files) == [], "what was held at the end is given back"


def test_many_that_try_at_once_and_one_that_succeeds(files: Folder) -> None:
    """Thirty cells; some of them have a stale lease, which every one of the eight wants to take over."""
    for n in range(30):
        key = f"{n:064x}"
        if n % 2:
            files.create(f"leases/{key}.4", sealed({"seconds": 60, "machine": "another"}))
            os.utime(files.path / "leases" / f"{key}.4", (1, 1))
        runs = [Leases(files) for _ in range(8)]
        gate = threading.Barrier(8)

        def claim(leases: Leases, key: str = key, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return leases.claim(key)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, runs)) <= 1
        assert sum(leases.claim(key) for leases in runs) <= 1
        assert len(standing(files, key)) == 1 + n % 2


@pytest.mark.parametrize(("silent", "taken"), [(0, False), (59, False), (61, True), (1e6, True), (-3600, False)])
def test_silence_is_measured_by_the_clock_of_the_store(
    files: Folder, silent: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this machine is a year ahead, and nobody asks it."""
    foreign(files, silent=silent)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert Leases(files).claim(KEY) is taken
    assert names(files) == [f"leases/{KEY}.{n}" for n in range(1 + taken)]


def test_a_lease_that_is_taken_over_is_removed_with_its_successor(files: Folder) -> None:
    foreign(files, generation=9, silent=100)
    with Leases(files) as leases:
        assert leases.claim(KEY)
        assert names(files) == [f"leases/{KEY}.10", f"leases/{KEY}.9"]
    assert names(files) == []


@pytest.mark.parametrize("content", [b"", b"{", sealed({})[:-3] + b'0"}'])
def test_a_lease_that_cannot_be_read_is_respected_for_a_while(files: Folder, content: bytes) -> None:
    """It is not filled yet, or a power cut has left it."""
    files.create(f"leases/{KEY}.0", content)
    assert not Leases(files, seconds=20).claim(KEY)
    os.utime(files.path / "leases" / f"{KEY}.0", (files.now() - 21,) * 2)
    assert Leases(files, seconds=20).claim(KEY)


def test_a_heart_beats_while_the_run_computes(files: Folder) -> None:
    with Leases(files, seconds=0.5) as one:
        assert one.claim(KEY)
        begun = standing(files, KEY)[0].modified
        ends = time.monotonic() + 1.2
        while time.monotonic() < ends:
            sum(range(20_000))  # Python that lets other threads in only now and then
            assert not Leases(files).claim(KEY)
        assert standing(files, KEY)[0].modified > begun + 0.5


def process(code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_process_that_is_dead_on_this_machine_is_not_waited_for(files: Folder) -> None:
    """Alive, then a zombie, then gone, then another one with the same number."""
    child = process()
    born = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    foreign(files, machine=machine(), pid=child.pid, born=born)
    assert not Leases(files).claim(KEY)
    child.kill()
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert Leases(files).claim(KEY)
    child.wait()
    files.remove(f"leases/{KEY}.1")
    assert Leases(files).claim(KEY)
    files.remove(f"leases/{KEY}.1")
    files.remove(f"leases/{KEY}.0")
    foreign(files, machine=machine(), pid=os.getpid(), born="0")
    assert Leases(files).claim(KEY)


def test_the_seconds_of_a_lease_are_a_number(files: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("soon", "0.1", "inf"):
        monkeypatch.setenv("SUBLEVEL_LEASE", said)
        with pytest.raises(ConfigError, match=f"0.5 or more and at most 3600; got '{said}'"):
            Leases(files)


def test_where_no_lease_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "leases").write_bytes(b"in the way")
    with pytest.raises(StoreError, match="cannot write to the store"):
        Leases(Folder(tmp_path)).claim(KEY)


# --- Whole runs.


def computed(workshop: Path, out: str) -> int:
    return json.loads((workshop / out / "small" / "study.json").read_text())["last_run"]["computed"]


def run(workshop: Path, out: str, **more: str) -> Running:
    return Running("run", "small.toml", "--out", out, "--store", "shared", "--jobs", 1, cwd=workshop, **more)


@pytest.mark.slow
def test_two_runs_share_the_work(workshop: Path) -> None:
    """The first stands still in its first cell, so the second waits for it; then both go on. Every cell once."""
    pause = workshop / "pause"
    pause.touch()
    one = run(workshop, "one", TINY_PAUSE=str(pause))
    until(lambda: paused(pause))
    two = run(workshop, "two", TINY_PAUSE=str(pause))
    until(lambda: (workshop / "two").exists() and len(list((workshop / "shared" / "leases").iterdir())) >= 1)
    time.sleep(1.0)
    assert len(paused(pause)) == 1, "the second run began the cell that the first computes"
    pause.unlink()
    ended = [one.end(), two.end()]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "another run computes some of these cells" in ended[1][1]
    assert tables(workshop / "one" / "small") == tables(workshop / "two" / "small")
    assert computed(workshop, "one") + computed(workshop, "two") == len(entries(workshop / "shared"))
    assert list((workshop / "shared" / "leases").iterdir()) == []
    assert Store(workshop / "shared").damaged() == []


@pytest.mark.full
def test_what_a_killed_run_held_is_taken_over(workshop: Path) -> None:
    """Stopped as a machine that hangs, so that only its silence tells; then continued: it ends well, as the other."""
    pause = workshop / "pause"
    pause.touch()
    one = run(workshop, "one", TINY_PAUSE=str(pause), SUBLEVEL_LEASE="1")
    until(lambda: paused(pause))
    os.killpg(one.process.pid, signal.SIGSTOP)
    two = run(workshop, "two")
    code, out, err = two.end()
    assert code == 0, (out, err)
    assert computed(workshop, "two") == len(entries(workshop / "shared"))
    pause.unlink()
    os.killpg(one.process.pid, signal.SIGCONT)
    code, out, err = one.end()
    assert code == 0, (out, err)
    assert tables(workshop / "one" / "small") == tables(workshop / "two" / "small")
    assert computed(workshop, "one") == 1
