"""Curves that connect what no segment does, and searches that find nothing and say only that."""

from __future__ import annotations

import inspect
import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from cases import named
from sublevel.errors import ConfigError
from sublevel.field import Autograd, EveryExample, Quadratic, Stochastic, Wells
from sublevel.geometry.paths import along, segment
from sublevel.geometry.paths.connection import connected
from sublevel.geometry.paths.curve_training import CurveTraining, train_curve
from sublevel.geometry.paths.curves import Curve
from sublevel.risk import MiniBatches
from sublevel.rng import generator
from sublevel.space import Point, lerp

F64 = torch.float64


def t(*values):
    return torch.tensor(values, dtype=F64)


RING = Autograd(lambda x: (x.norm() - 1) ** 2, 2)
EAST, WEST = t(1.0, 0.0), t(-1.0, 0.0)
DESCENTS = [CurveTraining(), CurveTraining(optimizer="sgd", lr=0.1)]


def highest(field, path, points=1001):
    """The maximum on a grid that the search has not seen."""
    return max(field.loss(path(i / (points - 1))) for i in range(points))


# --- Known answers.


@pytest.mark.parametrize("how", DESCENTS, ids=["adam", "sgd"])
@pytest.mark.parametrize("bends", [(1,), (3,)], ids=["bezier", "chain"])
def test_opposite_points_of_a_ring_are_joined_by_a_curve_though_the_segment_has_a_barrier(bends, how):
    answer = connected(RING, EAST, WEST, 0.05, bends=bends, how=how)
    assert (answer.inside, answer.found) == (True, "curve")
    assert answer.segment == pytest.approx(1.0)
    assert answer.lowest_maximum <= 0.05
    assert answer.excess == answer.lowest_maximum - 0.05
    assert highest(RING, answer.path) <= 0.05
    assert answer.path.kind == ("bezier" if bends == (1,) else "chain")
    assert answer.reason == ""


def test_a_convex_set_needs_no_curve():
    answer = connected(Quadratic(t(1.0, 4.0)), t(1.0, 0.0), t(0.0, 1.0), 2.0)
    assert (answer.inside, answer.found, answer.lowest_maximum) == (True, "segment", 2.0)
    assert answer.effort == {"evaluations": len(answer.profile.alphas), "gradient_steps": 0}
    assert answer.attempts == ()
    assert math.isnan(answer.curve)


@cache
def valley():
    """A parabola of zero loss in a random plane of R^10,000, walls in every other direction."""
    drawn = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    u, v = torch.linalg.qr(drawn).Q.T

    def loss(x):
        s, h = x @ u, x @ v
        return 2 * (h - (1 - s**2)) ** 2 + (x @ x - s**2 - h**2) / 2

    return Autograd(loss, 10_000), u, v


@pytest.mark.parametrize("how", DESCENTS, ids=["adam", "sgd"])
def test_a_curved_valley_in_ten_thousand_dimensions_is_found(how):
    """The quadratic Bezier curve with its bend at 2v is the valley's floor itself; the segment climbs to 2."""
    field, u, v = valley()
    answer = connected(field, u, -u, 0.01, how=how)
    assert answer.found == "curve"
    assert answer.segment == pytest.approx(2.0)
    assert highest(field, answer.path, 201) <= 0.01
    assert float((answer.path.bends[0] - 2 * v).norm()) < 0.2


TWO = Wells(t(0.0, 0.0, 3.0, 0.0).reshape(2, 2), width=0.5)
SADDLE = 9 / 8 - 0.25 * math.log(2)


def test_two_wells_are_not_found_below_their_saddle_and_the_effort_is_told():
    """No path is lower than the saddle at any effort, so a lower maximum would be a hole in the grid."""
    answer = connected(TWO, t(0.0, 0.0), t(3.0, 0.0), 0.9, effort=(30, 60))
    assert (answer.inside, answer.found) == (False, "not found")
    assert SADDLE * 0.999 <= answer.lowest_maximum <= SADDLE + 1e-9
    assert answer.excess == pytest.approx(SADDLE - 0.9, rel=0.02)
    assert [(a.kind, a.bends, a.steps) for a in answer.attempts] == [
        ("bezier", 1, 30),
        ("chain", 3, 30),
        ("bezier", 1, 60),
        ("chain", 3, 60),
    ]
    assert answer.effort["gradient_steps"] == 180
    assert answer.effort["evaluations"] == 29 + sum(a.evaluations for a in answer.attempts)


def test_two_wells_are_inside_just_above_their_saddle():
    answer = connected(TWO, t(0.0, 0.0), t(3.0, 0.0), SADDLE + 1e-6)
    assert answer.found == "segment"


# --- Segment and curve are compared fairly.


