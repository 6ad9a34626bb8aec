"""A vector without the buffers that the loss depends on is refused; a field that reads none takes it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import sublevel as sl
from cases import CASES_BY_POLICY, Case, ids, named
from sublevel.errors import ModelError
from sublevel.field import EveryExample, Restricted, Sum, plus_weight_decay
from sublevel.geometry import curvature, paths, planes, volume
from sublevel.geometry.paths.curves import Curve
from sublevel.geometry.volume.langevin import ChainOptions, sample
from sublevel.risk import MiniBatches
from sublevel.space import Point, lerp

F64 = torch.float64
BN = named("normalised")
READS = ("convolution", "normalised")


def other(case: Case, seed: int) -> Point:
    noise = torch.randn(case.space.dim, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return Point(
        case.point.theta + noise, {n: b * 2 if b.is_floating_point() else b for n, b in case.point.buffers.items()}
    )


def bends(field, at) -> None:
    start = Curve.straight(BN.point, at)
    paths.train_curve(MiniBatches(field, batch_size=20), start, paths.CurveTraining(steps=2))


def plane(field, at) -> None:
    planes.scan(
        field, planes.plane_through(BN.point, at, other(BN, 2), buffers="nearest"), [-1.0, 0.0, 20.0], [0.0, 1.0]
    )


def stored(frame: planes.Frame) -> planes.Frame:
    """The plane with the buffers of its anchor, where by default they are recomputed."""
    return replace(frame, buffers="first")


GRID = [0.0, 1.0], [0.0, 1.0]
AXES = torch.eye(BN.space.dim, dtype=F64)[:2]
V = torch.ones(BN.space.dim, dtype=F64)
BASE = SimpleNamespace(chains=1, burn_in=1, draws=4, step_size=1e-4, n_beta=10.0, gamma=1.0)
CALLS = {
    "loss": lambda f, at: f.loss(at),
    "evaluate": lambda f, at: f.evaluate(at),
    "evaluations": lambda f, at: f.evaluations([BN.point, at]),
    "losses": lambda f, at: f.losses(at),
    "grad": lambda f, at: f.grad(at),
    "evaluation_and_grad": lambda f, at: f.evaluation_and_grad(at),
    "hvp": lambda f, at: f.hvp(at, V),
    "ggn_vp": lambda f, at: f.ggn_vp(at, V),
    "fisher_vp": lambda f, at: f.fisher_vp(at, V),
    "example_grads": lambda f, at: list(f.example_grads(at)),
    "weight decay": lambda f, at: plus_weight_decay(f, 0.1).loss(at),
    "a sum, the second field": lambda f, at: Sum(sl.Quadratic(V), f).grad(at),
    "a restriction": lambda f, at: Restricted(f, V > 0, at),
    "every example": lambda f, at: EveryExample(f).loss_and_grad(at, 0),
    "minibatches": lambda f, at: MiniBatches(f).loss_and_grad(at, 0),
    "barrier": lambda f, at: paths.barrier(f, BN.point, at),
    "barrier, the other end": lambda f, at: paths.barrier(f, at, BN.point),
    "segment, stored": lambda f, at: paths.segment(f, BN.point, at, buffers="stored"),
    "along": lambda f, at: paths.along(f, lambda alpha: lerp(BN.point, Point(at), alpha)),
    "connected": lambda f, at: paths.connected(f, BN.point, at, 0.0, effort=(2,), bends=(1,)),
    "train_curve": bends,
    "plane": plane,
    "random plane": lambda f, at: planes.scan(f, stored(planes.random_plane(BN.space, at)), *GRID),
    "eigen plane": lambda f, at: planes.adaptive_scan(f, stored(planes.eigen_plane(at, AXES)), *GRID, tolerance=0.1),
    "profile": lambda f, at: planes.profile(f, at, V, [0.1]),
    "width": lambda f, at: planes.width(f, at, V, 0.1),
    "eigenvalues": lambda f, at: curvature.top_eigenvalues(f, at, k=1),
    "trace": lambda f, at: curvature.trace(f, at, probes=2),
    "diagonal": lambda f, at: curvature.diagonal(f, at, probes=2),
    "density": lambda f, at: curvature.spectral_density(f, at, probes=2, steps=3),
    "sample": lambda f, at: sample(MiniBatches(f), at, ChainOptions(**vars(BASE))),
    "llc": lambda f, at: volume.learning_coefficient(EveryExample(f), at, **vars(BASE)),
    **{
        f"volume {method}": lambda f, at, method=method, options=options: volume.log_volume(
            f, at, method=method, eps=0.1, **options
        )
        for method, options in {
            "top-k": {"k": 2},
            "logdet": {"damping": 0.1},
            "radial": {"radius": 1.0, "samples": 2},
            "importance": {"radius": 1.0, "samples": 2, "k": 2},
            "thermodynamic": {"gamma": 1.0, "draws": 4, "burn_in": 1},
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_bare_vector_is_refused_where_the_loss_reads_running_statistics(call):
    """Of the same weights one loss is 1.2 and the other, by the module's own statistics, another function's."""
    for bare in (other(BN, 1).theta, Point(other(BN, 1).theta)):
        if call == "along" and isinstance(bare, Point):
            continue
        with pytest.raises(ModelError, match=r"depends on buffers .*1.running_mean.*pass a Point.*policy='recomputed'"):
            CALLS[call](BN.field(), bare)


def test_what_the_message_says_to_pass_is_taken():
    at = other(BN, 1)
    assert BN.field().loss(Point(at.theta, at.buffers)) == BN.field().loss(at)
    recomputed = BN.field("recomputed")
    assert recomputed.loss(at.theta) == recomputed.loss(at)


def test_a_plane_recomputes_and_takes_a_bare_vector():
    at = other(BN, 1)
    for plane_at in (lambda at: planes.random_plane(BN.space, at), lambda at: planes.eigen_plane(at, AXES)):
        bare, whole = (planes.scan(BN.field(), plane_at(p), *GRID) for p in (at.theta, at))
        assert bare.loss.tolist() == whole.loss.tolist()
        assert bare.loss[0, 0] == BN.field("recomputed").loss(at)


@pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))
def test_a_field_that_reads_no_buffers_takes_a_vector_and_writes_nothing(case, policy):
    """All but BatchNorm under stored statistics. The module's own buffers stay as they were."""
    if policy == "stored" and case.space.statistics:
        return
    before = {n: b.clone() for n, b in case.module.named_buffers()}
    field, theta = case.field(policy), case.point.theta
    assert field.loss(theta) == field.loss(case.point)
    assert torch.equal(field.grad(theta), field.grad(case.point))
    v = torch.ones_like(theta)
    assert torch.equal(field.hvp(theta, v), field.hvp(case.point, v))
    assert field.evaluations([theta, case.point]) == [field.evaluate(case.point)] * 2
    for name, buffer in case.module.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_path_with_one_bare_end_is_recomputed():
    field, a, b = BN.field("recomputed"), BN.point, other(BN, 1)
    whole = paths.segment(field, a, b, points=3, refine=0)
    for ends in ((a.theta, b), (a, b.theta), (a.theta, b.theta)):
        assert paths.segment(field, *ends, points=3, refine=0).loss.tolist() == whole.loss.tolist()


