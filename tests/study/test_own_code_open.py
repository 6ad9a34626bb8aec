"""A network that no other process can import works to the end: run, open, problem, point, ticket."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sublevel as sl
from sublevel.errors import ConfigError
from sublevel.study import result as results

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def problem(width: int) -> sl.Problem:
    def net() -> nn.Module:  # as in a cell of a notebook
        return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

    return sl.Problem(net, train=(X, Y), test=(X, Y), validation=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_network_of_a_cell_is_opened_again(tmp_path, monkeypatch):
    recipe = {"epochs": 2, "batch_size": 20}
    study = sl.Study(problem(4), name="cell", levels=1, branches=["imp"], train=recipe, rewind="0it", out=tmp_path)
    made = study.run(report=False)
    opened = sl.open(tmp_path / "cell")
    assert opened.problem.space == made.problem.space
    ticket = opened.ticket("imp", 1, 0)
    assert torch.equal(ticket.point().theta, opened.point("imp", 1, 0).theta)
    assert opened.problem.field("train").loss(ticket.end) < 2
    assert repr(ticket).startswith("<Ticket: branch imp, level 1, seed 0, weights: ")

    monkeypatch.setattr(results, "LIVE", {})  # another process
    with pytest.raises(ConfigError, match=r"define it again and pass it: sl.open\(.*problem=sl.Problem"):
        _ = sl.open(tmp_path / "cell").problem
    assert sl.open(tmp_path / "cell", problem=problem(4)).ticket("imp", level=1, seed=0).density == ticket.density
    with pytest.raises(ConfigError, match="other parameters"):
        _ = sl.open(tmp_path / "cell", problem=problem(5)).problem