def test_every_path_is_judged_by_as_many_evaluations():
    answer = connected(RING, EAST, WEST, 1e-9, effort=(20, 40))
    counts = {a.evaluations for a in answer.attempts} | {answer.profile.evaluations}
    assert counts == {29}  # 21 on the grid, two at each of four refinements
    assert len(answer.attempts) == 4
    assert answer.effort == {"evaluations": 5 * 29, "gradient_steps": 120}


def test_segment_and_curve_can_be_compared_whatever_the_threshold():
    answer = connected(RING, EAST, WEST, -math.inf, effort=(100,))
    assert not answer.inside
    assert answer.segment == pytest.approx(1.0)
    assert answer.curve == answer.lowest_maximum < 0.05
    assert len(answer.attempts) == 2


def test_the_search_ends_where_no_path_can_be_lower():
    answer = connected(Quadratic(t(1.0, 4.0)), t(1.0, 0.0), t(0.0, 1.0), 1.0)
    assert not answer.inside
    assert answer.attempts == ()
    assert answer.reason == "an end lies above the threshold: its loss is 2"


def test_excess_is_a_function_of_the_threshold():
    answer = connected(TWO, t(0.0, 0.0), t(3.0, 0.0), 0.5, effort=(20,))
    excess = answer.excess_over([0.5, answer.lowest_maximum, 2.0])
    assert excess.tolist() == [answer.excess, 0.0, answer.lowest_maximum - 2.0]


def test_a_curve_is_judged_at_equal_distances_not_at_equal_times():
    """Twenty-one equal times step over a wall in the longer piece of a chain that is crossed in a single step."""
    wall = Autograd(lambda x: torch.exp(-((x[0] - 5.5) ** 2) / 0.08), 2)
    chain = Curve("chain", Point(t(0.0, 0.0)), Point(t(10.5, 0.0)), t(10.0, 0.0)[None])
    assert along(wall, chain, refine=0).barrier().maximum < 0.05
    assert along(wall, chain.at_length, refine=0).barrier().maximum > 0.4


def test_refinement_closes_in_on_a_saddle_that_the_grid_stands_beside():
    """Twenty points stand on both sides of it: coarse, the maximum is below that of any path there is."""
    chain = Curve("chain", Point(t(0.0, 0.0)), Point(t(3.0, 0.0)), t(2.0, 0.0)[None])
    coarse, fine = (along(TWO, chain.at_length, points=20, refine=n).barrier().maximum for n in (0, 8))
    assert coarse < SADDLE - 0.01
    assert fine == pytest.approx(SADDLE, abs=1e-4)


def test_the_search_judges_its_curves_at_equal_distances():
    answer = connected(RING, EAST, WEST, 0.05, bends=(3,))
    assert answer.found == "curve"
    even, timed = (along(RING, path, refine=4, chord=False) for path in (answer.path.at_length, answer.path))
    assert answer.profile.loss.tolist() == even.loss.tolist()
    assert even.loss.tolist() != timed.loss.tolist()


# --- What a curve is.


def test_a_straight_curve_is_the_segment():
    a, b = t(1.0, 2.0, -1.0), t(0.0, 5.0, 1.0)
    for kind in ("bezier", "chain"):
        for bends in (0, 1, 2, 5):
            curve = Curve.straight(a, b, kind=kind, bends=bends)
            assert curve(0.0).theta is a
            assert curve.at_length(1.0).theta is b
            for alpha in (0.1, 1 / 3, 0.77):
                for place in (curve(alpha), curve.at_length(alpha)):
                    torch.testing.assert_close(place.theta, lerp(Point(a), Point(b), alpha).theta)
            assert curve.length == pytest.approx(float((b - a).norm()))


def test_a_bezier_curve_by_de_casteljau():
    points = torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=F64)
    curve = Curve("bezier", Point(points[0]), Point(points[-1]), points[1:-1])
    for time in (0.2, 0.5, 0.9):
        rows = points
        while len(rows) > 1:
            rows = (1 - time) * rows[:-1] + time * rows[1:]
        torch.testing.assert_close(curve(time).theta, rows[0])


def test_lengths_of_a_parabola_and_of_a_chain():
    corner = t(1.0, 2.0)
    bezier = Curve("bezier", Point(t(0.0, 0.0)), Point(t(3.0, 0.0)), corner[None])
    speed = lambda s: float((2 * (1 - s) * corner + 2 * s * (t(3.0, 0.0) - corner)).norm())  # noqa: E731
    assert bezier.length == pytest.approx(quad(speed, 0, 1)[0], rel=1e-5)
    chain = Curve("chain", bezier.start, bezier.end, bezier.bends)
    assert chain.length == pytest.approx(math.sqrt(5) + math.sqrt(8), rel=1e-12)
    places = torch.stack([bezier.at_length(i / 20).theta for i in range(21)])
    steps = places.diff(dim=0).norm(dim=1)
    assert float(steps.max() / steps.min()) < 1.02
    assert torch.equal(chain(0.5).theta, corner)


