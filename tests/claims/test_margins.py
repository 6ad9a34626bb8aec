"""What is fixed beforehand: which levels stand for the three densities, and how high a barrier counts as zero."""

from __future__ import annotations

import math

import pytest

from sublevel.claims.margins import loss_margin, match_densities


def test_each_density_takes_the_nearest_level_on_a_logarithmic_scale():
    # between 0.2 and 0.42 the nearest to 0.3 is 0.42 by ratio (1.40 against 1.5), and 0.2 by difference
    assert match_densities({1: 0.42, 2: 0.2}) == {0.3: 1, 0.1: 2}


def test_a_density_twice_as_far_is_near_enough_and_no_further():
    assert match_densities({1: 0.6}) == {0.3: 1}
    assert match_densities({1: 0.601}) == {}
    assert match_densities({1: 0.015}) == {0.03: 1}


def test_no_level_stands_for_two_densities():
    found = match_densities({4: 0.17})  # within a factor of 2 of 0.3 and of 0.1, nearer to 0.1
    assert found == {0.1: 4}
    assert match_densities({4: 0.17, 5: 0.16}) == {0.1: 5, 0.3: 4}


@pytest.mark.parametrize("density", [math.nan, 0.0, math.inf])
def test_a_density_that_is_none_stands_for_nothing(density):
    assert match_densities({1: density}) == {}


def test_the_loss_margin_is_two_pooled_standard_deviations_or_a_hundredth():
    assert loss_margin([[1.0, 3.0], [2.0, 2.0]]) == pytest.approx(2.0)  # variances 2 and 0
    assert loss_margin([[1.0], [math.nan, math.inf, 5.0]]) == 0.01
    assert loss_margin([]) == 0.01
