"""What is fixed beforehand: which levels stand for the fixed densities, and that every margin is a number."""

from __future__ import annotations

import inspect
import math

import pytest

from sublevel.claims import margins
from sublevel.claims.margins import match_densities


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


def test_a_study_that_prunes_36_per_cent_reaches_all_three():
    levels = dict(enumerate((0.64, 0.41, 0.262, 0.168, 0.107, 0.069, 0.044), 1))
    assert match_densities(levels) == {0.3: 3, 0.1: 5, 0.03: 7}


def test_a_study_may_name_its_own_densities():
    levels = dict(enumerate((0.64, 0.41, 0.262, 0.168, 0.107), 1))
    assert match_densities(levels, (0.4, 0.17)) == {0.4: 2, 0.17: 4}


@pytest.mark.parametrize("density", [math.nan, 0.0, math.inf])
def test_a_density_that_is_none_stands_for_nothing(density):
    assert match_densities({1: density}) == {}


def test_no_margin_is_computed_from_results():
    """Everything in the file but the matching of densities is a constant."""
    public = {name: value for name, value in vars(margins).items() if name.isupper()}
    assert all(isinstance(value, int | float | str | tuple) for value in public.values())
    functions = [n for n, f in vars(margins).items() if inspect.isfunction(f) and f.__module__ == margins.__name__]
    assert functions == ["match_densities"]


def test_one_margin_says_what_matches_and_what_is_no_error_barrier():
    from sublevel.claims import CLAIMS

    parts = list(CLAIMS["C11"].query({}))
    assert {part.high for part in parts} == {margins.ERROR_MARGIN} == {0.005}
