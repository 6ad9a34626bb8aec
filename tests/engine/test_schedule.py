"""The engine by itself: a graph of sums, computed once each, whatever fails, is damaged or was let go."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from sublevel.engine.events import Event, Stream
from sublevel.engine.executors import InProcess, WorkerDied
from sublevel.engine.graph import Graph, Node, Outcome, Ref
from sublevel.engine.job import Job, Progress
from sublevel.engine.partial import Partial
from sublevel.engine.schedule import Schedule
from sublevel.engine.store import Store, canonical, digest, object_name
from sublevel.engine.worker import take_part
from sublevel.errors import Diverged


def total(job: Job, store: Store, partial: Partial, progress: Progress) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The sum of a number and of what other cells have made."""
    if job.inputs["add"] < 0:
        raise Diverged("below zero") if job.inputs["add"] == -1 else ValueError("far below zero")
    found = job.inputs["add"] + sum(float(store.get_tensors(name)["n"]) for name in job.inputs["of"])
    progress({"found": found})
    return {"version": 1, "values": {"sum": found}}, {"sum": {"n": torch.tensor(found)}}


def graph(*cells: tuple[str, float, str]) -> Graph:
    """Cells as (name, what to add, the names that it needs)."""
    made = Graph()
    for name, add, needs in cells:
        made.add(Node(name, "sum", {"add": add, "of": [Ref(each, "sum") for each in needs]}))
    return made


DIAMOND = ("a", 1.0, ""), ("b", 2.0, "a"), ("c", 3.0, "a"), ("d", 4.0, "bc")


class Run:
    """A schedule of a graph in a store, with all that it tells."""

    def __init__(self, store: Store, made: Graph, executor: Any = None, seconds: float = float("inf")) -> None:
        self.events: list[Event] = []
        self.schedule = Schedule(made, store, key, lambda node: 1.0, self.events.append)
        with self.schedule.logged():
            self.outcomes = self.schedule.run(executor or InProcess(), self.job, seconds)

    def job(self, node: Node, name: str, inputs: Any) -> Job:
        return Job(name, node.kind, inputs, node.labels, self.schedule.store.where, "test_schedule:total")

    @property
    def statuses(self) -> str:
        return " ".join(f"{name}:{outcome.status}" for name, outcome in sorted(self.outcomes.items()))

    def count(self, what: str) -> int:
        return sum(event.what == what for event in self.events)

    def value(self, name: str) -> float:
        return self.schedule.store.read_entry(self.outcomes[name].key)["values"]["sum"]  # type: ignore[index]


