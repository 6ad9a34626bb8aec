"""Volumes over several heights, in several dimensions: slopes, Schur complements, and what may be compared."""

from __future__ import annotations

import math

import pytest
import torch

from cases import spread
from sublevel.field import Autograd, Field, Quadratic
from sublevel.geometry.volume import dimension_slope, ellipsoid, log_unit_ball, log_volume, sweep

F64 = torch.float64
HEIGHTS = [0.05, 0.1, 0.2, 0.4]
METHODS = {
    "top-k": {"k": 12},
    "logdet": {"damping": 1e-2},
    "importance": {"radius": 1e3, "k": 12, "samples": 20},
    "radial": {"radius": 1e3, "samples": 20},
}


class Counting(Field):
    """A field that counts its Hessian products."""

    def __init__(self, field):
        self.field, self.products, self.losses = field, 0, 0

    @property
    def dim(self):
        return self.field.dim

    def evaluate(self, at):
        self.losses += 1
        return self.field.evaluate(at)

    def grad(self, at):
        return self.field.grad(at)

    def hvp(self, at, v):
        self.products += v.reshape(-1, v.shape[-1]).shape[0]
        return self.field.hvp(at, v)


@pytest.mark.parametrize("method", METHODS)
def test_the_slope_is_half_the_dimension_on_a_quadratic(method):
    """Of an anisotropic one: rays are shared by the heights, so even a poor radial mean has the right slope."""
    field, theta = Quadratic(torch.tensor(spread(-0.5, 0.5, 12), dtype=F64)), torch.zeros(12, dtype=F64)
    found = dimension_slope(sweep(field, theta, method=method, eps=HEIGHTS, **METHODS[method]))
    assert found.value == pytest.approx(6.0, abs=0.01)
    assert found.diagnostics["local"] == pytest.approx([6.0] * 3, abs=0.02)
    assert found.diagnostics["expected"] == 6.0


@pytest.mark.parametrize("method", METHODS)
def test_a_sweep_is_what_its_heights_give_alone(method):
    field, theta = Quadratic(torch.tensor(spread(-0.5, 0.5, 12), dtype=F64)), torch.zeros(12, dtype=F64)
    together = sweep(field, theta, method=method, eps=HEIGHTS, **METHODS[method])
    alone = [log_volume(field, theta, method=method, eps=eps, **METHODS[method]) for eps in HEIGHTS]
    assert [v.log_volume for v in together] == [v.log_volume for v in alone]
    assert [v.eps for v in together] == HEIGHTS


@pytest.mark.parametrize("method", ["top-k", "logdet", "importance"])
def test_curvature_is_measured_once(method):
    counts = []
    for heights in (HEIGHTS[:1], HEIGHTS):
        field = Counting(Quadratic(torch.tensor(spread(-0.5, 0.5, 12), dtype=F64)))
        sweep(field, torch.zeros(12, dtype=F64), method=method, eps=heights, **METHODS[method])
        counts.append(field.products)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("power", [4, 6])
def test_the_slope_of_a_flatter_minimum(power):
    """sum w^p: V ~ eps^(n/p), which rays see and no Hessian does."""
    field = Autograd(lambda w: (w**power).sum(), 3)
    found = sweep(field, torch.zeros(3, dtype=F64), method="radial", radius=100.0, samples=25, eps=HEIGHTS)
    assert dimension_slope(found).value == pytest.approx(3 / power, abs=1e-3)


def test_a_point_off_the_minimum_has_a_smaller_slope():
    field, theta = Quadratic(torch.ones(4, dtype=F64)), torch.full((4,), 0.2, dtype=F64)  # 0.08 above the minimum
    found = dimension_slope(sweep(field, theta, method="logdet", damping=0.0, eps=[0.0799, 0.0801]))
    assert found.value == pytest.approx(2 * 0.08 / 0.16, rel=1e-3)


def test_schur_links_a_slice_to_the_whole():
    """log V_n - log V_slice = log omega_n - log omega_k + (n-k)/2 log 2 eps - 1/2 log det of the Schur complement."""
    a = torch.randn(9, 9, dtype=F64)
    h, eps, mask = a @ a.T + torch.eye(9, dtype=F64), 0.07, torch.tensor([True, False, True] * 3)
    inside, outside = mask.nonzero().squeeze(1), (~mask).nonzero().squeeze(1)
    n, k = 9, len(inside)
    corner = h[outside][:, inside]
    schur = h[outside][:, outside] - corner @ torch.linalg.solve(h[inside][:, inside], corner.T)
    truth = log_unit_ball(n) - log_unit_ball(k) + (n - k) / 2 * math.log(2 * eps) - 0.5 * float(torch.logdet(schur))
    theta = torch.zeros(9, dtype=F64)
    for method, options in (("top-k", None), ("logdet", {"damping": 0.0}), ("importance", {"radius": 1e3, "k": 9})):
        ask = lambda m, at: log_volume(  # noqa: E731
            Quadratic(h), theta, method=at[0], eps=eps, mask=m, **(at[1] or {"k": n if m is None else k})
        )
        whole, cut = ask(None, (method, options)), ask(mask, (method, options))
        assert (whole.n, cut.n) == (n, k)
        assert whole.log_volume - cut.log_volume == pytest.approx(truth, abs=0.01 if method == "importance" else 1e-6)


def test_log_volumes_of_different_dimension_change_their_order_with_eps():
    """The trap: the flatter of two sets in k = 3 is smaller or larger than a steeper one in n = 10, as eps pleases.

    The effective radius keeps their order at every height: sqrt(2 eps) over the geometric mean of sqrt(lambda).
    """
    flat, steep = [1.0] * 3, [4.0] * 10
    orders = []
    for eps in (1e-3, 1e3):
        a, b = (ellipsoid(values, [0.0] * len(values), eps=eps) for values in (flat, steep))
        orders.append(a.log_volume > b.log_volume)
        assert a.effective_radius / b.effective_radius == pytest.approx(2.0)
    assert orders == [True, False]


def test_at_equal_dimension_radius_and_volume_agree():
    wide, narrow = ([0.5, 0.5, 0.5], [9.0, 1.0, 0.1])
    for eps in (1e-3, 1e3):
        a, b = (ellipsoid(values, [0.0] * 3, eps=eps) for values in (wide, narrow))
        assert (a.log_volume > b.log_volume) == (a.effective_radius > b.effective_radius)
        assert a.log_volume - b.log_volume == pytest.approx(3 * math.log(a.effective_radius / b.effective_radius))


def test_slopes_that_have_no_line():
    field, theta = Quadratic(torch.ones(2, dtype=F64)), torch.zeros(2, dtype=F64)
    one = log_volume(field, theta, k=2)
    with pytest.raises(ValueError, match="two heights at least, got 1"):
        dimension_slope([one, one])
    with pytest.raises(ValueError, match=r"dimensions \[1, 2\]"):
        dimension_slope([one, log_volume(field, theta, k=1, eps=0.2)])


def test_a_doubtful_volume_makes_a_doubtful_slope():
    field, theta = Quadratic(torch.ones(2, dtype=F64)), torch.ones(2, dtype=F64)
    assert "not stationary" in dimension_slope(sweep(field, theta, k=2, eps=[0.1, 0.2])).reason
