"""Ranks of pruned against kept weights: from the whole Gauss-Newton matrix and Hessian, without what says nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.geometry import curvature
from sublevel.space import Space

BLOCK = {"branches": ["imp"], "probes": 40, "directions": 0, "size": 60, "diagonal": ["ggn", "hessian"], "exact": 20}


def net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, classes))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    a = {name: torch.from_numpy(v) for name, v in tiny_runs.arrays().items()}
    splits = {part: (a[f"{part}_x"][:, None].clone(), a[f"{part}_y"]) for part in ("train", "test")}
    for x, _ in splits.values():
        x[:, 0, 0] = 0  # a row of pixels that is dark in every image
    study = sl.Study(
        sl.Problem(net, **splits, validation=40), out=tmp_path_factory.mktemp("coordinates"), levels=1, fraction=0.4,
        branches=["imp"], geometry={"coordinates": BLOCK},
        train={"epochs": 3, "batch_size": 20, "lr": 0.1, "dtype": "float64"},
    )  # fmt: skip
    done = study.run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures["error"].tolist()
    return done


def by_hand(space: Space, values: torch.Tensor, pruned: torch.Tensor, kept: torch.Tensor) -> float:
    """The share of pairs within each layer, the layers alike."""
    found = []
    for layer in space.prunable_layers:
        v = values[layer.coordinates]
        a, b = (v[mask[layer.coordinates]][:, None] for mask in (pruned, kept))
        if len(a) and len(b):
            found.append(float(((a > b.T).double() + 0.5 * (a == b.T)).mean()))
    return float(np.mean(found))


def scene(result: sl.Result, branch: str, when: str) -> tuple[Any, ...]:
    """Field, point, the diagonal of the whole Gauss-Newton matrix, the weights before, and both sets."""
    problem, ticket = result.problem.on("cpu", "float64"), result.ticket("imp", 1)
    at = result.point(branch, 1 if branch == "imp" else 0)
    field = problem.field("train", size=60)
    ggn = curvature.diagonal_entries(field, at, torch.arange(field.dim), operator="ggn")
    dark = problem.space.views(torch.zeros(field.dim))
    dark["1.weight"][:, :6] = 1
    out = torch.cat([v.reshape(-1) for v in dark.values()]).bool() | (ggn == 0)
    full = problem.space.prunable
    before, after = full, ticket.mask & full
    if branch == "imp":
        out |= problem.space.dead(ticket.mask)
        if when == "before":
            before, size = after, at.theta.abs() * after
            count = int(before.sum())
            after = torch.zeros_like(full)
            after[size.argsort(descending=True)[: count - round(0.4 * count)]] = True
    weights = problem.space.views(at.theta)
    hidden = torch.relu(field.prepare(field.x).flatten(1) @ weights["1.weight"].T + weights["1.bias"])
    silent = problem.space.views(torch.zeros(field.dim))
    silent["3.weight"][:, hidden.amax(dim=0) == 0] = 1
    out |= torch.cat([v.reshape(-1) for v in silent.values()]).bool()
    return field, at, ggn, before, before & ~after & ~out, after & ~out


@pytest.mark.parametrize(("branch", "when"), [("dense", "before"), ("imp", "before"), ("imp", "retrained")])
def test_the_rank_is_that_of_the_whole_matrix(result: sl.Result, branch: str, when: str) -> None:
    field, at, ggn, before, pruned, kept = scene(result, branch, when)
    row = result.coordinates.query("branch == @branch and `when` == @when and set == 'pruned'").iloc[0]
    assert row["rank"] == pytest.approx(by_hand(field.space, ggn, pruned, kept), abs=1e-12)
    assert row["rank_se"] == 0, "nothing was drawn"
    assert row["excluded"] == int(before.sum() - pruned.sum() - kept.sum())
    assert row["excluded"] >= 6 * int(before[: 36 * 6].reshape(6, 36)[:, :6].any()), "dark pixels at least"
    hessian = curvature.diagonal_entries(field, at, torch.arange(field.dim))
    near = 5 * row["rank_hessian_se"] + 0.02  # its noise draws it to 1/2
    assert row["rank_hessian"] == pytest.approx(by_hand(field.space, hessian, pruned, kept), abs=near)
    assert 0 < row["rank_hessian_se"] < 0.2


def test_the_dense_network_is_beside_the_solutions_that_were_asked_for(result: sl.Result) -> None:
    """The block names imp alone; the others' rows have no ranks."""
    found = result.coordinates.groupby(["branch", "level", "when"]).size()
    assert set(found.index) == {("dense", 0, "before"), ("imp", 1, "before"), ("imp", 1, "retrained")}
    ranked = result.coordinates[result.coordinates["rank"].notna()]
    assert set(ranked["set"]) == {"pruned"}
    assert len(ranked) == 3


def test_some_entries_are_checked_against_the_hessians_own(result: sl.Result) -> None:
    rows = result.coordinates.query("set == 'pruned'")
    assert (rows["exact"] == 20).all()
    assert (rows["exact_z"].between(0.3, 3)).all(), "estimates lie about their error from the entries"
    assert (rows["exact_rank"].abs() <= 1).all()
    assert (rows["exact_rank"] > 0).all(), "the Gauss-Newton matrix ranks weights as the Hessian does, more or less"


def test_curvature_times_the_squared_weight_is_the_mean_over_the_set(result: sl.Result) -> None:
    field, at, ggn, _, pruned, kept = scene(result, "dense", "before")
    sets = curvature.matched_sets(field.space, pruned | kept | ~field.space.prunable, kept | ~field.space.prunable)
    rows = result.coordinates.query("branch == 'dense'").set_index("set")
    for name, index in sets.items():
        assert rows.loc[name, "curvature_w2"] == pytest.approx(float((ggn[index] * at.theta[index] ** 2).mean()))
