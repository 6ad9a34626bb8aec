"""Langevin chains: their law, their diagnostics, what they start from and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampled import F64, Examples, bowl, crossing, sample, unchecked

from sublevel.field import Autograd, EveryExample, Quadratic
from sublevel.geometry.curvature.operators import subspace_operator
from sublevel.geometry.volume import langevin
from sublevel.geometry.volume.langevin import ChainOptions, Target, begin, pieces, step
from sublevel.geometry.volume.mixing import effective_sample_size, split_r_hat
from sublevel.rng import generator
from sublevel.space import Point

ONE = {"step_size": 0.1, "n_beta": 1.0, "gamma": 1.0}


def target(stochastic, start, **options):
    of = subspace_operator(lambda v: v, start, options.pop("mask", None), "sampler")
    return Target(stochastic, Point(start), of, ChainOptions(**(ONE | options)))


def test_a_step_is_its_formula():
    """w - eta/2 (N beta grad L + gamma (w - w0)) + N(0, eta), by hand at a point off the start."""
    h, w0, noise = torch.tensor([2.0, 0.5], dtype=F64), torch.tensor([1.0, -1.0], dtype=F64), torch.randn(2, dtype=F64)
    away = torch.tensor([0.3, 0.4], dtype=F64)
    of = target(bowl(h), w0, step_size=0.04, n_beta=7.0, gamma=3.0)
    state = begin(of, away, 0)
    w = w0 + away
    force = 7.0 * h * w + 3.0 * away
    new, _ = step(of, state, noise, 1)
    torch.testing.assert_close(w0 + new.away, w - 0.02 * force + 0.2 * noise)
    assert float(state.potential) == pytest.approx(float(7 * (h * w) @ w / 2 + 1.5 * away @ away))


def test_a_step_is_a_pure_function():
    of, noise = target(bowl([2.0, 0.5]), torch.ones(2, dtype=F64)), torch.randn(2, dtype=F64)
    state = begin(of, torch.zeros(2, dtype=F64), 0)
    kept = [part.clone() for part in state]
    one, two = step(of, state, noise, 1), step(of, state, noise, 1)
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))


def test_the_acceptance_is_that_of_the_adjusted_algorithm():
    """log pi(w') q(w | w') / pi(w) q(w' | w) from the two Gaussian transition densities."""
    h, noise, eta = torch.tensor([2.0, 0.5], dtype=F64), torch.randn(2, dtype=F64), 0.3
    of = target(bowl(h), torch.ones(2, dtype=F64), step_size=eta)
    a = begin(of, torch.tensor([0.3, -0.8], dtype=F64), 0)
    b, info = step(of, a, noise, 1)
    log_q = lambda x, y: -float((y.away - x.away + eta / 2 * x.force).square().sum()) / (2 * eta)  # noqa: E731
    truth = float(a.potential - b.potential) + log_q(b, a) - log_q(a, b)
    assert float(info.log_acceptance) == pytest.approx(truth, abs=1e-12)


def test_the_variance_is_that_of_the_discretised_chain():
    """1 / (a (1 - eta a / 4)): at eta a = 2 twice the target's, which a chain without the bias would not have."""
    with unchecked():
        found = sample(bowl([3.0]), torch.zeros(1, dtype=F64), step_size=0.5, n_beta=1.0, gamma=1.0, draws=1000, seed=1)
    variance = 2 * found.rises.mean() / 3.0
    assert variance == pytest.approx(0.5, rel=0.06)
    assert found.acceptance < 0.9


def test_small_steps_would_be_accepted():
    found = sample(bowl([3.0]), torch.zeros(1, dtype=F64), step_size=0.01, n_beta=1.0, gamma=1.0, draws=100, burn_in=9)
    assert found.acceptance > 0.99
    assert found.source == "field"


def test_outside_the_mask_nothing_moves():
    start, mask = torch.tensor([0.5, -2.0, 1.0], dtype=F64), torch.tensor([True, False, True])
    found = sample(bowl([1.0, 1.0, 1.0]), start, **ONE, draws=20, burn_in=5, mask=mask)
    assert bool((found.last[:, 1] == -2.0).all())
    assert bool((found.last[:, [0, 2]] != start[[0, 2]]).all())


def test_a_masked_chain_is_the_chain_of_the_smaller_problem():
    """Its noise has the subspace's dimension: the trace is the same to the last bit."""
    mask = torch.tensor([True, False, True])
    inside = sample(bowl([2.0, 9.0, 0.5]), torch.zeros(3, dtype=F64), **ONE, draws=20, burn_in=9, mask=mask)
    alone = sample(bowl([2.0, 0.5]), torch.zeros(2, dtype=F64), **ONE, draws=20, burn_in=9)
    assert np.array_equal(inside.rises, alone.rises)


def test_chains_differ_and_repeat():
    def go(seed):
        return sample(bowl([1.0]), torch.zeros(1, dtype=F64), **ONE, chains=2, draws=9, burn_in=0, seed=seed).rises

    assert np.array_equal(go(0), go(0))
    assert not np.array_equal(go(0), go(1))
    assert not np.array_equal(go(0)[0], go(0)[1])


def test_the_start_keeps_its_buffers():
    seen = []

    class Watching(EveryExample):
        def loss_and_grad(self, at, step):
            seen.append(at.buffers)
            return super().loss_and_grad(at, step)

    start = Point(torch.zeros(1, dtype=F64), {"mean": torch.ones(1)})
    sample(Watching(Quadratic(torch.ones(1, dtype=F64))), start, **ONE, chains=1, draws=3, burn_in=0)
    assert all(b["mean"] is start.buffers["mean"] for b in seen)


def test_every_so_many_steps():
    """A thinned chain is the same chain, seen less often; only then is the field asked."""
    field = Quadratic(torch.ones(1, dtype=F64))
    calls = []
    watched = Autograd(lambda w: calls.append(1) or field._times(w) @ w / 2, 1)
    all_, some = (
        sample(bowl([1.0]), torch.zeros(1, dtype=F64), **ONE, chains=1, burn_in=4, draws=d, every=e, field=watched)
        for d, e in ((40, 1), (8, 5))
    )
    assert some.rises[0] == pytest.approx(all_.rises[0][4::5])
    assert len(calls) == (40 + 1) + (8 + 1)


def regression(independent):
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(24, 3, generator=rng, dtype=F64)
    y = x @ torch.ones(3, dtype=F64) + torch.randn(24, generator=rng, dtype=F64)
    return Examples(x, y, 8, independent=independent)


def test_the_loss_of_a_batch_is_taken_before_w_moves_on_it():
    """Independent batches: its mean is the whole loss, from the same chain. After the move it would lie below."""
    stochastic = regression(independent=True)
    field, best = stochastic.field()
    options = {"step_size": 0.02, "n_beta": 25.0, "gamma": 1.0, "burn_in": 20, "draws": 1200, "chains": 1}
    with unchecked():
        batches, whole = (sample(stochastic, best, **options, field=f).rises for f in (None, field))
        after = _after_the_move(stochastic, best, options)
    gap, se = _gap(batches, whole)
    assert abs(gap) < 3 * se
    assert after - whole.mean() < -5 * se


def test_the_batches_of_an_epoch_are_biased_upwards():
    """What w has moved on so far leaves the rest of the epoch with the higher losses: hand over the field."""
    stochastic = regression(independent=False)
    field, best = stochastic.field()
    options = {"step_size": 0.02, "n_beta": 25.0, "gamma": 1.0, "burn_in": 20, "draws": 1200, "chains": 1}
    with unchecked():
        batches, whole = (sample(stochastic, best, **options, field=f) for f in (None, field))
    assert (batches.source, whole.source) == ("batches", "field")
    assert math.isnan(batches.acceptance)
    gap, se = _gap(batches.rises, whole.rises)
    assert gap > 5 * se


def _gap(batches, whole):
    difference = batches - whole
    return difference.mean(), difference.std() / math.sqrt(effective_sample_size(difference))


def _after_the_move(stochastic, start, options):
    """The mean rise on the batch that w has just moved on: the chain of `sample`, written out."""
    of = target(stochastic, start, **{k: options[k] for k in ONE})
    rng, state, rises = torch.Generator().manual_seed(0), begin(of, torch.zeros_like(start), 0), []
    for i in range(1, 1200):
        state, _ = step(of, state, torch.randn(3, generator=rng, dtype=F64), i)
        if i > 20:
            loss = [stochastic.loss_and_grad(p, i - 1)[0] for p in (of.at(state.away), of.start)]
            rises.append(float(loss[0] - loss[1]))
    return np.mean(rises)


def test_a_loss_that_is_not_finite_stops_it():
    steep = crossing(4, 4)
    message = r"the loss of chain 0 is not finite at step \d+: step_size 10"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=message):
        sample(steep, torch.ones(2, dtype=F64), step_size=10.0, n_beta=1e3, gamma=1.0, draws=60, burn_in=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size must be positive and finite, got 0.0"),
        ({"n_beta": math.inf}, "n_beta must be positive and finite, got inf"),
        ({"gamma": -1.0}, "gamma must be finite and not negative, got -1.0"),
        ({"chains": 0}, "chains must be at least 1, got 0"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"burn_in": -1}, "burn_in must not be negative, got -1"),
        ({"mask": torch.zeros(1, dtype=torch.bool)}, "subspace of dimension 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(bowl([1.0]), torch.zeros(1, dtype=F64), **(ONE | options))


def test_a_field_is_no_stochastic_field():
    with unchecked(), pytest.raises(TypeError, match=r"EveryExample makes one of a field\), got Quadratic"):
        sample(Quadratic(torch.ones(1, dtype=F64)), torch.zeros(1, dtype=F64), **ONE)


def autoregressive(rho, chains, draws, seed=0):
    rng = np.random.default_rng(seed)
    x, out = rng.standard_normal(chains), []
    for _ in range(draws):
        x = rho * x + math.sqrt(1 - rho**2) * rng.standard_normal(chains)
        out.append(x)
    return np.array(out).T


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9, 0.97])
def test_effective_sample_size_of_an_autoregressive_chain(rho):
    """M m (1 - rho) / (1 + rho)."""
    found = np.mean([effective_sample_size(autoregressive(rho, 4, 4000, seed)) for seed in range(5)])
    assert found == pytest.approx(16000 * (1 - rho) / (1 + rho), rel=0.15)


