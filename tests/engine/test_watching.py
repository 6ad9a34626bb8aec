"""What happens to cells is written down while it happens, can be seen from elsewhere, and reaches trackers."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import sublevel as sl
from sublevel.cli.status import status
from sublevel.cli.watching import Watching
from sublevel.engine.events import Event, finished
from sublevel.engine.graph import Node, Outcome
from sublevel.engine.log import lives, read_log
from sublevel.engine.progress import RunProgress
from sublevel.errors import ConfigError
from sublevel.processes import own
from tiny_runs import Running, cli, inside, paused, python, until

SMALL = Path("sublevel-runs") / "small"
FEW = ("run", "small.toml", "--set", "levels=1", "--set", 'branches=["imp"]')


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / SMALL / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def here(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workshop as the working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield workshop
    sys.modules.pop("tiny_net", None)


@pytest.mark.slow
def test_a_run_is_seen_from_another_terminal(workshop: Path) -> None:
    """What runs where, a worker that died and why, and in the end that it ended."""
    pause = workshop / "pause"
    pause.touch()
    running = Running(*FEW, "--jobs", 2, cwd=workshop, TINY_PAUSE=str(pause))
    (pid,) = until(lambda: paused(pause))
    until(lambda: len(rows(workshop)) >= 3)
    seen = inside("status", cwd=workshop)
    assert seen.returncode == 0, seen.stderr
    assert "small: running for " in seen.stdout
    assert f"(process {running.process.pid}), executor local" in seen.stdout
    assert "0/6 cells: 0 from the store" in seen.stdout
    assert f"train/dense/L0/s0  {os.uname().nodename}:{pid}" in seen.stdout
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(paused(pause)) == 2)
    pause.unlink()
    code, out, err = running.end()
    assert code == 0, (out, err)
    (again,) = (row for row in rows(workshop) if row["event"] == "retried")
    assert (again["cell"], again["error"]["kind"]) == ("train/dense/L0/s0", "worker")
    assert "SIGKILL" in again["error"]["message"]
    seen = inside("status", "small.toml", cwd=workshop)
    assert "6/6 cells" in seen.stdout
    assert ": done" in seen.stdout
    assert "tried again: train/dense/L0/s0: a worker process died: exit code -9" in seen.stdout


@pytest.mark.slow
def test_a_run_that_was_killed_is_not_said_to_live(workshop: Path) -> None:
    pause = workshop / "pause"
    pause.touch()
    running = Running("run", "small.toml", "--jobs", 1, cwd=workshop, TINY_PAUSE=str(pause))
    until(lambda: paused(pause))
    running.kill_group()
    seen = inside("status", "small", cwd=workshop)
    assert "stopped without a message" in seen.stdout
    assert "the same command resumes it" in seen.stdout
    nothing = inside("status", "smal", cwd=workshop)
    assert nothing.returncode == 2
    assert "did you mean 'small'?" in nothing.stderr


def failing(event: Event) -> None:
    if event.what == "finished":
        raise ValueError("no room on the disk")


def test_the_log_tells_every_cell_once_and_a_failing_listener_stops_nothing(here: Path) -> None:
    study = sl.Study("small.toml")
    with pytest.warns(
        UserWarning, match=r"failing failed and gets no more events: ValueError\('no room on the disk'\)$"
    ):
        result = study.run(jobs=1, listener=failing, report=False)
    assert not len(result.failures)
    said = rows(here)
    assert [said[0]["event"], said[-1]["event"]] == ["begin", "end"]
    assert said[-1]["why"] == "done"
    assert len({row["run"] for row in said}) == 1
    cells = set(study.cells[0].nodes)
    assert Counter(row["cell"] for row in said if row["event"] == "finished") == Counter(cells)
    shares = {row["cell"]: row["work"] for row in said if row["event"] == "finished"}
    assert sum(shares.values()) == pytest.approx(said[0]["work"])
    study.run(jobs=1, report=False)
    assert rows(here) == said, "a run that has nothing to do leaves the log alone"


def test_rate_and_time_left_from_rows() -> None:
    """Half of the work in 30 s: 30 s are left; four cells in half a minute are eight in one."""
    tally = RunProgress()
    tally.take({"event": "begin", "time": 100.0, "cells": 10, "cached": 2, "work": 8.0})
    for i in range(4):
        tally.take({"event": "started", "time": 100.0, "cell": f"{i}"})
    for i in range(4):
        tally.take({"event": "finished", "time": 130.0, "cell": f"{i}", "status": "done", "work": 1.0})
    assert tally.left(130.0) == pytest.approx(30.0)
    assert tally.rate(130.0) == pytest.approx(8.0)
    assert (tally.cached + tally.done, tally.running) == (6, {})


def test_an_unknown_tracker_is_refused_before_anything_is_written(here: Path) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        sl.Study("small.toml").run(track=["tensorbord"])
    assert not (here / "sublevel-runs").exists()


@pytest.mark.filterwarnings("ignore::Warning")
def test_tensorboard_shows_the_numbers_of_the_tables(here: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = sl.Study("small.toml").run(jobs=1, track=["tensorboard"], report=False)
    shown = EventAccumulator(str(here / SMALL / "tensorboard"))
    shown.Reload()
    for branch in ("imp", "finetune"):
        of = result.levels[(result.levels["branch"] == branch) & (result.levels["level"] > 0)]
        scalars = {s.step: s.value for s in shown.Scalars(f"{branch}/s0/test_loss")}
        assert scalars == pytest.approx(dict(zip(of["level"], of["test_loss"], strict=True)), rel=1e-6)
    history = result.history[(result.history["branch"] == "imp") & (result.history["level"] == 2)]
    scalars = {s.step: s.value for s in shown.Scalars("train/imp/L2/s0/train_loss")}
    assert scalars == pytest.approx(dict(zip(history["step"], history["train_loss"], strict=True)), rel=1e-6)


WANDB = """
import sublevel as sl
result = sl.Study("small.toml").run(jobs=1, track=["wandb"], report=False)
(row,) = (row for _, row in result.levels.iterrows() if (row["branch"], row["level"]) == ("imp", 2))
print(row["test_loss"])
"""


@pytest.mark.full
def test_wandb_offline_keeps_the_numbers_in_the_run_folder(workshop: Path) -> None:
    pytest.importorskip("wandb")
    done = python("-c", WANDB, cwd=workshop, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (path,) = (workshop / SMALL / "wandb").glob("offline-run-*/run-*.wandb")
    kept = path.read_bytes()
    assert b"imp/s0/test_loss" in kept
    assert done.stdout.strip().encode() in kept


class Late:
    """Lets the time go by when a cell has ended."""

    def __init__(self, until: float) -> None:
        self.until, self.begun, self.ends = until, 0, ""

    def __call__(self, event: Event) -> None:
        match event.what:
            case "begin":
                self.start = time.time()
            case "started":
                self.begun += 1
            case "finished":
                time.sleep(max(0.0, self.start + self.until - time.time()))
            case "end":
                self.ends = event.about["why"]


def test_when_the_time_is_up_no_cell_begins_and_the_next_run_goes_on(here: Path) -> None:
    late = Late(4.0)
    first = sl.Study("small.toml").run(jobs=1, listener=late, max_hours=4.0 / 3600, report=False)
    assert late.begun == 1
    assert late.ends == "the time was up"
    assert [cell["status"] for cell in first.document["cells"]].count("waiting") == 17
    assert set(first.failures["kind"]) == {"time"}
    whole = sl.Study("small.toml").run(jobs=1, report=False)
    assert whole.document["last_run"]["computed"] == 15  # two of the seventeen have keys of others
    assert not whole.unfinished
    other = sl.Study("small.toml", out="other").run(jobs=1, report=False)
    for name, table in other.tables.items():
        assert table.equals(whole.tables[name]), name
    with pytest.raises(ConfigError, match="max_hours is a number of hours above 0, got 0"):
        sl.Study("small.toml").run(max_hours=0.0)


@pytest.mark.full
def test_the_command_says_how_to_go_on(workshop: Path) -> None:
    """With no time at all nothing begins; the report of nothing is whole, and the next one is that of everything."""
    command = (*FEW, "--jobs", 1)
    done = cli(*command, "--max-hours", "1e-9", cwd=workshop)
    assert done.returncode == 75, (done.stdout, done.stderr)
    assert "the time was up: 6 cells are left; the same command resumes" in done.stdout
    assert "failed" not in done.stdout
    assert cli(*command, cwd=workshop).returncode == 0
    assert (workshop / SMALL / "tables" / "failures.csv").read_text().count("\n") == 1


def test_between_two_cells_nothing_is_said_to_run_in_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    watching = Watching(live=False)
    for elsewhere in ("", "train/dense/L0/s0"):
        watching._spoke = -math.inf
        watching.progress.elsewhere = {elsewhere} - {""}
        watching.tick()
    alone, shared = capsys.readouterr().out.splitlines()
    assert "run" not in alone
    assert shared.endswith("; running in another run")


# --- What a log may hold, and the time that is left.


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


def six(kind: str = "train") -> list[Node]:
    return [Node(f"{kind}/{i}", kind, {}, {}) for i in range(6)]


def followed(clock: Clock, jobs: int, epochs: int, quick: int = 0, resumed: float = 0.0) -> list[tuple[float, float]]:
    """(time left as told, time left in truth) each half minute: six trainings of half an hour after quick cells."""
    watching, nodes, small = Watching(live=False), six(), [Node(f"mask/{i}", "mask", {}, {}) for i in range(quick)]
    watching._spoke = float("inf")
    kinds = {"train": 6 * 1800.0, "mask": quick * 60.0}
    about = {"cells": quick + 6, "cached": 0, "work": sum(kinds.values()), "kinds": kinds}
    watching(Event("begin", about=about))
    for node in small:  # they cost a tenth of what was thought
        watching(Event("started", node, {"kind": "mask", "work": 60.0}))
        clock.now += 6
        watching(finished(Outcome(node, "done", entry={"seconds": 6}), 60.0))
    told, begun, todo, running = [], clock.now, list(nodes), dict[str, tuple[Node, float]]()
    while todo or running:
        while todo and len(running) < jobs:
            running[todo[0].id] = (todo[0], clock.now - resumed)
            watching(Event("started", todo.pop(0), {"kind": "train", "work": 1800.0}))
        clock.now += 30
        for node, since in list(running.values()):
            share = (clock.now - since) / 1800
            if epochs and (share * epochs) % 1 < 1e-9:
                said = {"step": round(share * 1800), "steps": 1800, "train_loss": None}
                watching(Event("progress", node, {"said": said}))
            if share >= 1:
                watching(finished(Outcome(node, "done", entry={"seconds": 1800}), 1800.0))
                del running[node.id]
        left = watching.progress.left(clock.now)
        if left is not None:
            told.append((left, begun + 6 * (1800 - resumed) / jobs - clock.now))
    return told


@pytest.mark.parametrize("jobs", [1, 2, 3, 6])
@pytest.mark.parametrize("epochs", [20, 10, 60])
def test_time_left_counts_what_running_cells_have_done(clock: Clock, jobs: int, epochs: int) -> None:
    """It once was 32 minutes, then 41, then 53. It falls by the second, and is right from the first epoch on."""
    told = followed(clock, jobs, epochs)
    assert len(told) > 0.9 * 6 * 60 / jobs
    assert all(after <= before for (before, _), (after, _) in pairwise(told))
    assert all(left == pytest.approx(true, abs=1) for left, true in told)


@pytest.mark.parametrize("jobs", [1, 2])
def test_time_left_of_trainings_that_do_not_report_falls_too(clock: Clock, jobs: int) -> None:
    """As by a loop of one's own: from the first that has ended on."""
    told = followed(clock, jobs, epochs=0)
    assert all(after <= before for (before, _), (after, _) in pairwise(told))
    assert all(left == pytest.approx(true, abs=31) for left, true in told)


