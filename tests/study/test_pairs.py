"""Pairs of volumes and what surrounds them: known answers by dense Hessians in float64, and by hand."""

from __future__ import annotations

from math import lgamma, log, nan, pi
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sublevel as sl
import tiny_runs
from sublevel.errors import ConfigError
from sublevel.field import Quadratic
from sublevel.geometry import curvature, paths
from sublevel.geometry.align import weight_matching
from sublevel.geometry.planes import random_plane
from sublevel.risk import EmpiricalRisk
from sublevel.space import Point, lerp
from sublevel.study.cells import KERNELS, Context
from sublevel.study.measurements.pairs import last_crossing, matched

K, EPS, SIZE, LEVELS = 3, 0.5, 60, 3
GEOMETRY = {
    "pairs": {"branches": ["imp", "oneshot"], "levels": [1, LEVELS], "k": K, "eps": EPS, "size": SIZE, "steps": 100},
    "coordinates": {
        "branches": ["dense", "imp", "oneshot"], "levels": [0, 1, 2], "probes": 4, "directions": 0, "size": SIZE,
    },
    "paths": {
        "points": 5, "refine": 1, "size": SIZE, "successive": None,
        "to_dense": {}, "start_to_dense": {}, "aligned": {},
    },
    "connect": {"levels": [1], "iterations": 3, "points": 5, "size": SIZE},
    "planes": {"random": ["imp/2", "dense"], "points": 3, "refine": 0, "size": SIZE},
    "topology": {"branches": ["dense", "imp"], "levels": [0, 1], "points": 5, "refine": 2, "size": SIZE},
}  # fmt: skip


def net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, classes))


def tensors() -> dict[str, Any]:
    a = {k: torch.from_numpy(v) for k, v in tiny_runs.arrays().items()}
    return {split: (a[f"{split}_x"][:, None], a[f"{split}_y"]) for split in ("train", "test")}


def study(out: Path, build=net, **keys) -> sl.Study:
    problem = sl.Problem(build, **tensors(), validation=40)
    defaults = {
        "seeds": [3], "levels": LEVELS, "fraction": 0.75, "rewind": "2it", "branches": ["imp", "oneshot", "reinit"],
        "train": {"epochs": 3, "batch_size": 20, "lr": 0.05, "dtype": "float64"}, "geometry": GEOMETRY,
    }  # fmt: skip
    return sl.Study(problem, out=out, **{**defaults, **keys})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    done = study(tmp_path_factory.mktemp("pairs")).run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures["error"].tolist()
    return done


@pytest.fixture(scope="module")
def field(result: sl.Result) -> EmpiricalRisk:
    return result.problem.field("train", size=SIZE)


def mask_of(result: sl.Result, level: int, branch: str = "imp") -> torch.Tensor:
    return result.ticket(branch, level, seed=3).mask if level else result.problem.space.full_mask()


def ends(result: sl.Result, row: Any) -> tuple[Point, Point]:
    """The two points of a row of ``volume_pairs``, made again from the stored ones."""
    dense, ticket = result.point("dense", seed=3), result.ticket(row["branch"], row["level"], seed=3)
    if row["pair"] == "prune":
        before = result.point("imp", row["level"] - 1, seed=3) if row["branch"] == "imp" else dense
        return before.project(ticket.mask), before
    both, starts = [ticket.end, dense], [ticket.start.project(ticket.mask), result.ticket("imp", 1, seed=3).start]
    field = result.problem.field("train", size=SIZE)
    low = int(field.loss(dense) < field.loss(ticket.end))
    end, alpha = both[low], 1 - row["moved"]
    both[low] = lerp(starts[low], end, alpha)
    if low and abs(field.loss(both[1]) - row["loss"]) > 1e-6:  # step k was too low
        both[1] = lerp(result.problem.on("cpu", "float64").init(3), end, alpha)
    return both[0], both[1]


