"""Intervals and tests against scipy, closed forms and their promised coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sublevel.errors import ConfigError
from sublevel.stats import EXACT_LIMIT, mean_interval, paired


@pytest.fixture
def rng():
    return np.random.default_rng(20240322)


def test_the_closed_form_for_three_values():
    found = mean_interval([1, 2, 3])
    reach = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025)) / math.sqrt(3)  # the t quantile of 2 degrees of freedom
    assert (found.mean, found.n, found.level) == (2.0, 3, 0.95)
    assert (found.low, found.high) == pytest.approx((2 - reach, 2 + reach), rel=1e-12)


def test_two_values_have_the_cauchy_interval():
    found = mean_interval([0, 2], level=0.5)  # t of 1 degree of freedom is Cauchy: quantile 1 at 0.75
    assert (found.low, found.high) == pytest.approx((0, 2))


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_paired_agrees_with_scipy(rng, n):
    a, b = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
    found, reference = paired(a, b), stats.ttest_rel(a, b)
    limits = reference.confidence_interval(0.95)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-10)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high), rel=1e-10)
    exact = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert found.p_exact == pytest.approx(exact.pvalue, rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_differences_of_one_sign_give_the_smallest_exact_p(n):
    assert paired(np.arange(1, n + 1), np.zeros(n)).p_exact == 2.0 ** (1 - n)


def test_ties_that_rounding_hides_are_counted():
    assert paired([0.1, 0.2, 0.3], [0, 0, 0]).p_exact == 0.25
    assert paired([0.1 + 0.2, -0.3], [0, 0]).p_exact == 1.0


@pytest.mark.parametrize("values", [[], [3.0]])
def test_no_interval_is_invented_below_two_values(values):
    found = mean_interval(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    pair = paired(values, values)
    assert pair.n == len(values)
    assert all(math.isnan(x) for x in (pair.low, pair.high, pair.p, pair.p_exact))


def test_equal_differences_have_an_interval_of_no_width():
    found = paired([2.1, 3.1, 4.1], [2.0, 3.0, 4.0])
    assert found.effect == pytest.approx(0.1)
    same = paired([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    assert (same.effect, same.low, same.high, same.p) == (0.25, 0.25, 0.25, 0.0)
    none = paired([1, 2], [1, 2])
    assert math.isnan(none.p)
    assert none.p_exact == 1.0


def test_the_exact_test_stops_at_its_limit(rng):
    assert math.isnan(paired(rng.normal(size=EXACT_LIMIT + 1), np.zeros(EXACT_LIMIT + 1)).p_exact)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_covers_as_often_as_it_says(rng, n):
    samples = rng.normal(1.0, 2.0, size=(4000, n))
    found = [mean_interval(x, level=0.9) for x in samples]
    coverage = np.mean([i.low <= 1.0 <= i.high for i in found])
    assert coverage == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 4000))


def test_the_exact_test_rejects_no_more_often_than_it_says(rng):
    p = np.array([paired(rng.standard_t(2, 6), np.zeros(6)).p_exact for _ in range(2000)])
    for alpha in (0.05, 0.1, 0.25):
        assert np.mean(p <= alpha) <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / 2000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1, math.nan]), "1 of 2 values are NaN or infinite"),
        (lambda: paired([1, 2], [1]), "same length; got 2 and 1"),
        (lambda: mean_interval([1, 2], level=95), "confidence level is 95"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
