"""Profiles along directions, and widths at a height: exact on quadratics, capped and flagged elsewhere."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import QUADRATICS, named
from sublevel.field import Autograd, EveryExample, Quadratic
from sublevel.geometry.curvature.subspaces import matched_sets
from sublevel.geometry.planes.lines import profile, random_direction, width

F64 = torch.float64


def t(*values):
    return torch.tensor(values, dtype=F64)


@pytest.mark.parametrize("spec", [s for s in QUADRATICS if s.top[0] > 0], ids=str)
@pytest.mark.parametrize("rise", [1e-3, 0.1, 10.0])
def test_the_width_along_an_eigenvector_of_a_quadratic(spec, rise):
    """sqrt(2 rise / curvature) on either side, whatever the length of the vector."""
    field, top = Quadratic(spec.hessian), torch.linalg.eigh(spec.hessian)
    v, curvature = top.eigenvectors[:, -1], float(top.eigenvalues[-1])
    found = width(field, torch.zeros_like(v), -3 * v, rise, tolerance=1e-12)
    expected = math.sqrt(2 * rise / curvature)
    assert found.left == pytest.approx(expected, rel=1e-9)
    assert found.right == pytest.approx(expected, rel=1e-9)
    assert found.total == found.left + found.right
    assert (found.left_capped, found.right_capped, found.reason) == (False, False, "")


@given(st.floats(1e-2, 1e4), st.floats(-3, 3), st.floats(1e-3, 10))
@settings(max_examples=25)
def test_the_width_on_a_slope(curvature, slope, rise):
    """From a point that is no minimum: the roots of curvature r^2 / 2 + slope r = rise."""
    found = width(Quadratic(t(curvature), slope=t(slope)), t(0.0), t(1.0), rise, tolerance=1e-8)
    root = math.sqrt(slope**2 + 2 * curvature * rise)
    away = lambda s: 2 * rise / (s + root) if s > 0 else (root - s) / curvature  # noqa: E731
    assert found.right == pytest.approx(away(slope), rel=1e-6)
    assert found.left == pytest.approx(away(-slope), rel=1e-6)


def test_the_tolerance_is_relative_and_paid_for_in_evaluations():
    field = Quadratic(t(8.0))
    rough, sharp = (width(field, t(0.0), t(1.0), 1.0, tolerance=tolerance) for tolerance in (1e-2, 1e-8))
    assert rough.right == pytest.approx(0.5, rel=1e-2)
    assert sharp.right == pytest.approx(0.5, rel=1e-8)
    assert rough.evaluations < 30 < sharp.evaluations < 80


def test_a_narrow_wall_far_below_the_first_radius_is_found():
    assert width(Quadratic(t(2e12)), t(0.0), t(1.0), 1.0).right == pytest.approx(1e-6, rel=1e-4)


@pytest.mark.parametrize("curvature", [0.0, -2.0])
def test_a_side_that_never_rises_is_capped(curvature):
    found = width(Quadratic(t(curvature)), t(0.0), t(1.0), 0.5, largest=70.0)
    assert (found.left, found.right) == (70.0, 70.0)
    assert found.left_capped
    assert found.right_capped


def test_one_side_may_be_capped_and_the_other_not():
    found = width(Autograd(lambda x: torch.relu(x[0]), 1), t(0.0), t(1.0), 0.5, largest=4.0)
    assert (found.left_capped, found.right_capped) == (True, False)
    assert found.right == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_ends_the_basin_and_is_named(value):
    cliff = Autograd(lambda x: torch.where(x[0] > 2.0, x.new_tensor(value), 0 * x[0]), 1)
    found = width(cliff, t(0.0), t(1.0), 0.5)
    assert found.right == pytest.approx(2.0, rel=1e-4)
    assert found.reason == f"right: the loss is {value} at the radius 3.2"
    assert found.left_capped


def test_a_jump_at_the_point_itself_is_flagged():
    jump = Autograd(lambda x: torch.where(x[0] != 0, 1.0, 0.0), 1)
    found = width(jump, t(0.0), t(1.0), 0.5)
    assert found.right < 1e-18
    assert "right: the loss has risen at the radius" in found.reason


def test_a_profile_is_in_distances():
    field = Quadratic(t(2.0, 8.0), center=t(1.0, 0.0), offset=3.0)
    line = profile(field, t(1.0, 0.0), t(0.0, -5.0), [-2.0, 0.0, 0.5])
    assert line.rise.tolist() == [16.0, 0.0, 1.0]
    assert line.loss.tolist() == [19.0, 3.0, 4.0]
    assert (line.policy, line.reason) == ("none", "")


def test_a_profile_of_a_network_keeps_its_statistics():
    case = named("normalised")
    field, v = case.field(), torch.ones(case.space.dim, dtype=F64)
    line = profile(field, case.point, v, [0.0, 1.0])
    assert line.loss[0] == field.loss(case.point)
    assert 0 <= line.error[0] <= 1
    assert line.policy == "stored"


def test_a_profile_names_losses_that_are_not_finite():
    line = profile(Autograd(lambda x: x[0].log(), 1), t(1.0), t(1.0), [-2.0, -1.0, 1.0])
    assert line.reason == "the loss is not finite at 2 of 3 radii"


@given(st.integers(1, 50), st.integers(0, 100))
def test_a_random_direction_is_a_unit_vector_of_its_set(dim, seed):
    chosen = torch.rand(dim, generator=torch.Generator().manual_seed(seed)) < 0.5
    chosen[seed % dim] = True
    v = random_direction(chosen, dim, seed=seed)
    assert float(v.norm()) == pytest.approx(1.0)
    assert not bool(v[~chosen].any())
    assert torch.equal(v, random_direction(chosen.nonzero().squeeze(1), dim, seed=seed))


def test_random_directions_are_uniform_on_the_sphere_and_differ_by_draw():
    """E[v v^T] = I / n on the set: 400 draws in 4 of 9 coordinates."""
    index = torch.tensor([0, 3, 4, 8])
    v = torch.stack([random_direction(index, 9, draw=i) for i in range(400)])[:, index]
    second = v.T @ v / 400
    assert float((second - torch.eye(4, dtype=F64) / 4).abs().max()) < 0.05
    assert float(v.mean(dim=0).abs().max()) < 0.1


def test_along_the_steep_set_the_basin_is_narrower():
    """Pruned, kept and random weights in matched sets of a net's space, with curvatures put there by hand."""
    case = named("wide")
    before = case.space.full_mask()
    after = before.clone()
    after[case.space.prunable.nonzero().squeeze(1)[::2]] = False
    sets = matched_sets(case.space, before, after)
    curvatures = torch.ones(case.space.dim, dtype=F64)
    curvatures[~after] = 100.0
    field, origin = Quadratic(curvatures), torch.zeros(case.space.dim, dtype=F64)
    widths = {
        name: width(field, origin, random_direction(index, case.space.dim), 0.5, tolerance=1e-10).right
        for name, index in sets.items()
    }
    assert widths["pruned"] == pytest.approx(0.1)
    assert widths["kept"] == pytest.approx(1.0)
    assert 0.1 < widths["random"] < 0.2


