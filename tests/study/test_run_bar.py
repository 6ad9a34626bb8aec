"""The bar of a run on a terminal, with the events that a run sends."""

from __future__ import annotations

import io
import math
import re

from rich.console import Console

from sublevel.engine.events import Event, finished
from sublevel.engine.graph import Node, Outcome
from sublevel.study.watching import Terminal, watcher


def test_a_terminal_shows_the_cells_and_the_path_of_the_report(tmp_path):
    text = io.StringIO()
    bar = Terminal(Console(file=text, force_terminal=True, width=100))
    node = Node("train/imp/L1/s0", "train", {}, {})
    bar(Event("begin", about={"cells": 3, "cached": 1, "work": 2.0}))
    bar._shown = -math.inf
    bar(Event("started", node, {"kind": "train", "work": 1.0}))
    bar._shown = -math.inf
    bar(finished(Outcome(node, "done", "key", {"seconds": 0.1}, None), 1.0))
    bar(Event("end", about={"why": "done"}))
    bar.end("2 of 3 cells computed in 4 s", tmp_path / "report.html")
    shown = re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|\]8;[^\x1b]*\x1b\\)", "", text.getvalue())
    assert "1/3 cells, time left unknown yet, train/imp/L1/s0" in shown
    assert "2/3 cells" in shown
    assert shown.replace("\n", "").endswith(f"report: {tmp_path}/report.html")
    assert f"file://{tmp_path}/report.html" in text.getvalue()  # a link
    assert not bar._bar.live.is_started


def test_nothing_is_shown_where_nobody_looks(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert watcher() is None
