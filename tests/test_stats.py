"""Intervals and tests against scipy, closed forms and their promised coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sublevel.errors import ConfigError
from sublevel.stats import (
    EXACT_LIMIT,
    equivalence,
    fixed_sequence,
    holm,
    mean_interval,
    outside,
    paired,
    prediction_bound,
    sign_flip_test,
    t_test,
    within,
)


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


@pytest.mark.parametrize("values", [[0.25, 0.25, 0.25], [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0, 0.0]])
def test_equal_values_have_no_error_and_so_no_interval(values):
    found = mean_interval(values)
    assert found.mean == pytest.approx(values[0])
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(t_test(values))
    assert math.isnan(within(values, -1, 1))
    assert math.isnan(outside(values, 1, 2))
    assert math.isnan(paired(values, np.zeros(3)).p)


def test_nearly_equal_values_have_one():
    assert mean_interval([0.1, 0.1, 0.1 + 1e-6]).high > 0.1


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


@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("against", [0.0, 0.4])
def test_the_t_test_of_every_side_agrees_with_scipy(rng, n, alternative, against):
    x = rng.normal(0.3, 1, n)
    reference = stats.ttest_1samp(x, against, alternative=alternative)
    assert t_test(x, alternative, against=against) == pytest.approx(reference.pvalue, rel=1e-10)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [2, 4, 7])
def test_sign_flips_of_every_side_agree_with_scipy(rng, n, alternative):
    x = rng.normal(0.5, 1, n)
    exact = stats.permutation_test(
        (x, np.zeros(n)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf,
        alternative=alternative,
    )  # fmt: skip
    assert sign_flip_test(x, alternative) == pytest.approx(exact.pvalue, rel=1e-12)


@pytest.mark.parametrize("n", [3, 5, 9])
def test_equivalence_is_the_larger_of_two_tests_and_its_contrary_the_smaller_of_their_opposites(rng, n):
    x = rng.normal(0.2, 1, n)
    above = stats.ttest_1samp(x, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(x, 0.5, alternative="less").pvalue
    assert equivalence(x, 0.5) == pytest.approx(max(above, below), rel=1e-10)
    assert within(x, high=0.5) == pytest.approx(below, rel=1e-10)
    assert within(x, low=-0.5) == pytest.approx(above, rel=1e-10)
    assert outside(x, -0.5, 0.5) == pytest.approx(min(1 - above, 1 - below), rel=1e-10)


def test_a_test_at_alpha_says_what_the_interval_at_1_minus_2_alpha_says(rng):
    for _ in range(300):
        x, interval = (y := rng.normal(0.6, 0.5, 4)), mean_interval(y, 0.9)
        assert (within(x, -1, 1) <= 0.05) == (interval.low >= -1 and interval.high <= 1)
        assert (outside(x, -1, 1) <= 0.05) == (interval.low >= 1 or interval.high <= -1)


def test_equivalence_keeps_its_level_at_either_margin_and_finds_what_is_equal(rng):
    z = rng.normal(0, 0.3, (4000, 5))
    for mean in (-1, 1):
        assert np.mean([equivalence(x + mean, 1) <= 0.05 for x in z]) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)
    assert np.mean([equivalence(x, 1) <= 0.05 for x in z[:500]]) > 0.99


def test_the_prediction_bound_of_three_values_in_closed_form():
    t = 0.9 * math.sqrt(2 / (4 * 0.95 * 0.05))  # the 0.95 quantile of 2 degrees of freedom
    assert prediction_bound([1, 2, 3]) == pytest.approx(2 + t * math.sqrt(4 / 3), rel=1e-12)
    assert math.isnan(prediction_bound([1.0]))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_new_value_lies_below_the_prediction_bound_as_often_as_it_says(rng, n):
    x = rng.normal(3, 2, (5000, n + 1))
    below = np.mean([row[-1] <= prediction_bound(row[:-1], 0.9) for row in x])
    assert below == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 5000))


def test_holm_by_its_definition(rng):
    for _ in range(50):
        p = rng.uniform(0, 0.1, 6)
        order = sorted(range(6), key=lambda i: p[i])
        expected = {i: min(1, max((6 - k) * p[order[k]] for k in range(rank + 1))) for rank, i in enumerate(order)}
        assert holm(p) == pytest.approx([expected[i] for i in range(6)], rel=1e-12)
    assert holm([]).tolist() == []


def test_holm_counts_no_test_that_was_not_made():
    found = holm([0.01, math.nan, 0.04])
    assert found[[0, 2]].tolist() == [0.02, 0.04]
    assert math.isnan(found[1])


@pytest.mark.parametrize(
    ("p", "count"), [([], 0), ([0.05, 0.05], 2), ([0.06, 0.0], 0), ([0.01, math.nan, 0.01], 1), ([0.01, 0.2, 0], 1)]
)
def test_a_fixed_sequence_ends_at_the_first_that_fails(p, count):
    assert fixed_sequence(p) == count


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: within([1, 2], 1, 1), "the lower bound 1 must lie below the upper bound 1"),
        (lambda: prediction_bound([1, 2], 95), "confidence level is 95"),
        (lambda: mean_interval([1, math.nan]), "1 of 2 values are NaN or infinite"),
        (lambda: paired([1, 2], [1]), "same length; got 2 and 1"),
        (lambda: mean_interval([1, 2], level=95), "confidence level is 95"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