@pytest.mark.parametrize("jump", [-1e5, -1e9, 1e9, 0.0], ids=["back a day", "to 1970", "from 1970", "none"])
@pytest.mark.parametrize("at", [1, 2, 5, 7, 8])
def test_a_clock_that_was_set_changes_no_length_of_time(at: int, jump: float) -> None:
    """Eight rows half a minute apart, with a clock that is set before one of them, or after the last one."""
    tally, now = RunProgress(), 1.8e9
    rows = [{"event": "begin", "cells": 1, "cached": 0, "work": 1.0}, {"event": "started", "cell": "x", "work": 1.0}]
    rows += [{"event": "progress", "cell": "x", "said": {"step": i, "steps": 12}} for i in range(1, 7)]
    for i, row in enumerate(rows):
        now += 30 + (jump if i == at else 0)
        tally.take({**row, "time": now})
    now += jump if at == 8 else 0
    assert tally.at(now) - tally.began == 210 - (30 if jump and at < 8 else 0)
    left = tally.left(now)
    assert left is not None
    assert 120 <= left <= 180
    assert tally.rate(tally.at(now)) == 0.0
    assert (tally.ago(now) is None) == (at == 8 and jump != 0)


@pytest.mark.parametrize("time_", [-1e9, -5.0, 0.0, 30.0, 1e10, 1e14])
@pytest.mark.parametrize("alive", [True, False])
def test_no_time_of_a_log_makes_status_tell_a_century(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], time_: float, alive: bool
) -> None:
    """In the first row, in the last one, in all; also work that would take as long."""
    log = tmp_path / "small" / "events.jsonl"
    log.parent.mkdir()
    now = time.time()
    who = own() if alive else {}
    true = [{**row, "time": now - 50 + row["time"], **(who if row["event"] == "begin" else {})} for row in GOOD]
    for odd in ([0], [5], range(6), [3, 4]):
        for work in (2.0, 1e14):
            rows = [{**row, "time": time_ + i} if i in odd else row for i, row in enumerate(true)]
            log.write_text(
                "\n".join(json.dumps({**row, "work": work} if "work" in row else row) for row in rows) + "\n"
            )
            told = state(capsys, tmp_path)
            assert not re.search(r"-\d|\d{4,} h|inf|nan", told), told
            assert all(float(rate) < 1000 for rate in re.findall(r"([\d.]+) cells/min", told)), told