def test_statistics_are_lerped_in_time():
    case = named("normalised")
    start = case.point
    end = Point(start.theta + 1, {n: b + 2 if b.is_floating_point() else b for n, b in start.buffers.items()})
    curve = Curve.straight(start, end, bends=1)
    for name, buffer in curve(0.25).buffers.items():
        torch.testing.assert_close(buffer, start.buffers[name] + (0.5 if buffer.is_floating_point() else 0))


# --- How it is trained.


def test_the_first_step_is_the_gradient_at_the_time_that_was_drawn():
    curve = Curve("bezier", Point(EAST), Point(WEST), t(0.1, 0.7)[None])
    how = CurveTraining(steps=1, optimizer="sgd", lr=0.3, jitter=0.0)
    moved = train_curve(EveryExample(RING), curve, how, seed=4).curve.bends[0]
    time = float(torch.rand((), generator=generator(4, "curve", 0), dtype=F64))
    bend = t(0.1, 0.7).requires_grad_()
    place = (1 - time) ** 2 * EAST + 2 * time * (1 - time) * bend + time**2 * WEST
    (gradient,) = torch.autograd.grad((place.norm() - 1) ** 2, bend)
    torch.testing.assert_close(moved, t(0.1, 0.7) - 0.3 * gradient)
    assert torch.equal(curve.bends[0], t(0.1, 0.7))


def test_training_lowers_the_mean_loss_along_the_curve():
    trained = train_curve(EveryExample(RING), Curve.straight(EAST, WEST, kind="chain", bends=4))
    assert trained.losses[:30].mean() > 10 * trained.losses[-30:].mean()
    assert len(trained.losses) == 300


def test_a_seed_decides_every_bit():
    def bends(seed):
        return train_curve(
            EveryExample(RING), Curve.straight(EAST, WEST), CurveTraining(steps=20), seed=seed
        ).curve.bends

    assert torch.equal(bends(0), bends(0))
    assert not torch.equal(bends(0), bends(1))


def test_a_straight_curve_is_a_saddle_that_the_jitter_leaves():
    """On the ring's diameter the gradient has no component across: without a push the curve stays straight."""
    line, stuck = Curve.straight(EAST, WEST), CurveTraining(jitter=0.0)
    assert float(train_curve(EveryExample(RING), line, stuck).curve.bends[0, 1]) == 0.0
    assert abs(float(train_curve(EveryExample(RING), line).curve.bends[0, 1])) > 1.5
    assert not connected(RING, EAST, WEST, 0.9, how=stuck, effort=(100,)).inside


def test_the_learning_rate_has_the_scale_of_the_ends():
    """The same landscape, a thousand times larger: the same curve, a thousand times larger."""
    large = Autograd(lambda x: (x.norm() / 1000 - 1) ** 2, 2)
    how = CurveTraining(steps=100)
    small = train_curve(EveryExample(RING), Curve.straight(EAST, WEST), how).curve.bends
    big = train_curve(EveryExample(large), Curve.straight(1000 * EAST, 1000 * WEST), how).curve.bends
    torch.testing.assert_close(big, 1000 * small, rtol=1e-3, atol=0.0)


def pulled(x):
    """A ring in the first two coordinates; the third is drawn away from 0."""
    return (x[:2].norm() - 1) ** 2 + (x[2] - 5) ** 2 / 50


def test_a_mask_keeps_the_curve_in_its_subspace():
    field = Autograd(pulled, 4)
    a, b = t(1.0, 0.0, 0.0, 0.0), t(-1.0, 0.0, 0.0, 0.0)
    mask = torch.tensor([True, True, False, False])
    inside = connected(field, a, b, 0.55, mask=mask)
    assert inside.found == "curve"
    assert torch.equal(inside.path.bends[:, 2:], torch.zeros(len(inside.path.bends), 2, dtype=F64))
    free = connected(field, a, b, 0.55)
    assert float(free.path.bends[:, 2].abs().max()) > 0.05


def test_ends_outside_the_mask_are_refused():
    """Lerped, their weights would be on the curve all the same."""
    mask = torch.tensor([True, False])
    with pytest.raises(ValueError, match="the end has 1 non-zero coordinates outside the mask: take the union"):
        connected(RING, EAST, t(0.0, 1.0), 0.1, mask=mask)
    with pytest.raises(ValueError, match="a mask of length 3 does not fit a curve in dimension 2"):
        connected(RING, EAST, WEST, 0.1, mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="keeps no coordinate"):
        connected(RING, 0 * EAST, 0 * WEST, 0.1, mask=torch.zeros(2, dtype=torch.bool))


