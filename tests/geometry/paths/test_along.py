"""Profiles of any path, excess heights over a threshold, and losses on the way that are not finite."""

from __future__ import annotations

import inspect
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from cases import named
from sublevel.errors import ConfigError
from sublevel.field import Autograd, Evaluation, EveryExample, Quadratic
from sublevel.geometry.paths import along, barrier, segment
from sublevel.space import Point, lerp

F64 = torch.float64


def t(*values):
    return torch.tensor(values, dtype=F64)


def around(alpha):
    """The upper half of the unit circle, from (1, 0) to (-1, 0)."""
    return Point(t(math.cos(math.pi * alpha), math.sin(math.pi * alpha)))


def test_a_path_that_goes_around_a_hill_has_no_barrier_where_the_segment_has_one():
    ring = Autograd(lambda x: (x.norm() - 1) ** 2, 2)
    assert along(ring, around).barrier().maximum == pytest.approx(0.0, abs=1e-30)
    assert segment(ring, t(1.0, 0.0), t(-1.0, 0.0)).barrier().maximum == 1.0


def test_a_segment_is_the_profile_of_its_lerp_bit_for_bit():
    case = named("convolution")
    end = Point(case.point.theta + 0.3, case.point.buffers)
    path, line = along(case.field(), lambda alpha: lerp(case.point, end, alpha)), segment(case.field(), case.point, end)
    for name in ("alphas", "loss", "error", "coarse"):
        assert (getattr(path, name) == getattr(line, name)).all()
    assert path.policy == line.policy == "averaged"
    assert path.evaluations == len(line.alphas) > 21


def test_what_is_stored_of_a_barrier():
    """Its fields are written into tables and stored entries: a reason is read off them, not added to them."""
    found = barrier(Quadratic(t(-2.0)), t(-1.0), t(1.0))
    assert list(asdict(found)) == [
        *("start", "end", "maximum", "alpha", "height", "barrier", "rise", "margin"),
        *("barrier_alpha", "barrier_margin"),
    ]
    assert found.reason == ""


def test_refinement_on_a_path_works_as_on_a_segment():
    hill = Autograd(lambda x: torch.exp(-((torch.atan2(x[1], x[0]) / math.pi - 0.536) ** 2) / 0.0008), 2)
    assert along(hill, around, refine=0).barrier().maximum < 0.9
    assert along(hill, around, refine=10).barrier().maximum == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("threshold", "excess"), [(0.5, 0.5), (1.0, 0.0), (3.0, -2.0), (-math.inf, math.inf)])
def test_excess_is_the_maximum_over_the_threshold(threshold, excess):
    assert segment(Quadratic(t(-2.0), offset=1.0), t(-1.0), t(1.0)).excess(threshold) == excess


def test_excess_of_the_error():
    class Half(Quadratic):
        def evaluate(self, at):
            return Evaluation(0.0, 0.5)

    assert segment(Half(t(1.0)), t(0.0), t(1.0)).excess(0.2, "error") == pytest.approx(0.3)


def test_a_threshold_that_is_nan_is_refused():
    profile = segment(Quadratic(t(1.0)), t(0.0), t(1.0))
    with pytest.raises(ValueError, match="a threshold is a height of the loss or error, got nan"):
        profile.excess(math.nan)
    with pytest.raises(ConfigError, match="unknown quantity of a profile 'los'; did you mean 'loss'"):
        profile.barrier("los")


class Wall(Quadratic):
    """Not finite on a part of the segment."""

    def __init__(self, value):
        super().__init__(t(1.0))
        self.value = value

    def evaluate(self, at):
        alpha = float(at.theta if isinstance(at, Point) else at)
        return Evaluation(self.value if 0.42 <= alpha <= 0.58 else alpha)


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf])
def test_losses_that_are_not_finite_are_named(value):
    """Minus infinity too: a maximum passes over it, and the barrier would be the finite one of the rest."""
    profile = segment(Wall(value), t(0.0), t(1.0))
    assert profile.reason == f"the loss is not finite at 3 of 21 points, first at alpha = 0.45 ({value})"
    found = profile.barrier()
    assert not math.isfinite(found.maximum)
    assert not found.height < math.inf
    assert found.reason.startswith("not finite on the path")
    assert not profile.excess(100.0) <= 0


def test_finite_losses_have_no_reason():
    profile = segment(Quadratic(t(1.0)), t(0.0), t(1.0))
    assert profile.reason == profile.barrier().reason == profile.barrier("loss").reason == ""
    assert np.isfinite(profile.loss).all()


def test_a_stochastic_field_is_refused():
    noisy = EveryExample(Quadratic(t(1.0)))
    with pytest.raises(TypeError, match=r"a segment needs a field .* got EveryExample: its value changes from call"):
        inspect.unwrap(segment)(noisy, t(0.0), t(1.0))
    with pytest.raises(TypeError, match="a profile needs a field"):
        inspect.unwrap(along)(noisy, around)


def test_grids_that_are_none_are_refused():
    with pytest.raises(ValueError, match="at least 3 points, got 2"):
        along(Quadratic(t(1.0, 1.0)), around, points=2)
    with pytest.raises(ValueError, match="rounds of refinement >= 0, got -1"):
        along(Quadratic(t(1.0, 1.0)), around, refine=-1)
