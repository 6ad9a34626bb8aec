"""A study without classes: real targets and half the squared error, from training to the report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl


def regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 1))


@pytest.mark.slow
def test_a_regression_goes_through_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(120, 5, generator=rng)
    y = x[:, :1] * 2 + 0.1 * torch.randn(120, 1, generator=rng)
    problem = sl.Problem(regressor, train=(x, y), test=(x[:40], y[:40]), loss="squared", validation=20)
    study = sl.Study(
        problem, name="line", levels=1, fraction=0.3, rewind="1it", branches=["imp", "finetune"],
        train={"epochs": 3, "batch_size": 20, "lr": 0.05},
        geometry={"spectra": {"k": 2, "operators": ["hessian", "ggn"]}},
    )  # fmt: skip
    result = study.run(jobs=1)
    assert len(result.failures) == 0
    assert result.levels["test_error"].isna().all()
    assert (result.levels["train_loss"] < float(y.var()) / 2).all()
    assert set(result.claims["unit"]) == {"test error", "train loss"}
    without = result.claims.query("unit == 'test error'")
    assert len(without) > 0
    assert (without["n"] == 0).all()
    assert (tmp_path / "sublevel-runs" / "line" / "report.html").stat().st_size > 1_000_000
    ticket = result.ticket("imp", level=1)  # of a network that only this process can build
    assert int((ticket.mask & problem.space.prunable).sum()) == 25
    assert isinstance(ticket.module(), nn.Module)
