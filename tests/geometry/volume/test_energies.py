"""Chains that lack slow modes are flagged, those that do not are not, and the step has no part in the value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampled import F64, Closed, Examples, bowl, number, rank_regression, sample, unchecked
from torch import nn

import sublevel as sl
from cases import spread
from sublevel.field import EveryExample, Quadratic
from sublevel.geometry.volume import log_volume
from sublevel.geometry.volume.langevin import Scaling
from sublevel.geometry.volume.laplace import laplace_approximation
from sublevel.geometry.volume.local_learning_coefficient import learning_coefficient
from sublevel.space import Point

N_BETA = 9000 / math.log(9000)


def zeros(n, dtype=F64):
    return torch.zeros(n, dtype=dtype)


def coefficient(h, gamma, *, n_beta=N_BETA, **options):
    """The coefficient of a quadratic, and its true value."""
    h = np.asarray(h)
    with unchecked():
        found = learning_coefficient(bowl(h), zeros(len(h)), n_beta=n_beta, gamma=gamma, **options)
    return found, float((n_beta * h / (n_beta * h + gamma)).sum() / 2)


# --- The Laplace approximation.


def test_a_draw_is_the_root_of_the_inverse_times_a_normal_vector():
    """(N beta H + gamma)^(-1/2) z for a full matrix, the negative eigenvalue counted as 0."""
    rng = torch.Generator().manual_seed(1)
    q = torch.linalg.qr(torch.randn(6, 6, generator=rng, dtype=F64)).Q
    values = torch.tensor([5.0, 2.0, 2.0, 0.1, 0.0, -1.0], dtype=F64)
    law = laplace_approximation(Quadratic(q @ torch.diag(values) @ q.T), zeros(6), draws=1, seed=3)
    z = law.lengths[0] * law.runs[0].basis[0]
    root = q @ torch.diag((7.0 * values.clamp_min(0) + 0.5) ** -0.5) @ q.T
    torch.testing.assert_close(law.draw(0, 7.0, 0.5), root @ z, rtol=1e-6, atol=1e-8)


def test_without_gamma_a_flat_direction_has_no_width():
    law = laplace_approximation(Quadratic(torch.tensor([4.0, 1.0, 0.0], dtype=F64)), zeros(3), draws=1)
    found, z = law.draw(0, 1.0, 0.0), law.lengths[0] * law.runs[0].basis[0]
    torch.testing.assert_close(found, torch.stack([z[0] / 2, z[1], 0 * z[2]]), rtol=1e-6, atol=1e-7)


def test_the_outlook_is_that_of_the_chains():
    """Value, what is missing and the variance of a mean, against sums over all directions of a quadratic."""
    h, n_beta, gamma, eta, burn_in, steps = np.repeat([1.0, 0.03], 20), 100.0, 2.0, 1e-3, 100, 400
    law = laplace_approximation(Quadratic(torch.as_tensor(h)), zeros(40), draws=20)
    found = law.outlook(n_beta, gamma, rate=eta, burn_in=burn_in, steps=steps, draws=steps)
    a = n_beta * h + gamma
    c, r = n_beta * h / (2 * a), eta * a
    t = np.arange(burn_in, burn_in + steps)
    missing = (c[:, None] * np.exp(-np.outer(r, t))).mean(axis=1).sum()
    lags = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    apart = sum(2 * c[i] ** 2 * np.exp(-r[i] * lags).mean() for i in range(40))
    assert found == pytest.approx((c.sum(), missing, apart), rel=0.15)


def test_missed_copies_of_the_steepest_direction_are_among_the_rest():
    """Five copies, of which Lanczos sees one: the step of the others must still be stable."""
    h = torch.cat([torch.full((5,), 10.0, dtype=F64), torch.ones(20, dtype=F64)])
    law = laplace_approximation(Quadratic(h), zeros(25), draws=1, rescale=2)
    assert law.rest == pytest.approx(10.0, rel=1e-6)


def test_a_scaled_step_is_a_step_of_the_scaled_problem():
    """P = diag(1/4, 1) on H = diag(4, 1): both directions forget alike, and the law is the same."""
    scaling = Scaling(torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([0.25], dtype=F64))
    torch.testing.assert_close(
        scaling.times(torch.tensor([2.0, 3.0], dtype=F64), 0.5), torch.tensor([1.0, 3.0]).double()
    )
    options = {"step_size": 0.8, "n_beta": 1.0, "gamma": 0.0, "chains": 2, "draws": 1500, "adjust": True}
    with unchecked():
        found = sample(bowl([4.0, 1.0]), zeros(2), scaling=scaling, **options)
    assert found.rises.mean() == pytest.approx(1.0, abs=0.12)
    assert found.acceptance > 0.6


def test_in_many_dimensions_the_step_is_one_that_is_accepted():
    field = Quadratic(torch.ones(20_000))
    law = laplace_approximation(field, zeros(20_000, torch.float32), draws=1)
    eta = law.step_size(99.0, 1.0, 0.5)
    assert eta < 0.15 / 100
    start = law.draw(0, 99.0, 1.0)[None]
    options = {"step_size": eta, "n_beta": 99.0, "gamma": 1.0, "chains": 1, "burn_in": 0, "draws": 60}
    with unchecked():
        found = sample(EveryExample(field), zeros(20_000, torch.float32), starts=start, adjust=True, **options)
    assert found.acceptance == pytest.approx(0.55, abs=0.15)


# --- The step.


def test_the_correction_makes_the_law_exact():
    """The chain of `test_the_variance_is_that_of_the_discretised_chain`, whose variance was twice too large."""
    options = {"step_size": 0.5, "n_beta": 1.0, "gamma": 1.0, "draws": 1000, "seed": 1}
    with unchecked():
        found = sample(bowl([3.0]), zeros(1), adjust=True, **options)
    assert 2 * found.rises.mean() / 3.0 == pytest.approx(0.25, rel=0.08)
    assert found.step_bias == 0


@pytest.mark.parametrize("stability", [0.1, 0.4, 1.0])
def test_the_value_does_not_depend_on_the_step(stability):
    h = np.ones(40)
    found, truth = coefficient(h, 1.0, step_size=stability / (N_BETA + 1), burn_in=100, draws=1500, chains=2)
    assert found.reason == ""
    assert abs(found.value - truth) < 3 * found.se < 0.1 * truth


def test_a_partition_function_whatever_the_step():
    """300 equal directions at a stability of 0.3, where an uncorrected step is 25 nats off."""
    options = {"gamma": 1.0, "examples": 1000, "stability": 0.3, "rungs": 4, "chains": 2, "burn_in": 60, "draws": 1500}
    with unchecked():
        found = log_volume(
            Quadratic(torch.ones(300, dtype=F64)),
            zeros(300),
            method="thermodynamic",
            stochastic=bowl(np.ones(300)),
            **options,
        )
    assert found.reason == ""
    assert abs(found.log_volume + 150 * math.log1p(1000.0)) < 3 * found.se < 20


def test_a_correction_that_accepts_nothing_is_flagged():
    found, _ = coefficient(np.ones(2000), 1.0, step_size=2.5 / (N_BETA + 1), burn_in=20, draws=60, chains=2)
    assert "% of the steps: lower the step size" in found.reason
    assert number(found, "acceptance") < 0.1


# --- Slow modes.


@pytest.mark.parametrize(
    ("slow", "steep"), [((200, 1e-4), (1000, 1.0)), ((60, 1e-3), (300, 10.0)), ((50, 1e-2), (20, 10.0))]
)
def test_directions_that_no_chain_reaches_are_flagged(slow, steep):
    """Split R-hat from one start is 1.004 there. The two kinds of start see it, and so does the curvature."""
    h = np.repeat([slow[1], steep[1]], [slow[0], steep[0]])
    options = {"step_size": 0.2 / (N_BETA * steep[1] + 0.01), "burn_in": 100, "draws": 300, "chains": 4}
    found, truth = coefficient(h, 0.01, **options)
    assert "too short for the flat directions: on a quadratic the value lacks" in found.reason
    assert found.value < truth - 0.3 * slow[0] / 4
    assert abs(found.value - truth) < 3 * found.se


def test_a_single_chain_is_flagged_by_curvature_alone():
    options = {"step_size": 0.2 / (N_BETA + 0.01), "burn_in": 100, "draws": 300, "chains": 1}
    found, _ = coefficient(np.repeat([1e-4, 1.0], [20, 100]), 0.01, **options)
    assert "too short for the flat directions" in found.reason
    assert math.isnan(number(found, "starts_apart"))


def test_the_two_kinds_of_start_see_it_where_curvature_tells_nothing():
    """A singular minimum has no curvature: chains from there and from the prior must find each other."""
    options = {"n_beta": 30.0, "gamma": 1.0, "step_size": 1e-3, "burn_in": 40, "draws": 300}
    with unchecked():
        found = learning_coefficient(rank_regression(2, 6, 1, 30), zeros(240), **options)
    assert "chains have not mixed: split R-hat" in found.reason
    assert found.diagnostics["missing"] == 0
    assert found.se >= number(found, "starts_apart") / 2 > 3


HEALTHY = {
    "isotropic": np.ones(50),
    "one decade": np.array(spread(-1, 0, 30)),
    "flat": np.repeat([1.0, 0.0], [10, 40]),
    "one": np.ones(1),
}


@pytest.mark.parametrize("gamma", [0.1, 10.0])
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_chains_are_not_flagged(name, gamma):
    h = HEALTHY[name]
    found, truth = coefficient(h, gamma, n_beta=100.0, step_size=0.6 / (100 + gamma), burn_in=200, draws=1500, chains=2)
    assert found.reason == ""
    assert abs(found.value - truth) < 3.5 * found.se
    assert found.se < 0.2 * math.sqrt(truth)


def test_a_stiff_spectrum_with_its_steep_directions_rescaled_is_healthy():
    """Three directions 300 times as steep: flagged as they are, right where they are rescaled."""
    h = np.concatenate([[300.0, 250.0, 200.0], np.ones(20)])
    options = {"burn_in": 60, "draws": 1200, "stability": 0.5, "chains": 2}
    plain, _ = coefficient(h, 1.0, **options)
    assert "too short for the flat directions" in plain.reason
    found, truth = coefficient(h, 1.0, rescale=3, **options)
    assert (found.reason, found.diagnostics["rescale"]) == ("", 3)
    assert abs(found.value - truth) < 3 * found.se < 0.2 * truth


def test_reduced_rank_regression_is_healthy():
    options = {"n_beta": 30.0, "gamma": 1.0, "step_size": 8e-3, "burn_in": 500, "draws": 1500, "chains": 2}
    with unchecked():
        found = learning_coefficient(rank_regression(2, 6, 1, 10), zeros(80), **options)
    assert found.reason == ""
    assert abs(found.value / 10 - 1.0) < 0.1


def test_float32_in_a_masks_subspace():
    """Beside coordinates that the mask removes and along which the loss is as steep as can be."""
    h = torch.full((80,), 1e4)
    h[::2] = torch.ones(40)
    mask = torch.zeros(80, dtype=torch.bool)
    mask[::2] = True
    stochastic = Closed(Quadratic(h), lambda w: ((h * w) @ w / 2, h * w))
    options = {"n_beta": 200.0, "gamma": 2.0, "burn_in": 100, "draws": 1000, "stability": 0.6, "mask": mask}
    with unchecked():
        found = learning_coefficient(stochastic, zeros(80, torch.float32), chains=2, **options)
    assert found.reason == ""
    assert abs(found.value - 20 * 200 / 202) < 3 * found.se < 3


def test_batches_without_a_field_must_forget_by_gamma_alone():
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(60, 3, generator=rng, dtype=F64)
    batches = Examples(x, x @ torch.ones(3, dtype=F64), 20, independent=True)
    options = {"n_beta": 20.0, "step_size": 0.01, "chains": 2, "draws": 60}
    best = torch.ones(3, dtype=F64)
    with unchecked():
        short, long = (
            learning_coefficient(batches, best, gamma=5.0, burn_in=burn_in, **options).reason for burn_in in (10, 100)
        )
    assert "all chains start at one point, and after a burn-in of 10 steps gamma alone leaves 61% of what they" in short
    assert "all chains start" not in long


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_a_small_network_at_sensible_settings_is_not_flagged():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=rng)
    y = (x[:, :3] + 1.0 * torch.randn(60, 3, generator=rng)).argmax(dim=1)
    problem = sl.Problem(Net, train=(x, y), test=(x[:9], y[:9]), validation=0, version="1")
    torch.manual_seed(0)
    field, point = problem.field("train"), problem.space.point(Net())
    options = {"n_beta": 60 / math.log(60), "gamma": 10.0, "stability": 0.8, "rescale": 10}
    with unchecked():
        for _ in range(150):
            point = Point(point.theta - 0.6 * field.grad(point), point.buffers)
        found = learning_coefficient(EveryExample(field), point, chains=2, burn_in=50, draws=400, **options)
    assert found.reason == ""
    assert 1 < found.value < len(point.theta) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adjust": True}, "the Metropolis correction needs the whole loss in every batch"),
        ({"starts": torch.zeros(2, 2, dtype=F64)}, r"starts have shape \[2, 2\], expected \[4, 3\]"),
    ],
)
def test_what_sampling_refuses(options, message):
    batches = Examples(torch.ones(6, 3, dtype=F64), torch.ones(6, dtype=F64), 2, independent=True)
    with pytest.raises(ValueError, match=message):
        sample(batches, zeros(3), step_size=0.1, n_beta=1.0, gamma=1.0, **options)


def test_batches_alone_need_a_step_size():
    batches = Examples(torch.ones(6, 3, dtype=F64), torch.ones(6, dtype=F64), 2, independent=True)
    with pytest.raises(ValueError, match="step_size is needed where only batches of the loss are known"):
        learning_coefficient(batches, zeros(3), n_beta=1.0, gamma=1.0)
