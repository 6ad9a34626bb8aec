"""The basin's slice along its steepest directions, by its own loss; and what is said where rays have no mean."""

from __future__ import annotations

import math

import pytest
import torch
from sampled import unchecked

from cases import named, spread
from sublevel.field import Autograd, Quadratic
from sublevel.geometry.volume import ellipsoid, log_volume, sweep
from sublevel.geometry.volume.preconditioners import CurvatureSource, steepest_span
from sublevel.space import Point

F64 = torch.float64
RAYS = {"radius": 1e4, "samples": 60, "span": True}


def at(n):
    return torch.zeros(n, dtype=F64)


@pytest.mark.parametrize("k", [1, 4, 12])
def test_on_a_quadratic_it_is_the_top_k_ellipsoid(k):
    """Over four decades of the rest, which rays in all 200 directions could not average."""
    values = torch.tensor((*spread(-3, 0, 188), *spread(0.5, 2, 12)), dtype=F64)
    found = sweep(Quadratic(values), at(200), method="importance", eps=[0.1, 1.0], k=k, **RAYS)
    top = values.sort(descending=True).values[:k].tolist()
    for v in found:
        truth = ellipsoid(top, [0.0] * k, eps=v.eps)
        assert v.log_volume == pytest.approx(truth.log_volume, abs=0.02)
        assert v.effective_radius == pytest.approx(truth.effective_radius, rel=0.02)
        assert (v.n, v.reason) == (k, "")
        assert f"in the span of the {k} steepest eigenvectors" in v.diagnostics["measure"]


def test_beyond_the_quadratic_it_is_the_loss_that_counts():
    """L = q + q^2 is below eps where q is below (sqrt(1 + 4 eps) - 1) / 2: half of eps at eps = 2."""
    h = torch.tensor((*spread(-2, 0, 60), 5.0, 8.0, 9.0, 20.0), dtype=F64)

    def loss(x):
        q = (h * x.square()).sum() / 2
        return q + q.square()

    found = log_volume(Autograd(loss, 64), at(64), method="importance", eps=2.0, k=4, **RAYS)
    truth = ellipsoid([20.0, 9.0, 8.0, 5.0], [0.0] * 4, eps=1.0)
    assert found.log_volume == pytest.approx(truth.log_volume, abs=0.02)


def test_in_a_masks_subspace_its_directions_lie_in_it():
    values = torch.tensor([50.0, *spread(-2, 1, 30)], dtype=F64)
    mask = torch.arange(31) > 0
    frame, along = steepest_span(CurvatureSource(Quadratic(values), at(31), mask, "hessian", 4, 3, 1e-3, 0))
    assert bool((frame[:, 0] == 0).all())
    torch.testing.assert_close(frame @ frame.T, torch.eye(3, dtype=F64), rtol=0, atol=1e-12)
    assert (along.n, along.products > 0) == (3, True)
    found = log_volume(Quadratic(values), at(31), method="importance", mask=mask, eps=0.1, k=3, **RAYS)
    top = values[1:].sort(descending=True).values[:3].tolist()
    assert found.log_volume == pytest.approx(ellipsoid(top, [0.0] * 3, eps=0.1).log_volume, abs=0.02)


def test_all_eigenvectors_span_the_whole_space():
    values = torch.tensor(spread(-1, 1, 8), dtype=F64)
    inside = log_volume(Quadratic(values), at(8), method="importance", eps=0.2, k=8, **RAYS)
    truth = ellipsoid(values.flip(0).tolist(), [0.0] * 8, eps=0.2)
    assert inside.log_volume == pytest.approx(truth.log_volume, abs=0.02)


def test_a_network_has_a_slice_that_can_be_averaged_and_a_whole_that_cannot():
    case = named("wide")
    field, point = case.field(), case.point
    for _ in range(400):
        point = Point(point.theta - 0.5 * field.grad(point), point.buffers)
    options = {"eps": 0.05, "radius": 100.0, "samples": 150}
    part = log_volume(field, point, method="importance", k=3, span=True, **options)
    assert part.reason == ""
    assert part.se < 0.2
    with unchecked():
        whole = log_volume(field, point, method="radial", **options | {"samples": 30})
    assert "effective sample size" in whole.reason
    assert "too much for any number of rays: a lower bound" in whole.reason
    assert whole.diagnostics["spread"] > 5


def test_a_span_without_positive_curvature_is_refused():
    field = Quadratic(torch.tensor([-1.0, -2.0, -3.0, -5.0], dtype=F64))
    with pytest.raises(ValueError, match="no positive curvature to precondition with"):
        log_volume(field, at(4), method="importance", k=2, **RAYS)


def test_few_dimensions_are_exact_where_they_are_asked_to_be():
    """The whole matrix, instead of five steps: n products and those of the gradient's Krylov space."""
    h = torch.tensor(spread(-2, 1, 60), dtype=F64)
    drawn, exact = (
        log_volume(Quadratic(h), at(60), method="logdet", damping=1e-2, steps=5, probes=20, exact=limit)
        for limit in (59, 60)
    )
    assert drawn.se > 0
    assert (exact.se, exact.reason, exact.diagnostics["products"]) == (0.0, "", 60)
    truth = ellipsoid((h + 1e-2).flip(0).tolist(), [0.0] * 60, eps=0.1)
    assert exact.log_volume == pytest.approx(truth.log_volume, abs=1e-8)


def test_a_partition_functions_radius_is_said_to_be_a_width():
    found = log_volume(
        Quadratic(torch.ones(3, dtype=F64)), at(3), method="thermodynamic", gamma=1.0, examples=100, draws=20, burn_in=5
    )
    assert found.diagnostics["radius"].startswith("a width")
    assert found.effective_radius == pytest.approx(math.exp(found.log_volume / 3))
