"""Path maxima and barriers where they are known, along nets under every policy, and where values are not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cases import CASES_BY_POLICY, ids, naive_losses, naive_outputs, named
from sublevel.errors import ConfigError
from sublevel.field import Autograd, Evaluation, Quadratic, Wells
from sublevel.geometry.paths import barrier, segment
from sublevel.space import Point, lerp

F64 = torch.float64


def t(*values):
    return torch.tensor(values, dtype=F64)


def line(function):
    """A field on R whose loss along [0, 1] is a function of alpha."""
    return Autograd(lambda theta: function(theta[0]), 1)


def test_convex_segments_have_no_height():
    field = Quadratic(t(1.0, 9.0), t(0.3, -2.0))
    found = barrier(field, t(4.0, 1.0), t(-1.0, 2.0))
    ends = field.loss(t(4.0, 1.0)), field.loss(t(-1.0, 2.0))
    assert (found.start, found.end) == ends
    assert found.height == 0.0
    assert found.barrier == 0.0
    assert found.maximum == max(ends)
    assert found.alpha in (0.0, 1.0)
    assert found.rise == pytest.approx(abs(ends[0] - ends[1]) / 2)
    assert found.margin == 0.0


def test_every_definition_on_a_concave_parabola():
    """q = -(x - 0.6)^2 from x = 0 to 1: maximum 0 at 0.6, over the higher end 0.16, over the chord 1/4 at 1/2."""
    field = line(lambda x: -((x - 0.6) ** 2))
    found = barrier(field, t(0.0), t(1.0))
    assert found.alpha == pytest.approx(0.6)
    assert found.maximum == pytest.approx(0.0, abs=1e-15)
    assert found.height == pytest.approx(0.16)
    assert found.barrier == pytest.approx(0.25)
    assert found.rise == pytest.approx((0.36 + 0.16) / 2)


@pytest.mark.parametrize("distance", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("width", [0.3, 0.5])
def test_two_wells_meet_at_their_saddle(distance, width):
    """Half-way both terms are equal: the loss is d^2 / 8 - s^2 log 2."""
    field = Wells(t(0.0, 0.0, distance, 0.0).reshape(2, 2), width=width)
    found = barrier(field, t(0.0, 0.0), t(distance, 0.0))
    saddle = distance**2 / 8 - width**2 * math.log(2)
    assert found.alpha == 0.5
    assert found.maximum == pytest.approx(saddle, rel=1e-12)
    well = field.loss(t(0.0, 0.0))
    assert found.height == pytest.approx(saddle - well, rel=1e-12)
    assert found.barrier == pytest.approx(found.height, rel=1e-9)
    assert found.margin == 0.0


def test_refinement_climbs_a_bump_between_the_points_and_the_margin_says_by_how_much():
    centre, width = 0.536, 0.02

    def bump(x):
        return torch.exp(-((x - centre) ** 2) / (2 * width**2))

    coarse = segment(line(bump), t(0.0), t(1.0), refine=0).barrier()
    fine = segment(line(bump), t(0.0), t(1.0), refine=2).barrier()
    seen = float(bump(t(0.55)[0]))
    assert coarse.maximum == pytest.approx(seen)
    assert coarse.margin == 0.0
    assert fine.maximum > coarse.maximum
    assert fine.margin == pytest.approx(fine.maximum - seen)
    assert fine.alpha == pytest.approx(0.5375)
    assert segment(line(bump), t(0.0), t(1.0), refine=8).barrier().maximum == pytest.approx(1.0, abs=1e-3)


def test_refinement_follows_the_error_too():
    class Steps(Quadratic):
        def evaluate(self, at):
            alpha = float(at.theta if isinstance(at, Point) else at)
            return Evaluation(loss=abs(alpha - 0.2), error=0.5 if 0.76 < alpha < 0.84 else 0.1)

    profile = segment(Steps(t(1.0)), t(0.0), t(1.0))
    assert profile.barrier("error").maximum == 0.5
    near = profile.alphas[(profile.alphas > 0.75) & (profile.alphas < 0.85)]
    assert len(near) > 1
    assert profile.barrier("error").height == pytest.approx(0.4)


def test_profile_is_a_sorted_grid_with_both_ends():
    profile = segment(Quadratic(t(-2.0)), t(-1.0), t(1.0), points=5, refine=1)
    assert profile.alphas.tolist() == [0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0]
    assert profile.coarse.tolist() == [True, True, False, True, False, True, True]
    assert profile.loss.tolist() == [-((2 * a - 1) ** 2) for a in profile.alphas]
    assert np.isnan(profile.error).all()
    assert profile.policy == "none"


@given(ends=st.tuples(st.floats(-3, 3), st.floats(-3, 3)), curvature=st.floats(-4, 4), points=st.integers(3, 30))
def test_relations_between_the_definitions(ends, curvature, points):
    found = barrier(Quadratic(t(curvature)), t(ends[0]), t(ends[1]), points=points)
    assert found.height >= 0
    assert found.barrier >= found.height - 1e-12
    assert found.rise >= found.height - 1e-12
    assert found.margin >= 0
    assert found.maximum == pytest.approx(max(found.start, found.end) + found.height, abs=1e-12)
    truth = max(-curvature * (ends[1] - ends[0]) ** 2 / 8, 0)  # over the chord, at 1/2
    assert found.barrier <= truth + 1e-9


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_way_back_has_the_same_heights(a, b):
    field = line(lambda x: torch.sin(3 * x) + 0.2 * x)
    there, back = barrier(field, t(a), t(b)), barrier(field, t(b), t(a))
    for name in ("maximum", "height", "barrier", "rise"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), abs=5e-3)


def test_a_path_from_a_point_to_itself_is_flat():
    case = named("convolution")
    found = segment(case.field(), case.point, case.point).barrier()
    assert (found.height, found.rise, found.margin) == (0.0, 0.0, 0.0)
    assert found.barrier == pytest.approx(0.0, abs=1e-15)


def other(case):
    rng = torch.Generator().manual_seed(5)
    theta = case.point.theta + 0.4 * torch.randn(case.space.dim, generator=rng, dtype=F64)
    buffers = {n: 1.3 * b + 0.2 if b.is_floating_point() else b + 5 for n, b in case.point.buffers.items()}
    return Point(theta, buffers)


@pytest.mark.parametrize(("case", "policy"), CASES_BY_POLICY, ids=map(ids, CASES_BY_POLICY))
def test_every_net_along_a_segment(case, policy):
    """Ends are exactly the loss at the ends; between them statistics are lerped, or those of each alpha."""
    field, end = case.field(policy), other(case)
    profile = segment(field, case.point, end, points=5, refine=0)
    assert profile.loss[0] == field.loss(case.point)
    assert profile.loss[-1] == field.loss(end)
    assert profile.error[-1] == field.evaluate(end).error or case.loss == "squared"
    assert profile.policy == {"stored": "averaged" if case.space.statistics else "none"}.get(policy, policy)
    for alpha, loss in zip(profile.alphas[1:-1], profile.loss[1:-1], strict=True):
        theta = (1 - alpha) * case.point.theta + alpha * end.theta
        mixed = {
            n: (1 - alpha) * b + alpha * end.buffers[n] if b.is_floating_point() else b
            for n, b in case.point.buffers.items()
        }
        outputs = naive_outputs(case, policy, Point(theta, mixed))(theta)
        assert loss == pytest.approx(float(naive_losses(case, outputs, case.data[1]).mean()), rel=1e-11)


def test_stored_statistics_are_those_of_the_start():
    case = named("normalised")
    end = other(case)
    profile = segment(case.field(), case.point, end, points=3, refine=0, buffers="stored")
    assert profile.policy == "stored"
    assert profile.loss[-1] == case.field().loss(Point(end.theta, case.point.buffers))
    assert profile.loss[1] == case.field().loss(Point(lerp(case.point, end, 0.5).theta, case.point.buffers))


def test_a_buffer_rule_that_is_none_is_refused():
    """It would be lerped in silence and written into tables under the wrong name."""
    case = named("normalised")
    with pytest.raises(ConfigError, match=r"unknown buffers of a path 'recomputed'.*averaged, stored"):
        segment(case.field(), case.point, case.point, buffers="recomputed")


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="at least 3 points, got 2"):
        segment(Quadratic(t(1.0)), t(0.0), t(1.0), points=2)


class Wall(Quadratic):
    """Not finite on a part of the segment."""

    def __init__(self, value, low, high):
        super().__init__(t(1.0))
        self.value, self.low, self.high = value, low, high

    def evaluate(self, at):
        alpha = float(at.theta if isinstance(at, Point) else at)
        return Evaluation(self.value if self.low <= alpha <= self.high else alpha, 0.5)


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.0, 0.1), (0.9, 1.0), (0.0, 1.0)])
def test_infinity_on_the_path_is_the_maximum(low, high):
    profile = segment(Wall(math.inf, low, high), t(0.0), t(1.0))
    found = profile.barrier()
    assert found.maximum == math.inf
    if low > 0 and high < 1:
        assert found.height == found.barrier == found.rise == math.inf
    else:
        assert not found.height < math.inf
    assert profile.barrier("error").maximum == 0.5


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.0, 0.1), (0.9, 1.0)])
def test_nan_on_the_path_is_no_barrier_of_zero(low, high):
    found = segment(Wall(math.nan, low, high), t(0.0), t(1.0)).barrier()
    assert math.isnan(found.maximum)
    assert math.isnan(found.height)
    assert math.isnan(found.barrier)
    assert low <= found.alpha <= high


def test_the_barrier_over_the_chord_is_refined_where_it_is():
    """On a path that falls, the maximum is an end; the bump between two points of the grid is not."""

    def bump(x):
        return 1 - x[0] + 0.3 * torch.exp(-(((x[0] - 0.525) / 0.02) ** 2))

    field = Autograd(bump, 1)
    a, b = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = segment(field, a, b).barrier()
    assert (found.maximum, found.alpha, found.margin) == (1.0, 0.0, 0.0)
    assert found.barrier == pytest.approx(0.3, abs=1e-9)
    assert found.barrier_alpha == pytest.approx(0.525)
    assert found.barrier_margin == pytest.approx(0.3 - 0.3 * math.exp(-1.5625), abs=1e-9)