def key(node: Node, inputs: Any) -> str:
    return digest(canonical([node.kind, inputs]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.check_writable()
    return made


def object_of(outcome: Outcome) -> str:
    return outcome.entry["objects"]["sum"]


def test_each_cell_is_computed_once_and_then_read(store: Store) -> None:
    first = Run(store, graph(*DIAMOND))
    assert first.statuses == "a:done b:done c:done d:done"
    assert first.value("d") == 11.0
    again = Run(store, graph(*DIAMOND, ("e", 1.0, "d")))
    assert again.statuses == "a:cached b:cached c:cached d:cached e:done"
    assert again.count("started") == 1


def test_a_run_is_told_in_order_and_in_numbers(store: Store) -> None:
    run = Run(store, graph(("a", 1.0, ""), ("b", 2.0, "a")))
    told = [event.what for event in run.events if event.what != "tick"]
    cell = ["started", "progress", "progress", "finished"]  # it says where it runs, then what it has found
    assert told == ["begin", *cell, *cell, "end"]
    assert run.events[0].about == {"cells": 2, "cached": 0, "work": 2.0, "kinds": {"sum": 2.0}}
    assert run.events[-1].about == {"why": "done"}
    rows = [event.row for event in run.events]
    assert json.loads(json.dumps(rows)) == rows
    assert [row["seconds"] >= 0 for row in rows if row["event"] == "finished"] == [True, True]


def test_cells_of_one_key_are_one_computation(store: Store) -> None:
    run = Run(store, graph(("a", 1.0, ""), ("b", 1.0, ""), ("c", 0.0, "a"), ("d", 0.0, "b")))
    assert run.statuses == "a:done b:done c:done d:done"
    assert run.count("started") == 2


@pytest.mark.parametrize(("add", "kind", "kept"), [(-1, "diverged", True), (-2, "error", False)])
def test_what_fails_stops_only_what_needs_it(store: Store, add: float, kind: str, kept: bool) -> None:
    cells = ("a", 1.0, ""), ("b", add, "a"), ("c", 3.0, "a"), ("d", 4.0, "bc")
    run = Run(store, graph(*cells))
    assert run.statuses == "a:done b:failed c:done d:skipped"
    assert run.outcomes["b"].error["kind"] == kind
    assert run.outcomes["d"].error["message"] == "needs b, which did not finish"
    assert Run(store, graph(*cells)).count("started") == (0 if kept else 1), "a divergence would happen again"


def test_a_damaged_object_is_made_again_and_its_reader_goes_on(store: Store) -> None:
    """It is damaged after the run has looked: when its reader is about to begin."""
    made, damaged = graph(("a", 1.0, ""), ("b", 2.0, "a")), []

    def damage(event: Event) -> None:
        if event.what == "started" and event.node.id == "b" and not damaged:
            damaged.append(store.path / object_name(object_of(run.outcomes["a"])))
            damaged[0].write_bytes(b"damaged")

    run = Run.__new__(Run)
    run.events = []
    run.schedule = Schedule(made, store, key, lambda node: 1.0, Stream(run.events.append, damage))
    run.outcomes = run.schedule.outcomes
    run.schedule.run(InProcess(), run.job)
    assert run.statuses == "a:done b:done"
    assert run.value("b") == 3.0
    assert [e.node.id for e in run.events if e.what == "started" and e.node] == ["a", "b", "a", "b"]
    assert run.count("retried") == 1
    assert len(store.damaged()) == 1


def test_an_object_that_was_let_go_is_made_again(store: Store) -> None:
    first = Run(store, graph(("a", 1.0, "")))
    name = object_of(first.outcomes["a"])
    entry = store.read_entry(first.outcomes["a"].key)
    store.write_entry(first.outcomes["a"].key, {**entry, "released": [name]})  # type: ignore[dict-item]
    (store.path / object_name(name)).unlink()
    run = Run(store, graph(("a", 1.0, ""), ("b", 2.0, "a")))
    assert run.statuses == "a:done b:done"
    assert run.value("b") == 3.0
    assert Run(store, graph(("a", 1.0, ""))).count("started") == 0


class Dying(InProcess):
    """An executor whose workers die so many times with a cell, or answer for another one."""

    def __init__(self, deaths: int, answer: str = "") -> None:
        super().__init__()
        self.deaths, self.answer, self.seen = deaths, answer, Counter[str]()

    def submit(self, job: str, progress: Progress) -> Future[str]:
        name = Job.of(job).key
        self.seen[name] += 1
        if self.seen[name] > self.deaths:
            return super().submit(job, progress)
        future: Future[str] = Future()
        if self.answer:
            future.set_result(self.answer)
        else:
            future.set_exception(WorkerDied("killed"))
        return future


@pytest.mark.parametrize(("deaths", "status", "retried"), [(2, "done", 2), (3, "failed", 2)])
def test_a_cell_is_tried_three_times(store: Store, deaths: int, status: str, retried: int) -> None:
    run = Run(store, graph(("a", 1.0, "")), Dying(deaths))
    assert (run.statuses, run.count("retried")) == (f"a:{status}", retried)


def test_the_answer_for_another_cell_is_no_result(store: Store) -> None:
    other = json.dumps({"entry": {"key": "ab" * 32, "objects": {}, "values": {}}})
    run = Run(store, graph(("a", 1.0, "")), Dying(3, other))
    assert run.outcomes["a"].error["message"] == "a worker answered with the result of another cell"


def test_when_the_time_is_up_nothing_begins(store: Store) -> None:
    run = Run(store, graph(*DIAMOND), seconds=0.0)
    assert run.statuses == "a:waiting b:waiting c:waiting d:waiting"
    assert run.events[-1].about == {"why": "the time was up"}


def test_a_helper_writes_nothing(store: Store) -> None:
    for add in (1.0, -1.0):
        take_part(Job("ab" * 32, "sum", {"add": add, "of": []}, {}, store.where, "test_schedule:total").text())
    assert list(store.keys()) == list(store.objects()) == []
