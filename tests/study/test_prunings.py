"""What pruning does to the loss: against every mask of a network that can be counted out by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sublevel as sl
from sublevel.prune.select import layer_counts
from sublevel.rng import generator
from sublevel.space import Space
from sublevel.study.measurements.prunings import random_masks

X = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[3.0], [-2.0], [1.0], [0.5]], dtype=torch.float64)
DRAWS = 20


def linear() -> nn.Module:
    return nn.Linear(4, 1, bias=False)


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    """Four weights, of which two are left at level 1 and one at level 2."""
    problem = sl.Problem(linear, train=(X, Y), test=(X, Y), loss="squared", validation=0)
    done = sl.Study(
        problem, seeds=[7], levels=2, fraction=0.5, rewind="1it", branches=["imp", "oneshot", "random-prune"],
        train={"epochs": 2, "batch_size": 20, "lr": 0.2, "dtype": "float64"},
        geometry={"prunings": {"draws": DRAWS}}, out=tmp_path_factory.mktemp("prunings"),
    ).run(jobs=1, report=False)  # fmt: skip
    assert len(done.failures) == 0, done.failures["error"].tolist()
    return done


def loss(weights: np.ndarray) -> float:
    """Half the mean squared error, written out."""
    return float(((X.numpy() @ weights - Y.numpy()[:, 0]) ** 2).mean() / 2)


@pytest.mark.parametrize(("branch", "level"), [("imp", 1), ("imp", 2), ("oneshot", 1), ("oneshot", 2)])
def test_every_loss_is_that_of_a_mask_counted_out_by_hand(result: sl.Result, branch: str, level: int) -> None:
    """The largest weights are kept by magnitude; random draws take each of the masks nested in the parent."""
    rows = result.prunings.query("branch == @branch and level == @level")
    before = result.point("dense" if branch == "oneshot" else "imp", 0 if branch == "oneshot" else level - 1, seed=7)
    theta, keep = before.theta.double().numpy(), {1: 2, 2: 1}[level]
    alive = np.flatnonzero(theta)
    assert len(alive) == (2 if (branch, level) == ("imp", 2) else 4)
    possible = {
        kept: loss(np.where(np.isin(range(4), kept), theta, 0.0)) for kept in combinations(alive.tolist(), keep)
    }
    largest = tuple(sorted(np.argsort(-np.abs(theta))[:keep].tolist()))
    assert rows["chosen_by"].tolist() == ["criterion"] + ["random"] * DRAWS
    assert rows["draw"].tolist() == list(range(DRAWS + 1))
    assert rows["loss_start"].tolist() == pytest.approx([loss(theta)] * (DRAWS + 1))
    assert rows["loss_end"].iloc[0] == pytest.approx(possible[largest])
    for draw in range(1, DRAWS + 1):
        scores = torch.rand(4, generator=generator(7, f"prune:random-legs:{level}", draw)).numpy()
        kept = tuple(sorted(sorted(alive.tolist(), key=lambda i: -scores[i])[:keep]))
        assert rows["loss_end"].iloc[draw] == pytest.approx(possible[kept])
    assert len({round(v, 9) for v in rows["loss_end"][1:]}) == len(possible), "20 draws meet each of at most 6 masks"


def test_a_mask_that_was_made_from_no_point_has_no_pruning(result: sl.Result) -> None:
    assert set(result.prunings["branch"]) == {"imp", "oneshot"}
    assert set(result.prunings["buffers"]) == {"none"}


def test_random_masks_are_nested_with_the_counts_of_every_layer() -> None:
    space = Space.of(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    parent, like = space.full_mask(), space.full_mask()
    parent[:20] = False
    like[:40], like[56:60] = False, False
    found = list(random_masks(space, like, parent, 3, 0, "s"))
    for mask in found:
        assert layer_counts(space, mask) == layer_counts(space, like) == [8, 20]
        assert not bool((mask & ~parent).any())
        assert bool(mask[~space.prunable].all())
    assert not torch.equal(found[0], found[1])
    again = list(random_masks(space, like, parent, 2, 0, "s"))
    assert torch.equal(again[1], found[1])


def test_statistics_are_computed_anew_under_the_second_policy(tmp_path: Path) -> None:
    """With BatchNorm the mask's loss depends on the policy, and both are in the table."""
    problem = sl.Problem(normalised, train=(X, Y), test=(X, Y), loss="squared", validation=0)
    result = sl.Study(
        problem, seeds=[7], levels=1, fraction=0.5, rewind="1it", branches=["imp"], out=tmp_path,
        train={"epochs": 2, "batch_size": 20, "lr": 0.2, "dtype": "float64"},
        geometry={"prunings": {"draws": 2}, "pairs": {"k": 2}},
    ).run(jobs=1, report=False)  # fmt: skip
    rows = result.prunings.set_index(["buffers", "draw"])["loss_end"].to_dict()
    at, mask = result.point("dense", seed=7), result.ticket("imp", 1, seed=7).mask
    for policy in ("stored", "recomputed"):
        field = problem.on("cpu", "float64").field("train", policy=policy)
        assert rows[policy, 0] == pytest.approx(field.loss(at.project(mask)), rel=1e-9)
    assert rows["stored", 1] != pytest.approx(rows["recomputed", 1], rel=1e-3)
    assert set(result.volume_pairs["buffers"]) == {"recomputed"}