def loss_at(field: EmpiricalRisk, theta: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(field.space.call(field.module, theta, {}, field.prepare(field.x)), field.y)


def gradient(field: EmpiricalRisk, at: Point) -> torch.Tensor:
    return torch.func.grad(lambda theta: loss_at(field, theta))(at.theta)


def hessian(field: EmpiricalRisk, at: Point) -> torch.Tensor:
    return torch.func.hessian(lambda theta: loss_at(field, theta))(at.theta)


def dense_volume(
    field: EmpiricalRisk, at: Point, alive: torch.Tensor, scale: torch.Tensor
) -> tuple[float, float, float]:
    """log V of the K steepest directions, the sum of their eigenvalues, 1/2 g^T H^-1 g: all from the whole Hessian."""
    h, g = hessian(field, at) * scale[:, None] * scale, gradient(field, at) * scale
    values, vectors = torch.linalg.eigh(h[alive][:, alive])
    top, slopes = values[-K:], vectors[:, -K:].T @ g[alive]
    excess = 0.5 * float((slopes**2 / top).sum())
    ball = K / 2 * log(pi) - lgamma(K / 2 + 1)
    return ball + K / 2 * log(2 * (EPS + excess)) - 0.5 * float(top.log().sum()), float(top.sum()), excess


def filter_scale(result: sl.Result, theta: torch.Tensor) -> torch.Tensor:
    out = theta.abs()
    for layer in result.problem.space.prunable_layers:
        rows = theta[layer.coordinates].view(layer.shape)
        out[layer.coordinates] = rows.norm(dim=1, keepdim=True).expand(layer.shape).reshape(-1)
    return out


@pytest.mark.parametrize("operator", ["hessian", "adaptive"])
@pytest.mark.parametrize("pair", ["matched-loss", "prune"])
def test_a_pair_of_volumes_is_that_of_two_dense_hessians(result, field, pair, operator) -> None:
    table = result.volume_pairs.query("pair == @pair and operator == @operator")
    assert len(table) == 4
    seen = 0
    for _, row in table.iterrows():
        dead = result.problem.space.dead(mask_of(result, row["level"], row["branch"]))
        assert row["excluded"] == int(dead.sum())
        for suffix, at in zip(("", "_reference"), ends(result, row), strict=True):
            assert row[f"loss{suffix}"] == pytest.approx(field.loss(at), rel=1e-12)
            assert row[f"weight_norm{suffix}"] == pytest.approx(float(at.theta.norm()), rel=1e-12)
            scale = filter_scale(result, at.theta) if operator == "adaptive" else torch.ones_like(at.theta)
            volume, trace, excess = dense_volume(field, at, ~dead, scale)
            assert row[f"trace_top{suffix}"] == pytest.approx(trace, rel=1e-6, abs=1e-9)
            if volume == volume and pd.notna(row[f"log_volume{suffix}"]):
                seen += 1
                assert row[f"log_volume{suffix}"] == pytest.approx(volume, abs=1e-4)
                assert row[f"nonstationarity{suffix}"] == pytest.approx(excess, rel=1e-3, abs=1e-9)
            else:
                assert "not positive" in row["reason"]
    assert seen >= len(table), "most volumes are defined"
    assert (table["excluded"] > 0).any(), "some filter is dead in this study"


def test_matched_losses_agree_and_the_lower_one_was_moved(result, field) -> None:
    table = result.volume_pairs.query("pair == 'matched-loss'")
    agree = table[~table["reason"].str.contains("the losses differ", na=False)]
    assert len(agree) >= 4
    assert (agree["loss"] - agree["loss_reference"]).abs().max() <= 1e-6
    assert (agree["moved"] > 0).all()
    for _, row in agree.iterrows():
        unmoved = [result.point(row["branch"], row["level"], seed=3), result.point("dense", seed=3)]
        assert row["loss"] == pytest.approx(max(map(field.loss, unmoved)), rel=2e-6)
    assert (result.volume_pairs.query("pair == 'prune'")["moved"] == 0).all()


def bowl(*where: float) -> list[Point]:
    return [Point(torch.tensor([x], dtype=torch.float64)) for x in where]


def test_the_lower_of_two_is_moved_back_by_a_known_amount() -> None:
    field = Quadratic(torch.tensor([1.0], dtype=torch.float64))
    found = matched(field, bowl(1.0, 0.5), [bowl(2.0), bowl(3.0)])  # from 3 to 0.5: |x| = 1 at alpha = 0.8
    assert (found.reason, float(found.points[0].theta)) == ("", 1.0)
    assert found.moved == pytest.approx(0.2, abs=1e-6)
    assert float(found.points[1].theta) == pytest.approx(1.0, abs=1e-6)
    other = matched(field, bowl(0.5, 1.0), [bowl(3.0), bowl(2.0)])
    assert float(other.points[0].theta) == pytest.approx(1.0, abs=1e-6)
    assert matched(field, bowl(1.0, -1.0), [bowl(2.0), bowl(2.0)]).moved == 0
    further = matched(field, bowl(1.0, 0.5), [bowl(), bowl(0.9, 1.5, 3.0)])  # 0.9 is too low: from 1.5 at alpha = 0.5
    assert (further.reason, further.moved) == ("", pytest.approx(0.5, abs=1e-6))


def test_losses_that_cannot_be_matched_are_said_to_differ() -> None:
    field = Quadratic(torch.tensor([1.0], dtype=torch.float64))
    at = bowl(1.0, 0.5)
    alone = matched(field, at, [[], []])
    assert (
        alone.reason
        == "the losses differ: 0.5 and 0.125 of the dense one; the dense one has no start to be moved back to"
    )
    below = matched(field, at, [bowl(2.0), bowl(0.7, 0.8)])
    assert below.reason.endswith("the dense one stays below on the segment from its start")
    assert list(below.points) == at
    bad = matched(field, bowl(nan, 0.5), [bowl(1.0), bowl(1.0)])
    assert bad.reason == "the losses are nan and 0.125: none can be matched"
    step = last_crossing(lambda alpha: 1.0 if alpha < 0.47 else 0.0, 0.5)
    assert step is not None
    assert step[0] == pytest.approx(0.47)


def test_of_several_crossings_the_last_one_counts() -> None:
    found = last_crossing(lambda a: (0.9 - a) * (0.6 - a) * (0.2 - a), 0.0)
    assert found is not None
    assert found[0] == pytest.approx(0.9, abs=1e-6)


def test_at_the_retrained_point_sets_are_what_the_level_pruned(result, field) -> None:
    """Disjoint, of equal count in every layer, in the subspace of the mask that the level's own was made from."""
    space, table = result.problem.space, result.coordinates
    assert set(table.query("level == 0")["when"]) == {"before"}
    assert set(table.query("branch == 'imp' and level == 1")["when"]) == {"before", "retrained"}
    for branch, level, parent in (("imp", 1, 0), ("imp", 2, 1), ("oneshot", 2, 0)):
        old, new = mask_of(result, parent), mask_of(result, level, branch)
        sets = curvature.matched_sets(space, old, new)
        pruned, kept = set(sets["pruned"].tolist()), set(sets["kept"].tolist())
        assert not pruned & kept
        assert all(old[i] and not new[i] for i in pruned)
        assert all(new[i] for i in kept)
        for layer in space.layers:
            inside = [sum(layer.start <= i < layer.start + layer.size for i in s) for s in (pruned, kept)]
            assert inside[0] == inside[1]
        rows = table.query("branch == @branch and level == @level and when == 'retrained'").set_index("set")
        assert rows.loc[["pruned", "kept", "random"], "count"].tolist() == [len(pruned)] * 3
        at = result.point(branch, level, seed=3)
        found = curvature.along(field, at, sets, probes=4)
        assert rows.loc["pruned", "curvature"] == pytest.approx(found["pruned"].value)
        steepest = torch.linalg.eigvalsh(hessian(field, at)[old][:, old])[-1]
        assert rows.loc["steepest", "curvature"] == pytest.approx(float(steepest), rel=1e-6)
    slices = result.slices.query("branch == 'imp' and level == 1")
    assert set(slices["when"]) == {"before", "retrained"}


def test_a_start_is_joined_to_the_dense_end(result, field) -> None:
    rows = result.paths.query("path == 'start-to-dense' and split == 'train'").set_index(["branch", "level_to"])
    assert len(rows) == 3 * LEVELS
    dense = result.point("dense", seed=3)
    for branch, level in (("imp", 2), ("reinit", 2)):
        ticket = result.ticket(branch, level, seed=3)
        start = ticket.start.project(ticket.mask)
        assert rows.loc[(branch, level), "loss_from"] == pytest.approx(field.loss(start))
        assert rows.loc[(branch, level), "loss_to"] == pytest.approx(field.loss(dense))
        assert rows.loc[(branch, level), "distance"] == pytest.approx(float((start.theta - dense.theta).norm()))
    assert rows.loc[("imp", 2), "loss_from"] != rows.loc[("reinit", 2), "loss_from"]


def test_an_aligned_path_ends_at_a_permuted_copy(result, field) -> None:
    rows = result.paths.query("split == 'train'").set_index(["path", "branch", "level_to"])
    dense = result.point("dense", seed=3)
    for branch, level in (("imp", 1), ("reinit", 1)):
        plain, aligned = rows.loc[("to-dense", branch, level)], rows.loc[("to-dense-aligned", branch, level)]
        found = weight_matching(result.problem.space, dense, result.point(branch, level, seed=3))
        assert aligned["loss_to"] == pytest.approx(plain["loss_to"], rel=1e-9)
        assert aligned["distance"] == pytest.approx(found.distance)
        profile = paths.segment(field, dense, found.point, points=5, refine=1)
        assert aligned["loss_max"] == pytest.approx(profile.loss.max())
    assert rows.loc[("to-dense-aligned", "reinit", 1), "distance"] < rows.loc[("to-dense", "reinit", 1), "distance"]


class Crossed(nn.Module):
    """The second and the third layer were made in the other order than they are used in."""

    def __init__(self, third: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(36, 8)
        self.third = nn.Linear(third, 8)
        self.second = nn.Linear(8, third)
        self.last = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x.flatten(1)))))
        return self.last(torch.tanh(self.third(x)))


