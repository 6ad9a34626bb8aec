"""Many points in one pass over the examples, and a value with its gradient: to the bit what one at a time gives."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from cases import CASES_BY_POLICY, ids, named
from sublevel.field import Quadratic, Restricted
from sublevel.inputs import each
from sublevel.problem import Problem
from sublevel.risk import Calibration, EmpiricalRisk, empirical
from sublevel.space import Point, Space

every = pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))


def around(case, count: int = 4) -> list[Point]:
    draw = torch.Generator().manual_seed(2)
    steps = (torch.randn(case.space.dim, generator=draw, dtype=case.point.theta.dtype) for _ in range(count))
    return [Point(case.point.theta + 0.1 * step, case.point.buffers) for step in steps]


def same(one, two) -> bool:
    """Equal, where nan is equal to nan."""
    return repr(one) == repr(two)


@every
@pytest.mark.parametrize(("limit", "count"), [("NUMBERS", 1), ("NUMBERS", 3), ("POINTS", 3), ("POINTS", 64)])
def test_many_points_are_one_after_another(case, policy, limit, count, monkeypatch):
    monkeypatch.setattr(empirical, limit, count * (case.space.dim if limit == "NUMBERS" else 1))
    assert empirical.together(case.space.dim) == count
    points = around(case)
    alone = [case.field(policy).evaluate(point) for point in points]
    assert same(case.field(policy).evaluations(iter(points)), alone)
    assert len({seen.loss for seen in alone}) == len(points)


@every
def test_a_value_with_its_gradient(case, policy):
    field = case.field(policy)
    seen, gradient = field.evaluation_and_grad(case.point)
    assert same(seen, case.field(policy).evaluate(case.point))
    assert torch.equal(gradient, case.field(policy).grad(case.point))


def test_fields_without_examples_have_both_too():
    bowl = Quadratic(torch.tensor([2.0, 8.0], dtype=torch.float64))
    points = [torch.tensor([x, 1.0], dtype=torch.float64) for x in (0.0, 1.0)]
    assert [seen.loss for seen in bowl.evaluations(points)] == [4.0, 5.0]
    seen, gradient = bowl.evaluation_and_grad(points[1])
    assert (seen.loss, gradient.tolist()) == (5.0, [2.0, 8.0])
    inside = Restricted(bowl, torch.tensor([True, False]), points[0])
    assert [seen.loss for seen in inside.evaluations(torch.tensor([[0.0], [1.0]], dtype=torch.float64))] == [4.0, 5.0]


class Counting(torch.nn.Module):
    """Writes into its inputs, and counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out, self.passes = nn.BatchNorm1d(4), nn.Linear(4, 3), 0

    def forward(self, x):
        self.passes += 1
        return self.out(self.norm(x.mul_(2)))


@pytest.mark.parametrize("policy", ["stored", "recomputed"])
def test_a_network_that_writes_into_its_inputs_spoils_no_other_point(policy):
    net = Counting()
    space, x = Space.of(net), torch.randn(30, 4)
    field = EmpiricalRisk(space, net, x, torch.arange(30) % 3, policy=policy, batch_size=8, prepare=torch.clone)
    points = [space.point(net)] * 2
    points[1] = Point(points[1].theta * 1.1, points[1].buffers)
    assert field.evaluations(points) == [field.evaluate(point) for point in points]


def test_points_that_are_one_tensor_written_anew_are_seen_as_they_were():
    case = named("perceptron")
    scratch, points = case.point.theta.clone(), around(case, 3)
    alone = [case.field("stored").evaluate(point) for point in points]
    walk = (Point(scratch.copy_(point.theta), point.buffers) for point in points)
    assert case.field("stored").evaluations(walk) == alone


class Doubled(EmpiricalRisk):
    """A user's own, which knows `evaluate` and `grad` alone."""

    def evaluate(self, at):
        seen = super().evaluate(at)
        return replace(seen, loss=2 * seen.loss)

    def grad(self, at):
        return 2 * super().grad(at)


def test_what_a_subclass_computes_is_not_gone_around():
    case = named("perceptron")
    plain, field = (kind(case.space, case.module, *case.data, loss=case.loss) for kind in (EmpiricalRisk, Doubled))
    points = around(case, 2)
    assert [e.loss for e in field.evaluations(points)] == [2 * plain.loss(p) for p in points]
    seen, gradient = field.evaluation_and_grad(points[0])
    assert seen.loss == 2 * plain.loss(points[0])
    assert torch.equal(gradient, 2 * plain.grad(points[0]))


