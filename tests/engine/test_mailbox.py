"""Jobs and answers through a folder: every line once, none before it is whole, none that was meant for another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sublevel.engine.executors import visibility
from sublevel.engine.executors.mailbox import Lines, append
from tiny_runs import environment, until

SERVE = (
    "import sys; from sublevel.engine.executors.mailbox import serve; serve(*sys.argv[1:3], [], sys.argv[3], idle=1.0)"
)


def worker(folder: Path, token: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SERVE, str(folder), "0", token], env=environment())


def test_a_line_is_read_once_and_when_it_is_whole(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "rows")
    assert list(lines.new()) == []
    append(tmp_path / "rows", {"a": 1})
    with open(tmp_path / "rows", "ab") as file:
        file.write(b'{"b": ')
    assert list(lines.new()) == [{"a": 1}]
    with open(tmp_path / "rows", "ab") as file:
        file.write(b"2}\n")
    assert list(lines.new()) == [{"b": 2}]
    assert list(lines.new()) == []


def test_a_worker_answers_leaves_and_takes_up_nothing_old(tmp_path: Path) -> None:
    token = visibility.place(str(tmp_path / "store"))
    said = Lines(tmp_path / "0.out")
    first = worker(tmp_path, token)
    rows: list[dict[str, object]] = []
    until(lambda: rows.extend(said.new()) or rows, 30)
    assert rows[0]["sees"] is True
    append(tmp_path / "0.in", {"task": "t", "job": "{}"})
    assert first.wait(30) == 0
    rows += said.new()
    (answer,) = (row for row in rows if "answer" in row)
    assert "error" in str(answer["answer"])
    assert rows[-1] == {"bye": True}

    visibility.take_away(token)
    assert worker(tmp_path, token).wait(30) == 0
    rows = [row for row in said.new() if row]
    assert rows[0]["sees"] is False
    assert not any("task" in row for row in rows), "a worker that is started again must not do the old jobs again"


def test_a_file_at_the_same_path_on_another_machine_is_not_enough(tmp_path: Path) -> None:
    """What counts is that it holds what was written here."""
    token = visibility.place(str(tmp_path))
    assert visibility.sees(token)
    Path(token).write_text("another store")
    assert not visibility.sees(token)
    assert visibility.refusal(token, "n1") == (
        f"node n1 does not see the store in {tmp_path}: put it where all nodes have the same files (--store), "
        "or leave them out"
    )