def narrow(classes: int) -> nn.Module:
    return Crossed(5, classes)


def square(classes: int) -> nn.Module:
    return Crossed(8, classes)


ALIGNED = {"paths": {"points": 3, "refine": 0, "size": 60, "successive": None, "to_dense": None, "aligned": {}}}


def test_a_network_of_unknown_units_cannot_be_aligned(tmp_path: Path) -> None:
    """Refused before anything is trained where the shapes tell it, else where the permuted network is another."""
    early = study(tmp_path, narrow, geometry=ALIGNED)
    with pytest.raises(ConfigError, match=r"geometry\.paths\.aligned: the hidden units .*third\.weight reads 5 inputs"):
        _ = early.cells
    late = study(tmp_path, square, levels=1, branches=["reinit"], geometry=ALIGNED)
    failures = late.run(jobs=1, report=False).failures
    assert failures["cell"].tolist() == ["segment/to-dense-aligned/averaged/reinit/L1/s3"]
    assert "matching the hidden units takes the train loss from" in failures["error"].iloc[0]


def test_membership_says_both_losses(result, field) -> None:
    for _, row in result.membership.iterrows():
        assert row["loss"] == pytest.approx(field.loss(result.point(row["branch"], row["level"], seed=3)))
        assert row["loss_dense"] == pytest.approx(field.loss(result.point("dense", seed=3)))
        assert row["threshold"] == max(row["loss"], row["loss_dense"])
    assert len(result.membership) == 3