def descended(case, field, seed, steps=100):
    """A solution of a case, from another initialisation."""
    noise = torch.Generator().manual_seed(seed)
    theta = torch.randn(case.space.dim, generator=noise, dtype=F64)
    for _ in range(steps):
        theta = theta - 0.3 * field.grad(Point(theta, case.point.buffers))
    return Point(theta, case.point.buffers)


@pytest.mark.parametrize(("name", "policy"), [("perceptron", "stored"), ("normalised", "recomputed")])
def test_networks_are_joined_lower_than_on_the_segment_from_batches(name, policy):
    case = named(name)
    field = case.field(policy)
    a, b = descended(case, field, 1), descended(case, field, 2)
    batches = MiniBatches(field, batch_size=10)
    answer = connected(field, a, b, -math.inf, stochastic=batches, effort=(150,))
    straight = segment(field, a, b, refine=4)
    assert answer.segment == straight.barrier().maximum
    ends = max(field.loss(a), field.loss(b))
    assert answer.segment > ends + 0.1
    assert answer.curve - ends < 0.7 * (answer.segment - ends)
    assert answer.profile.policy == {"stored": "none"}.get(policy, policy)
    assert answer.profile.loss[0] == field.loss(a)


# --- What is refused or flagged.


class Breaks(Stochastic):
    """A ring whose batch at step 3 has no finite loss."""

    dim, examples = 2, 1

    def loss_and_grad(self, at, step):
        loss, grad = EveryExample(RING).loss_and_grad(at, step)
        return (loss * math.nan, grad * math.nan) if step == 3 else (loss, grad)


def test_a_curve_that_diverges_is_flagged_and_the_segment_stands():
    answer = connected(RING, EAST, WEST, 0.05, stochastic=Breaks(), effort=(10,))
    assert (answer.found, answer.lowest_maximum) == ("not found", pytest.approx(1.0))
    assert [a.reason for a in answer.attempts] == ["the loss in training is nan at step 3"] * 2
    assert all(math.isnan(a.maximum) and a.evaluations == 0 for a in answer.attempts)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_never_inside(value):
    class Hole(Quadratic):
        def loss(self, at):
            return self.evaluate(at).loss

        def evaluate(self, at):
            found = super().evaluate(at)
            return found if abs(float(at.theta[0])) > 0.3 else type(found)(value)

    answer = connected(Hole(t(0.0, 0.0)), EAST, WEST, 1e9, effort=(5,))
    assert not answer.inside
    assert not answer.excess <= 0
    assert "not finite" in answer.reason


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(TypeError, match=r"a search for a connection needs a field .* changes from call to call"):
        inspect.unwrap(connected)(EveryExample(RING), EAST, WEST, 0.1)
    with pytest.raises(TypeError, match="a curve is trained on a Stochastic field, got Autograd"):
        inspect.unwrap(train_curve)(RING, Curve.straight(EAST, WEST))
    with pytest.raises(ValueError, match="a threshold is a height of the loss, got nan"):
        connected(RING, EAST, WEST, math.nan)
    with pytest.raises(ValueError, match=r"counts of at least 1, got \(0,\) and \(1, 3\)"):
        connected(RING, EAST, WEST, 0.1, effort=(0,))
    with pytest.raises(ValueError, match="trained in dimension 3 do not lie in a field of dimension 2"):
        connected(RING, EAST, WEST, 0.1, stochastic=EveryExample(Quadratic(t(1.0, 1.0, 1.0))))
    with pytest.raises(ValueError, match="no curve joins points of dimension 2 and 3"):
        Curve.straight(EAST, t(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="0 bends or more, got -1"):
        Curve.straight(EAST, WEST, bends=-1)
    with pytest.raises(ValueError, match="a curve without bends has nothing to train"):
        train_curve(EveryExample(RING), Curve.straight(EAST, WEST, bends=0))
    with pytest.raises(ConfigError, match="unknown kind of curve 'bezir'; did you mean 'bezier'"):
        Curve.straight(EAST, WEST, kind="bezir")
    with pytest.raises(ConfigError, match="unknown optimizer of a curve 'rprop'; allowed: adam, sgd"):
        CurveTraining(optimizer="rprop")
    with pytest.raises(ValueError, match="needs steps >= 1, lr > 0 and jitter >= 0, got 0"):
        CurveTraining(steps=0)


def test_a_point_is_connected_to_itself():
    answer = connected(RING, EAST, EAST, 0.0)
    assert (answer.inside, answer.found, answer.path.length) == (True, "segment", 0.0)
    assert np.ptp(answer.profile.loss) == 0.0
