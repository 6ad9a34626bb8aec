"""Two sources of error: seeds crossed with test examples, and a threshold that is itself estimated."""

from __future__ import annotations

import numpy as np
import pytest

from sublevel import stats
from sublevel.errors import ConfigError


def two_way(rng, n, m, sd_seeds, sd_examples, sd_rest):
    """Differences [seeds, examples] of a crossed normal model of mean 0, as the estimator assumes."""
    draws = rng.normal(size=(n, 1)) * sd_seeds, rng.normal(size=(1, m)) * sd_examples
    return sum(draws) + sd_rest * rng.normal(size=(n, m))


def test_the_crossed_variance_is_that_of_the_mean_for_new_seeds_and_new_examples():
    """var_a / n + var_b / m + var_e / (n m), on average over many draws."""
    rng = np.random.default_rng(0)
    n, m, a, b, e = 4, 30, 0.1, 0.5, 1.0
    drawn = [two_way(rng, n, m, a, b, e) for _ in range(4000)]
    found = [stats.crossed(d) for d in drawn]
    true = a**2 / n + b**2 / m + e**2 / (n * m)
    assert np.var([f.mean for f in found]) == pytest.approx(true, rel=0.1)
    # 4,000 variances with a relative spread below 1 each; the cut at 0 adds a little
    assert np.mean([f.se**2 for f in found]) == pytest.approx(true, rel=0.06)


def test_without_an_effect_of_examples_the_crossed_interval_is_that_of_the_seeds():
    d = np.array(
        [[1.0, -1.0, 0.0, 0.0], [0.0, 1.0, -1.0, 0.0], [0.5, 0.5, 0.5, 1.5]]
    )  # column means vary less than chance
    rows = d.mean(1)
    found = stats.crossed(d)
    assert found.se == pytest.approx(rows.std(ddof=1) / np.sqrt(3))
    assert found.df == pytest.approx(2)
    assert stats.crossed(d, mean=0.25).mean == 0.25


def test_equal_seeds_on_a_test_set_that_varies_have_an_interval():
    d = np.tile([1, 0, 0, 0, 0, 0, 0, -1, 0, 0], (3, 1))  # all seeds differ in the same examples
    found = stats.crossed(d)
    assert found.se == pytest.approx(np.std(d[0], ddof=1) / np.sqrt(10))
    assert found.df == pytest.approx(9, rel=0.01)


@pytest.mark.parametrize("bad", [np.zeros(3), np.full((2, 3), np.nan)])
def test_crossed_refuses_what_is_no_table_of_differences(bad):
    with pytest.raises(ConfigError, match=r"finite differences \[seeds, examples\]"):
        stats.crossed(bad)
    assert np.isnan(stats.crossed(np.ones((1, 5))).below(0))
    assert np.isnan(stats.crossed(np.ones((3, 5))).below(2))


def disagreement(rng, n, persistence, *, examples=2000, share=0.05, seed_sd=0.002):
    """Differences of two networks that disagree on a share of the examples, the same ones in part for every seed."""

    def drawn(shape, mean):
        u = rng.random(shape)
        return np.where(u < (share + mean) / 2, 1, np.where(u < share, -1, 0))

    common = drawn((1, examples), 0.0)
    own = drawn((n, examples), seed_sd * rng.normal(size=(n, 1)))
    return np.where(rng.random((n, examples)) < persistence, common, own)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_crossed_interval_covers_and_that_of_the_seeds_does_not_cover_a_new_test_set(n):
    """2,000 examples and 5% disagreement; a share is within 3.5 standard errors of 95% in all but one of 2,000 runs."""
    rng = np.random.default_rng(n)
    trials = 400
    crossed = seeds = 0
    for _ in range(trials):
        d = disagreement(rng, n, 0.9)
        low, high = stats.crossed(d).interval(0.95)
        crossed += low < 0 < high
        low, high = stats.estimate(d.mean(1)).interval(0.95)
        seeds += low < 0 < high
    assert abs(crossed / trials - 0.95) < 3.5 * np.sqrt(0.05 * 0.95 / trials)
    assert seeds / trials < 0.88


def test_a_known_resolution_is_a_floor_of_the_spread():
    assert stats.estimate([0.0] * 5, floor=0.01).se == pytest.approx(0.01 / np.sqrt(5))
    assert stats.estimate([0.0, 1.0], floor=0.01).se == pytest.approx(0.5)
    assert stats.estimate([0.0] * 5, floor=0.01).below(0.1) < 1e-4
    assert np.isnan(stats.estimate([0.0] * 5).below(0.1))
    assert np.isnan(stats.estimate([0.0], floor=0.01).below(0.1))


def test_an_estimate_is_the_t_test():
    x = [0.1, -0.2, 0.4, 0.3]
    found = stats.estimate(x)
    assert found.above(0.05) == pytest.approx(stats.t_test(x, "greater", against=0.05))
    assert found.below(0.3) == pytest.approx(stats.t_test(x, "less", against=0.3))
    low, high = found.interval(0.9)
    assert (low, high) == pytest.approx((stats.mean_interval(x, 0.9).low, stats.mean_interval(x, 0.9).high))


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_a_mean_on_the_true_quantile_is_rarely_called_inside_or_outside(n, correlation):
    """The t test against the bound, as if that were known, calls it inside in a study of five or more often."""
    rng = np.random.default_rng(n)
    trials, inside, outside, naive = 1000, 0, 0, 0
    for _ in range(trials):
        dense = rng.normal(size=n)
        ours = 1.6448536 + correlation * dense + np.sqrt(1 - correlation**2) * rng.normal(size=n)
        found = stats.Excess(tuple(ours), tuple(dense))
        inside += found.below(0) <= 0.05
        outside += found.above(0) <= 0.05
        naive += stats.t_test(ours - stats.prediction_bound(dense), "less") <= 0.05
    most = 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / trials)
    assert inside / trials <= most
    assert outside / trials <= most
    assert naive / trials > 0.2


def test_an_excess_over_a_quantile_that_is_known_well_is_the_t_test():
    rng = np.random.default_rng(0)
    dense = tuple(rng.normal(size=4000))
    ours = tuple(x + 3 + 0.1 * z for x, z in zip(dense, rng.normal(size=40), strict=False))
    found = stats.Excess(ours, dense)
    assert found.above(0) < 1e-3
    assert found.below(0) > 0.999
    low, high = found.interval(0.9)
    assert low < found.mean < high
    assert found.below(high) == pytest.approx(0.05, abs=1e-3)
    assert found.above(low) == pytest.approx(0.05, abs=1e-3)


def test_a_threshold_without_spread_decides_nothing():
    assert np.isnan(stats.Excess((1.0, 2.0), (1.0, 1.0)).below(0))
    assert np.isnan(stats.Excess((1.0,), (1.0,)).above(0))
