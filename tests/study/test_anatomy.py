"""The rows of `anatomy`, `limits` and `exits`, from the points of a small study and dense matrices."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.field import ErrorRate
from sublevel.geometry.curvature import effective_dimension
from sublevel.prune import layer_counts

SEED, K, SIZE = 0, 3, 60


def net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5, bias=False), nn.Tanh(), nn.Linear(5, classes))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    a = {name: torch.from_numpy(v) for name, v in tiny_runs.arrays().items()}
    data = {split: (a[f"{split}_x"][:, None], a[f"{split}_y"]) for split in ("train", "test")}
    geometry = {
        "anatomy": {"k": K, "size": SIZE},
        "limits": {"eps": [0.05, 0.5], "probes": 8, "steps": 40, "size": SIZE},
        "exits": {"rays": 2, "error": [0.05, 0.2], "spaces": ["own", "all"], "levels": [0, 2]},
    }
    train = {"epochs": 2, "batch_size": 50, "lr": 0.05}
    out = tmp_path_factory.mktemp("anatomy")
    study = sl.Study(
        sl.Problem(net, **data, validation=40), name="parts", seeds=[SEED], levels=2, fraction=0.5, rewind="2it",
        branches=["imp"], train=train, geometry=geometry, out=out,
    )  # fmt: skip
    return study.run(jobs=1, report=False)


def end(result: sl.Result, level: int) -> tuple[sl.Point, torch.Tensor]:
    if not level:
        return result.point("dense", 0), result.problem.space.full_mask()
    ticket = result.ticket("imp", level)
    return ticket.end, ticket.mask


def hessian(result: sl.Result, at: sl.Point) -> torch.Tensor:
    field = result.problem.field("train", size=SIZE)
    matrix = field.hvp(at, torch.eye(field.dim)).double()
    return (matrix + matrix.T) / 2


@pytest.mark.parametrize("level", [0, 1, 2])
def test_shares_of_the_steep_directions_are_those_of_the_dense_hessian(result: sl.Result, level: int) -> None:
    at, mask = end(result, level)
    space, rows = result.problem.space, result.anatomy[result.anatomy["level"] == level].set_index("set")
    vectors = torch.linalg.eigh(hessian(result, at)).eigenvectors[:, -K:].T
    prunable, own = space.prunable, mask & space.prunable
    squares = vectors.square()
    kept = float((squares[:, own].sum(1) / squares[:, prunable].sum(1)).mean())
    assert rows.loc["kept", "eigenspace"] == pytest.approx(kept, abs=1e-3)
    assert rows.loc["kept", "share"] == pytest.approx(int(own.sum()) / int(prunable.sum()))
    assert rows.loc["kept", "count"] == own.sum()
    left = result.ticket("imp", level + 1).mask if level < 2 else None
    if left is not None:
        gone = own & ~left
        assert rows.loc["next", "count"] == gone.sum()
        share = float((squares[:, gone].sum(1) / squares[:, own].sum(1)).mean())
        assert rows.loc["next", "eigenspace"] == pytest.approx(share, abs=1e-3)
    before = rows.loc["kept", "overlap_before"]
    if level:
        last = torch.linalg.eigh(hessian(result, end(result, level - 1)[0])).eigenvectors[:, -K:].T
        assert before == pytest.approx(float((vectors @ last.T).square().sum() / K), abs=1e-3)
    else:
        assert math.isnan(before)


def test_a_random_set_of_the_same_counts_has_the_matched_share_on_average(result: sl.Result) -> None:
    from sublevel.risk.gauss_newton_diagonal import ggn_diagonal
    from sublevel.study.measurements.prunings import random_masks

    at, mask = end(result, 1)
    space, row = result.problem.space, result.anatomy.query("level == 1 and set == 'next'").iloc[0]
    diagonal = ggn_diagonal(result.problem.field("train", size=SIZE), at)
    assert diagonal is not None
    after = result.ticket("imp", 2).mask
    own = mask & space.prunable
    assert row["trace"] == pytest.approx(float(diagonal[own & ~after].sum() / diagonal[own].sum()), rel=1e-5)
    drawn = torch.stack(
        [diagonal[own & ~m].sum() / diagonal[own].sum() for m in random_masks(space, after, mask, 400, 0, "test")]
    )
    assert layer_counts(space, after) == layer_counts(space, next(random_masks(space, after, mask, 1, 0, "x")))
    assert row["trace_matched"] == pytest.approx(float(drawn.mean()), abs=4 * float(drawn.std()) / 20)


def test_ranks_of_a_layer_are_spearmans(result: sl.Result) -> None:
    from sublevel.risk.gauss_newton_diagonal import ggn_diagonal

    at, mask = end(result, 2)
    start = result.ticket("imp", 2).start
    diagonal = ggn_diagonal(result.problem.field("train", size=SIZE), at)
    assert diagonal is not None
    rows = result.layer_ranks[result.layer_ranks["level"] == 2]
    assert len(rows) == len(list(result.problem.space.prunable_layers))
    for layer, (_, row) in zip(result.problem.space.prunable_layers, rows.iterrows(), strict=True):
        kept = mask[layer.coordinates]
        seen = pd.DataFrame(
            {
                "steep": diagonal[layer.coordinates][kept],
                "rank_magnitude": at.theta[layer.coordinates][kept].abs(),
                "rank_moved": (at.theta - start.theta)[layer.coordinates][kept].abs(),
            }
        ).rank()
        for name in ("rank_magnitude", "rank_moved"):
            assert row[name] == pytest.approx(seen["steep"].corr(seen[name]), abs=1e-6)


@pytest.mark.parametrize("level", [0, 1])
def test_the_limit_is_where_the_exact_effective_dimension_crosses(result: sl.Result, level: int) -> None:
    at, mask = end(result, level)
    space, field = result.problem.space, result.problem.field("train", size=SIZE)
    rows = result.limits[result.limits["level"] == level].sort_values("eps")
    assert (rows["fraction"].diff().dropna() > 0).all(), "a higher set lets more weights go"
    for _, row in rows.iterrows():
        gone = round(row["fraction"] * row["prunable"])
        alpha = 2 * row["eps"] / row["distance"] ** 2
        true = effective_dimension(field, at, alpha=alpha, mask=mask, operator="ggn", method="exact").value
        assert row["dimension"] == mask.sum()
        assert row["prunable"] == (mask & space.prunable).sum()
        assert row["effective_dimension"] == pytest.approx(true, rel=0.2)
        assert row["effective_dimension"] <= row["dimension"] - gone
        smallest = at.theta[mask & space.prunable].abs().sort().values[:gone]
        assert row["distance"] == pytest.approx(float(smallest.double().norm()), rel=1e-6)
        assert row["fraction_low"] <= row["fraction"] <= row["fraction_high"]


def test_exits_lie_where_the_loss_and_the_errors_cross_their_heights(result: sl.Result) -> None:
    rows = result.exits
    assert set(rows["of"]) == {"train loss", "train error", "test error"}
    assert (rows["radius_low"] <= rows["radius"]).all()
    at, mask = end(result, 2)
    for of in ("train loss", "test error"):
        field = result.problem.field(of.split()[0])
        field = ErrorRate(field) if of.endswith("error") else field
        found = rows.query("level == 2 and space == 'own' and of == @of")
        assert found["value"].tolist() == pytest.approx([field.loss(at)] * len(found))
        for _, row in found.iterrows():
            options = {"radius": 100.0, "samples": 2, "growth": 1.1}
            volume = sl.volume.log_volume(field, at, method="radial", eps=row["height"], mask=mask, **options)
            assert row["log_volume"] == pytest.approx(volume.log_volume)
            assert row["dimension"] == mask.sum()
    wide = rows.query("of == 'train error' and space == 'all'").pivot(index="level", columns="height", values="radius")
    assert (wide[0.2] > wide[0.05]).all()
