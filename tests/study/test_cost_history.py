"""What cells have cost is kept beside the store, and helps the plan; no number of a result depends on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sublevel as sl
from sublevel.engine.events import Event, finished
from sublevel.engine.graph import Node, Outcome
from sublevel.study.cost_history import FADING, NAME, CostHistory

NODES = {kind: Node(kind, kind, {}, {}) for kind in ("train", "spectrum", "leg")}
UNITS = {"train": 1000.0, "spectrum": 500.0, "leg": 10.0}


def units(node: Node) -> float:
    return UNITS[node.kind]


END = Event("end", about={"why": "done"})


def spent(folder: Path, of: str = "here", **seconds: float) -> CostHistory:
    """After a run of cells that took these seconds."""
    made = CostHistory(folder, {"problem": of}, units)
    for kind, value in seconds.items():
        made(finished(Outcome(NODES[kind], "done", entry={"seconds": value}), UNITS[kind]))
    made(END)
    return made


def test_costs_are_those_seen_and_the_others_stand_as_they_were(tmp_path: Path) -> None:
    assert spent(tmp_path).rate is None
    assert not (tmp_path / NAME).exists(), "a run that computed nothing keeps nothing"
    after = spent(tmp_path, train=2.0, spectrum=3.0)
    cost = after.model()
    assert after.rate == pytest.approx(500)
    assert [cost(node) for node in NODES.values()] == pytest.approx([1000, 1500, 10])


def test_a_new_run_counts_more_than_the_one_before(tmp_path: Path) -> None:
    spent(tmp_path, train=2.0)
    rate = spent(tmp_path, train=4.0).rate
    assert rate == pytest.approx((1 + FADING) * 1000 / (4 + FADING * 2))


def test_other_problems_and_damaged_files_are_nothing(tmp_path: Path) -> None:
    spent(tmp_path, train=2.0)
    assert spent(tmp_path, of="there").rate is None
    (here,) = json.loads((tmp_path / NAME).read_text())
    for text in ("{", "[]", '{"a": 1}', json.dumps({here: {"train": 3}})):
        (tmp_path / NAME).write_text(text)
        assert spent(tmp_path).rate is None
    assert spent(tmp_path, train=2.0).rate == pytest.approx(500)


def test_what_was_not_computed_is_not_counted(tmp_path: Path) -> None:
    made = CostHistory(tmp_path, {}, units)
    for status in ("cached", "failed", "skipped"):
        made(finished(Outcome(NODES["train"], status, entry={"seconds": 1.0}), 1.0))
    made(END)
    assert not (tmp_path / NAME).exists()


def test_a_study_plans_by_what_it_took(tmp_path: Path) -> None:
    def study(seed: int) -> sl.Study:
        return sl.Study(
            sl.Problem("lenet-300-100", train_size=600, test_size=100), out=tmp_path, levels=1, seeds=[seed],
            branches=["imp"], train={"epochs": 1}, rewind="1it",
        )  # fmt: skip

    first = study(0)
    assert first.plan(jobs=1).judged_by.startswith("a measurement")
    first.run(jobs=1, report=False)
    (kinds,) = json.loads((tmp_path / NAME).read_text()).values()
    seconds = sum(spent for spent, work in kinds.values() if work)  # a mask takes no time to speak of
    again = study(1).plan(jobs=1)
    assert again.judged_by == "what such cells took here before"
    assert again.seconds == pytest.approx(seconds, rel=1e-2), "the same cells of another seed"
    assert study(0).plan(jobs=1).seconds == 0