def test_quick_cells_that_were_misjudged_do_not_make_it_grow_again_and_again(clock: Clock) -> None:
    """They say ten times too little; the first report of a training corrects it, once."""
    told = followed(clock, 1, 20, quick=5)
    grown = [i for i, ((before, _), (after, _)) in enumerate(pairwise(told)) if after > before]
    assert len(grown) <= 1
    assert all(left == pytest.approx(true, abs=1) for left, true in told[4:])


def test_a_training_that_goes_on_inside_is_judged_by_its_pace_now(clock: Clock) -> None:
    """It reports half of its steps at once: from two reports its pace is known."""
    told = followed(clock, 6, 20, resumed=900)
    assert all(left == pytest.approx(true, abs=1) for left, true in told[6:])


GOOD = [
    {"event": "begin", "time": 1.0, "run": "a", "cells": 2, "cached": 0, "work": 2.0, "study": "small", "pid": 1},
    {"event": "started", "time": 2.0, "run": "a", "cell": "x"},
    {"event": "progress", "time": 3.0, "run": "a", "cell": "x", "said": {"step": 1, "steps": 2, "train_loss": None}},
    {"event": "retried", "time": 3.5, "run": "a", "cell": "x", "error": {"message": "died"}},
    {"event": "started", "time": 4.0, "run": "a", "cell": "x"},
    {"event": "finished", "time": 5.0, "run": "a", "cell": "x", "status": "done", "work": 1.0},
]
VALUES = [None, True, -1, 1e308, float("nan"), float("inf"), "", "x", [], [[]], {}, {"a": 1}, 10**400]


