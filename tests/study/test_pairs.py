"""Pairs of volumes and what surrounds them: known answers by dense Hessians in float64, and by hand."""

from __future__ import annotations

from math import lgamma, log, nan, pi
from pathlib import Path
from typing import Any

import numpy as np
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
from sublevel.geometry.paths.matching import weight_matching
from sublevel.geometry.planes import random_plane
from sublevel.risk import EmpiricalRisk
from sublevel.risk.gauss_newton_diagonal import constant_inputs
from sublevel.space import Point, lerp
from sublevel.study.catalogue import KINDS
from sublevel.study.cells import Context, stored_point
from sublevel.study.measurements.base import drawn
from sublevel.study.measurements.pairs import matched

K, EPS, SIZE, LEVELS = 3, 0.5, 60, 3
GEOMETRY = {
    "pairs": {
        "branches": ["imp", "oneshot"], "levels": [1, LEVELS], "k": K, "eps": EPS, "size": SIZE, "steps": 100,
        "match": 0.05, "damping": [0.1, 0.01], "probes": 2, "quadrature": 20, "rays": 3,
    },
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
        "train": {
            "epochs": 3, "batch_size": 20, "lr": 0.05, "dtype": "float64",
            "trajectory": ["2it", "6it", "10it", "14it", "18it"],
        },
        "geometry": GEOMETRY,
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
    return passed(result, row["branch"], row["level"], row["step"]), passed(result, "dense", 0, row["step_reference"])


def passed(result: sl.Result, branch: str, level: int, step: float) -> Point:
    """What a run stored at a step of its path; its end at the last."""
    (cell,) = (c for c in result.document["cells"] if c["cell"] == f"train/{branch}/L{level}/s3")
    entry = result.store.read_entry(cell["key"])
    assert entry is not None
    last = entry["values"]["history"][-1]["step"]
    return stored_point(result.store, entry["objects"]["end" if step == last else f"step-{int(step)}"])


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
    table = result.volume_pairs.query("pair == @pair and operator == @operator and method == 'top-k'")
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


def test_matched_losses_are_those_of_stored_points_of_either_path(result, field) -> None:
    table = result.volume_pairs.query("pair == 'matched-loss'")
    assert table.groupby("method").size().to_dict() == {"logdet": 8, "rays": 4, "top-k": 8}
    last = max(table["step"].max(), table["step_reference"].max())
    assert ((table["step"] == last) | (table["step_reference"] == last)).all(), "one of the two is an end"
    assert ((table["step"] < last) | (table["step_reference"] < last)).any(), "somebody went back"
    for _, row in table.iterrows():
        here, there = ends(result, row)
        assert row["loss"] == pytest.approx(field.loss(here), rel=1e-12)
        assert row["loss_reference"] == pytest.approx(field.loss(there), rel=1e-12)
        target = row["loss"] if row["step_reference"] < last else row["loss_reference"]
        apart = abs(row["loss"] - row["loss_reference"]) > 0.05 * target
        if min(row["step"], row["step_reference"]) < last:
            assert ("the losses differ" in str(row["reason"])) == apart
    assert result.volume_pairs.query("pair == 'prune'")["step"].isna().all()


def test_a_pair_of_determinants_is_that_of_two_gauss_newton_matrices(result, field) -> None:
    table = result.volume_pairs.query("method == 'logdet' and branch == 'imp'")
    assert set(table["setting"]) == {0.1, 0.01}
    assert set(table["operator"]) == {"ggn"}
    for _, row in table.iterrows():
        alive = ~result.problem.space.dead(mask_of(result, row["level"], row["branch"]))
        how = {"method": "logdet", "eps": EPS, "operator": "ggn", "mask": alive, "probes": 2, "steps": 20, "exact": 40}
        for suffix, at in zip(("", "_reference"), ends(result, row), strict=True):
            v = sl.volume.log_volume(field, at, damping=row["setting"], **how)
            assert row[f"log_volume{suffix}"] == pytest.approx(v.log_volume, rel=1e-9)
            assert row[f"nonstationarity{suffix}"] == pytest.approx(v.diagnostics["nonstationarity"], rel=1e-6)
            assert row[f"se{suffix}"] == pytest.approx(v.se, rel=1e-6)
            assert row["k"] == int(alive.sum())


def test_a_pair_of_slices_is_that_of_rays_in_the_steepest_span(result, field) -> None:
    table = result.volume_pairs.query("method == 'rays' and branch == 'imp'")
    assert set(table["setting"]) == {K}
    for _, row in table.iterrows():
        alive = ~result.problem.space.dead(mask_of(result, row["level"], row["branch"]))
        how = {"method": "importance", "eps": EPS, "k": K, "span": True, "samples": 3, "radius": 100.0, "mask": alive}
        for suffix, at in zip(("", "_reference"), ends(result, row), strict=True):
            v = sl.volume.log_volume(field, at, **how)
            assert row[f"log_volume{suffix}"] == pytest.approx(v.log_volume, abs=1e-6)
            assert row[f"se{suffix}"] == pytest.approx(v.se)


def test_without_points_of_its_path_no_run_is_matched(tmp_path: Path) -> None:
    train = {"epochs": 1, "batch_size": 20, "lr": 0.05, "checkpoints": ["4it"]}
    graph, _ = study(tmp_path, train=train).cells
    assert {n.labels["pair"] for n in graph.nodes.values() if n.kind == "volume-pair"} == {"prune"}


def bowl(*where: float) -> list[tuple[int, Point]]:
    """A path that passes these points at the steps 0, 10, 20, ...."""
    return [(10 * i, Point(torch.tensor([x], dtype=torch.float64))) for i, x in enumerate(where)]


HALF = Quadratic(torch.tensor([1.0], dtype=torch.float64))


def test_the_run_that_ended_lower_goes_back_to_its_own_point_of_equal_loss() -> None:
    found = matched(HALF, (bowl(3.0, 2.0, 1.0), bowl(4.0, 1.0, 0.5, 0.2)), 0.1)
    assert (found.steps, found.reason) == ((20, 10), "")
    assert [float(p.theta) for p in found.points] == [1.0, 1.0]
    other = matched(HALF, (bowl(4.0, -1.0, 0.5, 0.2), bowl(3.0, 2.0, 1.0)), 0.1)
    assert (other.steps, other.reason) == ((10, 20), "")


def test_equal_ends_stay_and_of_several_points_the_last_counts() -> None:
    same = matched(HALF, (bowl(1.0, 2.0, 1.0), bowl(2.0, 1.0)), 0.1)
    assert (same.steps, same.reason) == ((20, 10), "")
    twice = matched(HALF, (bowl(2.0), bowl(2.0, 1.0, -2.0, 0.1)), 0.1)
    assert twice.steps == (0, 20)


def test_what_differs_by_more_than_the_tolerance_is_a_reason() -> None:
    near = matched(HALF, (bowl(1.0), bowl(5.0, 1.04, 0.5)), 0.1)  # losses 0.5 and 0.5408: 8% apart
    assert (near.steps, near.reason) == ((0, 10), "")
    far = matched(HALF, (bowl(1.0), bowl(5.0, 1.06, 0.5)), 0.1)  # 12%
    assert far.steps == (0, 10)
    told = "the dense one stored no point nearer to 0.5, where the solution ends, than 0.5618 at step 10"
    assert far.reason == f"the losses differ: {told}"
    alone = matched(HALF, (bowl(0.5), bowl(1.0)), 0.1)
    assert alone.steps == (0, 0)
    assert alone.reason.startswith("the losses differ: the solution stored no point nearer to 0.5, where the dense one")
    lost = matched(HALF, (bowl(1.0), bowl(nan, 0.5)), 0.1)
    assert lost.steps == (0, 10), "a point without a loss is nobody's match"
    bad = matched(HALF, (bowl(nan), bowl(0.5)), 0.1)
    assert bad.reason == "the losses are nan and 0.125: none can be matched"


def test_at_the_retrained_point_sets_are_what_the_level_pruned(result, field) -> None:
    """Disjoint, of equal count in every layer, in the subspace of the mask that the level's own was made from."""
    space, table = result.problem.space, result.coordinates
    assert set(table.query("level == 0")["when"]) == {"before"}
    assert set(table.query("branch == 'imp' and level == 1")["when"]) == {"before", "retrained"}
    compared = 0
    for branch, level, parent in (("imp", 1, 0), ("imp", 2, 1), ("oneshot", 2, 0)):
        old, new = mask_of(result, parent), mask_of(result, level, branch)
        out = space.dead(new) | constant_inputs(field, result.point(branch, level, seed=3))
        old, new = old & ~out, new & ~out
        rows = table.query("branch == @branch and level == @level and when == 'retrained'").set_index("set")
        inside = [layer.coordinates for layer in space.prunable_layers]
        both = [bool((old & ~new)[where].any() and new[where].any()) for where in inside]
        if not any(both):
            assert rows["count"].to_dict() == {"pruned": 0}
            assert "there is nothing to match" in rows.loc["pruned", "reason"]
            continue
        compared += 1
        sets = curvature.matched_sets(space, old, new)
        pruned, kept = set(sets["pruned"].tolist()), set(sets["kept"].tolist())
        assert not pruned & kept
        assert all(old[i] and not new[i] for i in pruned)
        assert all(new[i] for i in kept)
        for layer in space.layers:
            inside = [sum(layer.start <= i < layer.start + layer.size for i in s) for s in (pruned, kept)]
            assert inside[0] == inside[1]
        assert rows.loc[["pruned", "kept", "random"], "count"].tolist() == [len(pruned)] * 3
        at = result.point(branch, level, seed=3)
        found = curvature.along(field, at, sets, probes=4)
        assert rows.loc["pruned", "curvature"] == pytest.approx(found["pruned"].value)
        whole = mask_of(result, parent)
        steepest = torch.linalg.eigvalsh(hessian(field, at)[whole][:, whole])[-1]
        assert rows.loc["steepest", "curvature"] == pytest.approx(float(steepest), rel=1e-6)
    assert compared
    slices = result.slices.query("branch == 'imp' and level == 1")
    assert "retrained" in set(slices["when"])


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
    assert "matching the hidden units changes the outputs of this network" in failures["error"].iloc[0]


def test_membership_says_both_losses_and_the_height_over_the_higher(result, field) -> None:
    for _, row in result.membership.iterrows():
        assert row["loss"] == pytest.approx(field.loss(result.point(row["branch"], row["level"], seed=3)))
        assert row["loss_dense"] == pytest.approx(field.loss(result.point("dense", seed=3)))
        assert row["threshold"] == max(row["loss"], row["loss_dense"])
        assert row["height"] == pytest.approx(row["lowest_max"] - row["threshold"], abs=1e-15)


def test_another_initialisation_is_joined_before_and_after_matching_with_one_effort(result, field) -> None:
    found = result.membership.set_index(["branch", "aligned"])
    assert set(found.index) == {("imp", 0), ("oneshot", 0), ("reinit", 0), ("reinit", 1)}
    dense, other = result.point("dense", seed=3), result.point("reinit", 1, seed=3)
    permuted = weight_matching(result.problem.space, dense, other).point
    for aligned, end in ((0, other), (1, permuted)):
        profile = paths.segment(field, dense, end, points=5, refine=0)
        assert found.loc[("reinit", aligned), "segment_max"] >= profile.loss.max() - 1e-12
        assert found.loc[("reinit", aligned), "gradient_steps"] in (0, 3)
    assert found.loc[("reinit", 0), "segment_max"] != found.loc[("reinit", 1), "segment_max"]


def test_a_network_whose_units_are_not_known_is_joined_as_it_is(tmp_path: Path) -> None:
    """Where the shapes tell it no cell tries; else the row says why there is no path."""
    connect = {"connect": {"iterations": 2, "points": 3, "size": 60}}
    few = {"levels": 1, "branches": ["reinit"], "geometry": connect}
    graph, _ = study(tmp_path / "narrow", narrow, **few).cells
    assert [n.labels["aligned"] for n in graph.nodes.values() if n.kind == "connection"] == [0]
    done = study(tmp_path / "square", square, **few).run(jobs=1, report=False)
    assert len(done.failures) == 0
    rows = done.membership.set_index("aligned")
    assert np.isfinite(rows.loc[0, "lowest_max"])
    assert np.isnan(rows.loc[1, "lowest_max"])
    assert "matching the hidden units changes the outputs of this network" in rows.loc[1, "reason"]


@pytest.mark.parametrize(
    ("branch", "same"),
    [("imp", True), ("finetune", True), ("at-init", True), ("gradual", True), ("other-mask", True),
     ("other-order", True), ("edge-popup-train", True), ("continuous-sparsification", True),
     ("reinit", False), ("reinit-signs", False), ("shuffle-weights", False)],
)  # fmt: skip
def test_the_draw_of_weights_that_a_branch_goes_back_to(tmp_path: Path, branch: str, same: bool) -> None:
    graph, (dense, s) = study(tmp_path, branches=[branch], geometry={}, levels=1).cells
    assert (drawn(graph, s.start) == drawn(graph, dense.start)) == same


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
        found = KINDS["join"].run(context, {**ends, **how, "size": SIZE, "policy": "averaged"}).values
        assert found["loss"]["maximum"] == float(lean.loss.max())
        assert len(seen) == lean.evaluations
        richer += rich.evaluations > lean.evaluations
    assert richer, "on some segment the barrier is not beside the maximum"
    joined = result.joins.query("of == 'loss'").iloc[0]
    ends = [result.point("dense", seed=3), result.point("imp", 1, seed=3)]
    assert joined["maximum"] == max(paths.segment(field, *ends, points=5, refine=2).loss)
