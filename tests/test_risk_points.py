"""Many points in one pass over the examples, and a value with its gradient: to the bit what one at a time gives."""

from __future__ import annotations

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
@pytest.mark.parametrize("together", [1, 3, 100])
def test_many_points_are_one_after_another(case, policy, together, monkeypatch):
    monkeypatch.setattr(empirical, "POINTS", together * case.space.dim)
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
    of.at([two, three])
    anew = of.at([one])[0]
    assert anew.buffers["1.running_mean"] is not first.buffers["1.running_mean"]
    assert torch.equal(anew.buffers["1.running_mean"], first.buffers["1.running_mean"])
    one.theta.mul_(1.5)
    assert not torch.equal(of.at([one])[0].buffers["1.running_mean"], first.buffers["1.running_mean"])
