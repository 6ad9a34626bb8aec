"""Studies with a loss and a training loop of the user's own."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.nn import functional as F

import own_loop
import own_net
import sublevel as sl
from sublevel.errors import ConfigError
from sublevel.study.tickets import retrain

X = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3] + 0.3 * X[:, 3:]).argmax(1)
KEYS = {
    "levels": 2,
    "fraction": 0.4,
    "rewind": "0it",
    "branches": ["imp", "reinit"],
    "train": {"epochs": 4, "batch_size": 12, "lr": 0.1, "weight_decay": 0.0, "dtype": "float64"},
}


def smooth(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.1)


def problem(**change):
    return sl.Problem(own_net.build, train=(X[:70], Y[:70]), test=(X[70:], Y[70:]), validation=10, **change)


def run(tmp_path, name, change=None, jobs=1):
    return sl.Study(problem(**(change or {})), name=name, out=tmp_path, **KEYS).run(report=False, jobs=jobs)


def test_sgd_as_a_loop_gives_the_tables_of_the_engine(tmp_path, monkeypatch):
    engine = run(tmp_path, "engine").levels
    by_name = run(tmp_path, "by-name", {"loop": "own_loop:sgd"}, jobs=2)
    mine = by_name.levels
    assert list(mine["branch"]) == list(engine["branch"])
    for column in ("train_loss", "test_loss", "validation_loss"):
        assert list(mine[column]) == pytest.approx(list(engine[column]), rel=1e-9)
    assert by_name.document["study"]["loop"] == "own_loop:sgd"
    as_function = sl.Study(problem(loop=own_loop.sgd), name="again", out=tmp_path, **KEYS)
    assert as_function.plan().to_run == 0  # the same code under another name
    ticket = by_name.ticket("imp", 2)
    assert torch.equal(retrain(ticket, problem(loop="own_loop:sgd")).theta, ticket.end.theta)


def test_another_loop_is_another_result(tmp_path):
    run(tmp_path, "one", {"loop": own_loop.sgd})
    other = sl.Study(problem(loop=own_loop.stands_still), name="other", out=tmp_path, **KEYS)
    assert [row["cached"] for kind, row in other.plan().cells.items() if kind == "train"] == [0]
    found = other.run(jobs=1, report=False)
    assert torch.equal(found.point("dense").theta, found.problem.init(0).theta)


def test_a_loop_that_breaks_the_mask_fails_its_cells_in_words(tmp_path):
    found = run(tmp_path, "broken", {"loop": own_loop.breaks_the_mask})
    assert len(found.levels) == 1  # the dense network has no mask to break
    assert "breaks_the_mask returned" in found.failures["error"].iloc[0]


@pytest.mark.parametrize("branch", ["gradual", "edge-popup", "continuous-sparsification"])
def test_a_branch_with_steps_of_its_own_takes_no_loop(tmp_path, branch):
    study = sl.Study(problem(loop=own_loop.sgd), name="both", out=tmp_path, **(KEYS | {"branches": [branch]}))
    with pytest.raises(ConfigError, match=rf"branch '{branch}' takes steps of its own.*own_loop:sgd"):
        study.plan()
    assert not any(tmp_path.iterdir())


def test_a_loss_by_its_import_path_is_shared_with_workers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(tmp_path, "smooth", {"loss": "test_own_code:smooth"}, jobs=2)
    field, at = found.problem.field("test"), found.point("imp", 2)
    outputs = found.problem.space.call(found.problem.module, at.theta, {}, X[70:].double())
    row = found.levels.query("branch == 'imp' and level == 2").iloc[0]
    assert row["test_loss"] == pytest.approx(float(smooth(outputs, Y[70:]).mean()), rel=1e-9)
    assert field.loss(at) == pytest.approx(row["test_loss"], rel=1e-9)


@pytest.mark.parametrize("key", ["loss", "loop"])
def test_a_path_that_leads_nowhere_is_refused(tmp_path, key):
    with pytest.raises(sl.SublevelError, match="own_loop:absent"):
        run(tmp_path, "none", {key: "own_loop:absent"})
    assert not any(tmp_path.iterdir())
