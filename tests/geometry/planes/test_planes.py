"""Planes: frames, projections, buffers, filter-normalised directions, grids and their refinement."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import named
from sublevel.errors import ConfigError
from sublevel.field import Autograd, Evaluation, EveryExample, Quadratic
from sublevel.geometry.planes import eigen_plane, plane_through, random_plane, scan
from sublevel.geometry.planes.quadtree import adaptive_scan
from sublevel.space import Point

F64 = torch.float64


def t(*values):
    return torch.tensor(values, dtype=F64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


BOWL = Quadratic(t(1.0, 4.0))
FLAT = plane_through(t(0.0, 0.0), t(1.0, 0.0), t(0.0, 1.0))
"""The plane itself as a frame."""


# --- Frames.


@given(st.integers(2, 30), st.integers(0, 1000))
@settings(max_examples=25)
def test_three_points_are_where_the_plane_says(dim, seed):
    points = list(drawn(3, dim, seed=seed))
    frame = plane_through(*points)
    torch.testing.assert_close(frame.axes @ frame.axes.T, torch.eye(2, dtype=F64))
    seen = frame.project(points)
    assert np.abs(seen.residual).max() < 1e-12
    assert (seen.x[0], seen.y[0]) == (0.0, 0.0)
    assert seen.x[1] == pytest.approx(float((points[1] - points[0]).norm()))
    assert seen.y[1] == pytest.approx(0.0, abs=1e-12)
    for point, x, y in zip(points, seen.x, seen.y, strict=True):
        torch.testing.assert_close(frame.point(x, y).theta, point)


def test_distances_in_the_plane_are_distances_in_the_space():
    frame = plane_through(*drawn(3, 20))
    there, back = frame.point(0.3, -1.0).theta, frame.point(3.3, 3.0).theta
    assert float((there - back).norm()) == pytest.approx(5.0)


def test_a_trajectory_has_the_residual_that_the_picture_does_not_show():
    frame = plane_through(t(0.0, 0.0, 1.0), t(2.0, 0.0, 1.0), t(0.0, 3.0, 1.0))
    seen = frame.project([t(0.5, 0.25, 1.0), Point(t(0.5, 0.25, -3.0))])
    assert seen.x.tolist() == [0.5, 0.5]
    assert seen.y.tolist() == [0.25, 0.25]
    assert seen.residual.tolist() == [0.0, 4.0]


def test_float32_points_come_back_as_they_were():
    points = list(drawn(3, 500, seed=2).float())
    frame = plane_through(*points)
    seen = frame.project(points)
    for point, x, y in zip(points, seen.x, seen.y, strict=True):
        assert frame.point(x, y).theta.dtype == torch.float32
        torch.testing.assert_close(frame.point(x, y).theta, point, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "third", [t(2.0, 4.0, 6.0), t(-1.0, -2.0, -3.0), t(2.0, 4.0, 6.000001), t(1.0, 2.0, 3.0), t(0.0, 0.0, 0.0)]
)
def test_points_on_a_line_span_no_plane(third):
    with pytest.raises(ValueError, match="the three points lie on one line"):
        plane_through(t(0.0, 0.0, 0.0), t(1.0, 2.0, 3.0), third)


def test_frames_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="dimensions 2, 2, 3"):
        plane_through(t(0.0, 0.0), t(1.0, 0.0), t(0.0, 1.0, 0.0))
    with pytest.raises(ConfigError, match="unknown buffers of a plane 'averaged'; allowed: first, nearest, recomputed"):
        plane_through(t(0.0, 0.0), t(1.0, 0.0), t(0.0, 1.0), buffers="averaged")
    with pytest.raises(ValueError, match="a point of dimension 3 does not fit a plane in dimension 2"):
        FLAT.project([t(0.0, 0.0, 0.0)])
    with pytest.raises(ValueError, match=r"2 directions of length 2, got \[1, 2\]"):
        eigen_plane(t(0.0, 0.0), torch.ones(1, 2, dtype=F64))
    with pytest.raises(ValueError, match="the two directions are one line"):
        eigen_plane(t(0.0, 0.0), torch.ones(2, 2, dtype=F64))


def test_a_plane_along_eigenvectors_shows_their_curvatures():
    q, _ = torch.linalg.qr(drawn(6, 6))
    field = Quadratic((q * t(9.0, 4.0, 1.0, 0.5, 0.1, 0.0)) @ q.T, center=q[:, 2])
    plane = scan(field, eigen_plane(q[:, 2], q[:, :2].T.contiguous()), [-1.0, 0.0, 2.0], [0.0, 1.0])
    expected = [[0.5 * (9 * x**2 + 4 * y**2) for x in (-1, 0, 2)] for y in (0, 1)]
    np.testing.assert_allclose(plane.loss, expected, atol=1e-12)


# --- Filter-normalised random directions.


def test_random_directions_have_the_norm_of_every_filter_and_leave_biases_and_batch_norm_alone():
    case = named("convolution")
    frame = random_plane(case.space, case.point, seed=3)
    theta = case.point.theta
    for layer in case.space.layers:
        for axis in frame.axes:
            own, weight = axis[layer.coordinates], theta[layer.coordinates]
            if len(layer.shape) > 1:
                rows = (v.view(layer.shape[0], -1).norm(dim=1) for v in (own, weight))
                torch.testing.assert_close(*rows)
            else:
                assert not bool(own.any())
    assert frame.kind == "filter-normalised"
    assert {len(layer.shape) for layer in case.space.layers} == {1, 2, 4}


def test_random_directions_stay_in_the_subspace_of_a_mask():
    case = named("convolution")
    mask = case.masks()["dead"]
    frame = random_plane(case.space, case.point.project(mask), seed=3, mask=mask)
    assert not bool(frame.axes[:, ~mask].any())
    layer = next(case.space.prunable_layers)
    own, weight = (
        v[layer.coordinates].view(layer.shape[0], -1) for v in (frame.axes[1], case.point.project(mask).theta)
    )
    assert not bool(own[0].any())
    torch.testing.assert_close(own.norm(dim=1), weight.norm(dim=1))


def test_a_plane_of_filter_norms_does_not_see_the_scale_of_a_layer_before_batch_norm():
    """Twice the weights, twice the step: what the normalisation is for (without it, the second net looks flatter)."""
    case = named("convolution")
    scaled = case.point.theta.clone()
    scaled[case.space.layers[0].coordinates] *= 8
    field = case.field("batch")
    one, two = (scan(field, random_plane(case.space, p), [-1, 0.5], [0, 1]) for p in (case.point, Point(scaled)))
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-3)
    assert np.ptp(one.loss) > 0.1


def test_a_seed_decides_the_plane():
    case = named("perceptron")
    one, again, other = (random_plane(case.space, case.point, seed=seed).axes for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_random_planes_that_do_not_fit_are_refused():
    case = named("perceptron")
    with pytest.raises(ValueError, match=r"dimension 83 does not hold a theta of dimension 3 and a mask of 83"):
        random_plane(case.space, t(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="the filters leave no room"):
        random_plane(case.space, 0 * case.point.theta)


# --- Grids.


def test_a_grid_has_a_row_for_every_y():
    plane = scan(BOWL, FLAT, [0.0, 1.0, 2.0], [0.0, 3.0], points={"x": t(1.0, 3.0)})
    assert plane.loss.tolist() == [[0.0, 0.5, 2.0], [18.0, 18.5, 20.0]]
    assert plane.points == {"x": (1.0, 3.0, 0.0)}
    assert np.isnan(plane.error).all()
    assert (plane.policy, plane.evaluations, plane.reason) == ("none", 6, "")


def test_a_window_holds_its_anchors():
    frame = plane_through(t(0.0, 0.0), t(4.0, 0.0), t(2.0, 8.0))
    xs, ys = frame.window(5, margin=0.25)
    assert xs.tolist() == [-1.0, 0.5, 2.0, 3.5, 5.0]
    assert ys.tolist() == [-2.0, 1.0, 4.0, 7.0, 10.0]
    xs, ys = eigen_plane(t(5.0, 5.0), torch.eye(2, dtype=F64)).window(3)
    assert xs.tolist() == ys.tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("policy", ["stored", "batch", "recomputed"])
def test_at_its_anchors_a_plane_has_their_own_loss(policy):
    """With ``nearest`` each has its own statistics; with ``first`` the others are measured under those of the first."""
    case = named("normalised")
    field = case.field(policy)
    a, b, c = (
        Point(case.point.theta + drawn(case.space.dim, seed=s), {n: v * (s + 1) for n, v in case.point.buffers.items()})
        for s in range(3)
    )
    frame = plane_through(a, b, c, buffers="nearest")
    seen = frame.project([a, b, c])
    for point, x, y in zip((a, b, c), seen.x, seen.y, strict=True):
        assert field.loss(frame.point(x, y)) == pytest.approx(field.loss(point), rel=1e-9)
    first = plane_through(a, b, c, buffers="first")
    loss = field.loss(first.point(seen.x[1], seen.y[1]))
    assert loss == pytest.approx(field.loss(Point(b.theta, a.buffers)), rel=1e-9)
    plane = scan(field, frame, [0.0, 1.0], [0.0, 1.0])
    assert plane.policy == {"stored": "nearest"}.get(policy, policy)


def test_losses_that_are_not_finite_are_counted():
    hole = Autograd(lambda x: x[0].log(), 2)
    plane = scan(hole, FLAT, [-1.0, 0.0, 1.0], [0.0, 1.0])
    assert plane.reason == "the loss is not finite at 4 of 6 points"


def test_grids_that_cannot_be_are_refused():
    for bad in ([0.0], [1.0, 0.0], [0.0, 0.0, 1.0], [0.0, math.nan]):
        with pytest.raises(ValueError, match="xs must be at least 2 ascending numbers"):
            scan(BOWL, FLAT, bad, [0.0, 1.0])
    noisy = EveryExample(BOWL)
    with pytest.raises(TypeError, match=r"a plane needs a field .* changes from call to call"):
        inspect.unwrap(scan)(noisy, FLAT, [0.0, 1.0], [0.0, 1.0])
    with pytest.raises(TypeError, match="a plane needs a field"):
        inspect.unwrap(adaptive_scan)(noisy, FLAT, [0.0, 1.0], [0.0, 1.0], tolerance=1.0)
    for tolerance, levels in ((0.0, 1), (math.nan, 1), (1.0, -1)):
        with pytest.raises(ValueError, match="refinement needs a tolerance > 0 and levels >= 0"):
            adaptive_scan(BOWL, FLAT, [0.0, 1.0], [0.0, 1.0], tolerance=tolerance, levels=levels)


# --- Refinement.


STEP = Autograd(lambda x: torch.sigmoid(40 * (x[0] + 0.31 * x[1] - 0.1)), 2)
SIDE = np.linspace(-1, 1, 9)


def test_cells_are_refined_where_the_loss_changes_and_only_there():
    mesh = adaptive_scan(STEP, FLAT, SIDE, SIDE, tolerance=0.1, levels=3)
    fine = mesh.level == 3
    edge = np.abs(mesh.x + 0.31 * mesh.y - 0.1)
    assert edge[fine].max() < 0.5
    assert edge[mesh.level == 0].max() > 1.0
    assert mesh.evaluations < 0.4 * 65**2
    assert len({(x, y) for x, y, *_ in mesh.rows()}) == mesh.evaluations


def test_no_leaf_above_the_last_level_has_a_wide_range():
    mesh = adaptive_scan(STEP, FLAT, SIDE, SIDE, tolerance=0.1, levels=3)
    corners = mesh.loss[mesh.corners]
    ranges, side = np.ptp(corners, axis=1), mesh.cells[:, 2]
    assert (ranges[side > 1] <= 0.1).all()
    assert ranges[side == 1].max() > 0.1
    assert int((side**2).sum()) == 64**2


def test_the_mesh_as_a_list_holds_the_field_itself():
    mesh = adaptive_scan(STEP, FLAT, SIDE, SIDE, tolerance=0.2, levels=2, points={"o": t(0.0, 0.0)})
    for x, y, loss, error, level in mesh.rows():
        assert loss == STEP.loss(FLAT.point(x, y))
        assert math.isnan(error)
        assert level in (0, 1, 2)
    assert mesh.points == {"o": (0.0, 0.0, 0.0)}


def test_the_mesh_as_a_regular_grid_is_near_the_field_at_a_fraction_of_its_evaluations():
    side = np.linspace(-1, 1, 33)
    truth = scan(STEP, FLAT, side, side)
    mesh = adaptive_scan(STEP, FLAT, SIDE, SIDE, tolerance=0.05, levels=2)
    plane = mesh.plane(side, side)
    assert np.abs(plane.loss - truth.loss).max() < 0.05
    assert plane.evaluations == mesh.evaluations < 0.6 * truth.evaluations
    coarse = adaptive_scan(STEP, FLAT, SIDE, SIDE, tolerance=0.05, levels=0).plane(side, side)
    assert np.abs(coarse.loss - truth.loss).max() > 0.3


def test_interpolation_is_exact_for_what_is_bilinear():
    saddle = Autograd(lambda x: 1 + 2 * x[0] - x[1] + 3 * x[0] * x[1], 2)
    mesh = adaptive_scan(saddle, FLAT, [-1.0, 0.0, 2.0], [-1.0, 3.0], tolerance=2.0, levels=2)
    assert set(mesh.level.tolist()) == {0, 1, 2}
    xs, ys = np.linspace(-1, 2, 7), np.linspace(-1, 3, 6)
    expected = [[1 + 2 * x - y + 3 * x * y for x in xs] for y in ys]
    np.testing.assert_allclose(mesh.plane(xs, ys).loss, expected, atol=1e-12)
    with pytest.raises(ValueError, match="xs reach from -2 to 0, the mesh from -1 to 2"):
        mesh.plane([-2.0, 0.0], ys)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_cells_beside_what_is_not_finite_are_refined_and_flagged(value):
    class Cliff(Quadratic):
        def evaluate(self, at):
            x = float(at.theta[0])
            return Evaluation(value if x > 0.6 else 0.0, 1.0)

    mesh = adaptive_scan(Cliff(t(1.0, 1.0)), FLAT, [0.0, 0.5, 1.0], [0.0, 1.0], tolerance=1.0, levels=2)
    assert mesh.x[mesh.level == 2].min() >= 0.5
    assert mesh.level[mesh.x < 0.5].max() == 0
    assert mesh.reason == f"the loss is not finite at {(~np.isfinite(mesh.loss)).sum()} of {len(mesh.loss)} points"
    plane = mesh.plane([0.0, 0.25, 0.5, 1.0], [0.0, 1.0])
    np.testing.assert_equal(plane.loss[0], [0.0, 0.0, 0.0, value])
    assert plane.error.tolist() == [[1.0] * 4] * 2