def test_what_cannot_be_meant_is_refused():
    field, zero, one = Quadratic(t(1.0, 1.0)), t(0.0, 0.0), t(1.0, 0.0)
    for options in (
        {"rise": 0.0},
        {"rise": -1.0},
        {"rise": math.nan},
        {"first": 0.0},
        {"first": 2e3},
        {"tolerance": 0.0},
    ):
        with pytest.raises(ValueError, match="a width needs rise > 0, 0 < first <= largest and a tolerance in"):
            width(field, zero, one, **({"rise": 1.0} | options))
    for direction in (0 * one, one / 0):
        with pytest.raises(ValueError, match="a direction must have a finite length above 0"):
            width(field, zero, direction, 1.0)
    with pytest.raises(ValueError, match=r"a direction of shape \[3\] does not fit theta \[2\]"):
        profile(field, zero, t(1.0, 0.0, 0.0), [0.0])
    for radii in ([], [0.0, math.inf]):
        with pytest.raises(ValueError, match="radii must be finite numbers, at least one"):
            profile(field, zero, one, radii)
    with pytest.raises(FloatingPointError, match="the loss at the point is nan: a width needs a finite loss"):
        width(Autograd(lambda x: x[0].log() * 0, 1), t(-1.0), t(1.0), 1.0)
    for estimator, argument in ((profile, [0.0]), (width, 1.0)):
        with pytest.raises(TypeError, match=r"needs a field .* changes from call to call"):
            inspect.unwrap(estimator)(EveryExample(field), zero, one, argument)
    for chosen in (torch.zeros(3, dtype=torch.bool), torch.tensor([3]), torch.tensor([-1])):
        with pytest.raises(ValueError, match=r"at least one coordinate in 0\.\.2"):
            random_direction(chosen, 3)
    with pytest.raises(ValueError, match="a mask of length 3 chooses no coordinates in dimension 4"):
        random_direction(torch.ones(3, dtype=torch.bool), 4)