class Feature(nn.Module):
    """A random projection that is no parameter, a mask of indices, and a table that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("drawn", torch.randn(4, 4, dtype=F64))
        self.register_buffer("order", torch.tensor([3, 2, 1, 0]))
        self.register_buffer("table", torch.ones(4, dtype=F64), persistent=False)
        self.out = nn.Linear(4, 3, dtype=F64)

    def forward(self, x):
        return self.out((x @ self.drawn)[:, self.order] * self.table)


def test_other_buffers_belong_to_a_point_too_but_for_constants():
    net = Feature()
    space, x = sl.Space.of(net), torch.randn(8, 4, dtype=F64)
    field, at = sl.EmpiricalRisk(space, net, x, torch.arange(8) % 3), space.point(net)
    with pytest.raises(ModelError, match=r"\(drawn; policy 'none'\): pass a Point") as error:
        field.loss(at.theta)
    assert "recomputed" not in str(error.value)
    assert field.loss(Point(at.theta, {"drawn": at.buffers["drawn"]})) == field.loss(at)


def test_the_statistics_of_another_point_are_another_function():
    """What was returned in silence: the module's own statistics in place of the point's."""
    at = other(BN, 1)
    theirs = Point(at.theta, dict(BN.module.named_buffers()))
    assert abs(BN.field().loss(at) - BN.field().loss(theirs)) > 0.01