def test_layers_that_are_faster_without_a_gradient():
    """PyTorch's encoder layer takes another way under no_grad: many points are one after another all the same."""
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(24, 3))
    space = Space.of(net)
    field = EmpiricalRisk(space, net, torch.randn(30, 3, 8), torch.arange(30) % 3, batch_size=10)
    at = space.point(net)
    alone = field.evaluate(at)
    assert field.evaluations([at, at]) == [alone, alone]
    seen, gradient = field.evaluation_and_grad(at)
    assert seen.loss == pytest.approx(alone.loss, rel=1e-6)
    assert torch.equal(gradient, field.grad(at))


def test_examples_are_read_once_for_all_points():
    case, reads = named("perceptron"), []

    def prepare(x):
        reads.append(len(x))
        return each(x, torch.clone)

    field = case.field("stored", prepare=prepare)
    field.evaluations(around(case, 5))
    assert sum(reads) == case.examples


def problem() -> Problem:
    x, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(3)), torch.arange(60) % 3
    return Problem(Counting, train=(x, y), test=(x[:20], y[:20]), validation=0, version="1", dtype="float64")


def test_statistics_of_a_point_are_recomputed_once_for_training_and_test_loss():
    p = problem()
    at, module = p.init(0), p.module
    assert isinstance(module, Counting)
    train, test = (p.field(split, size=30, policy="recomputed", batch_size=10) for split in ("train", "test"))
    alone = problem().field("test", size=30, policy="recomputed", batch_size=10).evaluate(at)
    module.passes = 0
    train.evaluate(at)
    assert module.passes == 3 + 3, "statistics and losses"
    assert test.evaluate(at) == alone
    assert module.passes == 3 + 3 + 2, "losses alone"
    test.evaluations([at, Point(at.theta * 1.1, at.buffers)])
    assert module.passes == 3 + 3 + 2 + 2 + (3 + 2), "one of the points is known"


def test_statistics_are_known_by_content_and_forgotten_in_order():
    case = named("normalised")
    one, two, three = around(case, 3)
    of = Calibration(case.space, case.module, case.data[0], lambda x: x, 20, memory=2)
    first = of.at([one])[0]
    again = of.at([Point(one.theta.clone(), one.buffers)])[0]
    assert all(again.buffers[name] is first.buffers[name] for name in ("1.running_mean", "1.running_var"))
    of.at([two])
    of.at([one])  # asked for again, so that it is not the next to be forgotten
    of.at([three])
    assert of.at([one])[0].buffers["1.running_mean"] is first.buffers["1.running_mean"]
    of.at([two, three])
    anew = of.at([one])[0]
    assert anew.buffers["1.running_mean"] is not first.buffers["1.running_mean"]
    assert torch.equal(anew.buffers["1.running_mean"], first.buffers["1.running_mean"])
    one.theta.mul_(1.5)
    assert not torch.equal(of.at([one])[0].buffers["1.running_mean"], first.buffers["1.running_mean"])


def test_statistics_are_not_those_of_other_constants_or_examples():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    space = Space.of(net)
    of = Calibration(space, net, x, lambda rows: rows, 10)
    at = space.point(net)
    seen = [of.at([at])[0].buffers["1.running_mean"]]
    with torch.no_grad():
        net[0].weight.mul_(2)
    seen.append(of.at([at])[0].buffers["1.running_mean"])
    x.add_(1)
    seen.append(of.at([at])[0].buffers["1.running_mean"])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_a_problem_that_has_recomputed_statistics_can_be_copied():
    p = problem()
    at = p.init(0)
    loss = p.field("train", policy="recomputed").loss(at)
    assert copy.deepcopy(p).field("train", policy="recomputed").loss(at) == loss


def test_half_precision_has_statistics_too():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).bfloat16()
    space, x = Space.of(net), torch.randn(30, 4).bfloat16()
    moved = Calibration(space, net, x, lambda rows: rows, 10).at([space.point(net)])[0]
    assert moved.buffers["1.running_mean"].dtype == torch.bfloat16
    assert bool(moved.buffers["1.running_mean"].any())