def odd_lines() -> list[str]:
    """Every field of every row with every odd value, and absent; rows of other shapes; lines that are no JSON."""
    lines = ["", "{", "[]", "null", "3", '"x"', "[" * 100_000, "{}", '{"event": "end"', "\x00", "\x1b[31m", "9" * 5000]
    for row in GOOD:
        for name in row:
            lines.append(json.dumps({k: v for k, v in row.items() if k != name}))
            lines += [json.dumps({**row, name: value}) for value in VALUES]
    said = [
        {name: value} for name in ("step", "steps", "train_loss", "host", "pid", "gpu", "since") for value in VALUES
    ]
    return lines + [json.dumps({**GOOD[2], "said": {"step": 1, "steps": 2, **each}}) for each in said]


def state(capsys: pytest.CaptureFixture[str], out: Path) -> str:
    status(out=out)
    return capsys.readouterr().out


def test_no_row_of_a_log_stops_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Odd rows alone and among good ones; what is whole counts."""
    log = tmp_path / "small" / "events.jsonl"
    log.parent.mkdir()
    good = [json.dumps(row) for row in GOOD]
    for odd in odd_lines():
        log.write_text("\n".join([good[0], odd, *good[1:]]) + "\n", encoding="utf-8", errors="surrogatepass")
        assert state(capsys, tmp_path)
    log.write_text("\n".join([*odd_lines(), *good]) + "\n", encoding="utf-8")
    assert "1/2 cells" in state(capsys, tmp_path)
    for row in GOOD[1:]:  # one that is left out is all that is missed
        log.write_text("\n".join([*good, json.dumps(row)[:-5]]) + "\n")
        assert "1/2 cells" in state(capsys, tmp_path)
    log.write_bytes(b"\xff" * 5_000_000)
    assert "holds no run" in state(capsys, tmp_path)


def test_a_log_that_was_cut_is_gone_on_with(here: Path) -> None:
    """The first row of the next run once was glued to the cut one, and `status` failed for good."""
    sl.Study("small.toml", levels=1).run(jobs=1, report=False)
    log = here / SMALL / "events.jsonl"
    log.write_bytes(log.read_bytes()[:-30])
    sl.Study("small.toml", levels=1, seeds=[1]).run(jobs=1, report=False)
    tally = read_log(log)
    assert tally.why == "done"
    assert tally.done + tally.cached == tally.cells > 0


def test_a_number_that_another_process_has_now_is_not_the_run(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.touch()
    tally = RunProgress()
    tally.take({**GOOD[0], **own()})
    assert lives(tally, log), "the healthy neighbour: this process"
    tally.about = {**tally.about, "born": "1"}
    assert not lives(tally, log)
    for elsewhere in ({"machine": "another"}, {"machine": ""}):
        tally.about = {**tally.about, **elsewhere}
        assert lives(tally, log), "another machine is judged by its signs of life"
        os.utime(log, (1e9, 1e9))
        assert not lives(tally, log)
        os.utime(log)


def test_a_loop_that_tells_no_loss_is_watched(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "loops.py").write_text("def still(theta, mask, steps):\n    return theta * mask\n")
    watching = Watching(live=False)
    watching._spoke = -math.inf
    result = sl.Study("small.toml", loop="loops:still", levels=1, branches=["imp"]).run(
        jobs=1, listener=watching, report=False
    )
    assert not len(result.failures)
    watching.summary(result)
    assert " cells run in " in capsys.readouterr().out
    assert watching.progress.done == watching.progress.cells


def test_a_view_that_failed_does_not_tell_other_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watching = Watching(live=False)
    watching.tick = lambda: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.warns(UserWarning, match="Watching failed"):
        result = sl.Study("small.toml", levels=1, branches=["imp"]).run(jobs=1, listener=watching, report=False)
    watching.summary(result)
    assert "0 cells run" not in capsys.readouterr().out