def test_random_planes_stay_in_the_solutions_subspace(result, field) -> None:
    at, mask = result.point("imp", 2, seed=3), mask_of(result, 2)
    frame = random_plane(result.problem.space, at, mask=mask)
    rows = result.planes.query("plane == 'random: imp/2'")
    assert len(rows) == 9
    for _, row in rows.iterrows():
        point = frame.point(row["x"], row["y"])
        assert not bool(point.theta[~mask].any())
        assert row["loss"] == pytest.approx(field.loss(point))
    free = random_plane(result.problem.space, result.point("dense", seed=3))
    dense = result.planes.query("plane == 'random: dense' and x == 1 and y == 1").iloc[0]
    assert dense["loss"] == pytest.approx(field.loss(free.point(1, 1)))


def test_a_join_spends_nothing_on_the_chord(result, monkeypatch) -> None:
    """Only the maximum is used, so only the intervals beside it are halved."""
    cells = [
        c for c in result.document["cells"] if c["kind"] == "train" and c["labels"]["branch"] in ("dense", "reinit")
    ]
    dense, *others = (result.store.read_entry(c["key"])["objects"]["end"] for c in cells)
    seen, evaluated = [], EmpiricalRisk._evaluated
    monkeypatch.setattr(EmpiricalRisk, "_evaluated", lambda self, at: seen.extend(at) or evaluated(self, at))
    problem, richer = result.problem.on("cpu", "float64"), 0
    field = problem.field("train", size=SIZE)
    how: dict[str, Any] = {"points": 5, "refine": 2}
    for other in others:
        context = Context(problem, result.store)
        path = lambda alpha: lerp(context.point(dense), context.point(other), alpha)  # noqa: B023, E731
        lean, rich = (paths.along(field, path, **how, chord=chord) for chord in (False, True))
        seen.clear()
        ends = {"a": dense, "a_mask": None, "b": other, "b_mask": None}
        found = KERNELS["join"][0](context, **ends, **how, size=SIZE, policy="averaged").values
        assert found["loss"]["maximum"] == float(lean.loss.max())
        assert len(seen) == lean.evaluations
        richer += rich.evaluations > lean.evaluations
    assert richer, "on some segment the barrier is not beside the maximum"
    joined = result.joins.query("of == 'loss'").iloc[0]
    ends = [result.point("dense", seed=3), result.point("imp", 1, seed=3)]
    assert joined["maximum"] == max(paths.segment(field, *ends, points=5, refine=2).loss)