def test_the_standard_error_from_it_covers():
    """t at many degrees of freedom: 95 of 100."""
    inside = 0
    for seed in range(200):
        x = autoregressive(0.8, 4, 500, seed)
        inside += abs(x.mean()) <= 1.96 * x.std(ddof=1) / math.sqrt(effective_sample_size(x))
    assert 180 <= inside <= 199


def test_chains_that_agree_and_chains_that_do_not():
    x = autoregressive(0.3, 4, 1000)
    assert 0.99 < split_r_hat(x) < 1.02
    apart = x + np.array([[0.0], [0.0], [0.0], [2.0]])
    assert split_r_hat(apart) > 1.3
    assert effective_sample_size(apart) < 20 < effective_sample_size(x)


def test_a_single_chain_that_drifts_is_seen():
    """What a R-hat without the split misses."""
    assert split_r_hat(np.linspace(0, 1, 200)[None] + 0.05 * autoregressive(0.0, 1, 200)) > 1.5


def test_traces_without_variance_or_length():
    assert split_r_hat(np.ones((2, 10))) == 1.0
    assert split_r_hat(np.array([[0.0, 0.0, 1.0, 1.0]])) == math.inf
    assert math.isnan(split_r_hat(np.zeros((2, 3))))
    assert math.isnan(effective_sample_size(np.zeros((2, 6))))


@pytest.mark.parametrize("numbers", [5, 16, 31, 47, 48, 64, 75, 999])
def test_noise_that_is_drawn_in_pieces_is_that_of_one_draw(numbers: int) -> None:
    whole, parts = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    drawn = [torch.randn(n, generator=parts, dtype=torch.float64) for n in pieces(numbers, 32)]
    assert max(map(len, drawn)) < 48
    assert torch.equal(torch.cat(drawn), torch.randn(numbers, generator=whole, dtype=torch.float64))
    assert torch.equal(whole.get_state(), parts.get_state())


def test_steps_get_the_rows_of_one_draw(monkeypatch) -> None:
    """Whether a piece holds several rows or a part of one."""
    monkeypatch.setattr(langevin, "pieces", lambda numbers: pieces(numbers, 32))
    for dim in (3, 50):
        of = subspace_operator(lambda v: v, torch.zeros(dim, dtype=torch.float64), None, "test")
        rows = torch.stack(list(langevin._noise(of, 70, 0, 2)))
        rng = generator(0, "probe:langevin", 2)
        want = [torch.randn(n, dim, generator=rng, dtype=torch.float64) for n in (64, 6)]
        assert torch.equal(rows, torch.cat(want))
