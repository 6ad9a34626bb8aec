"""The selection of every step gives the masks of the selection of every level."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cases import CASES, convolution
from sublevel.errors import ConfigError
from sublevel.prune.allocation import counts
from sublevel.prune.repeated import repeated
from sublevel.prune.select import select
from sublevel.space import Space

SPACE = Space.of(convolution())
ACROSS = {"protect": ["7.weight"], "floor": 0}, {"protect": [], "floor": 5}, {"protect": ["7.weight"], "floor": 5}


@pytest.mark.parametrize("scope", ["global", "layer", "erk"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_masks_are_those_of_select(case, scope):
    space = case.space
    for level in range(4):
        keep = counts(space, 0.4, level, scope)
        choose = repeated(space, keep)
        for _ in range(3):
            scores = torch.randn(space.dim, dtype=torch.float64)
            assert torch.equal(choose(scores), select(space, scores, space.full_mask(), keep))


@given(st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, float("inf"), -float("inf")]), min_size=SPACE.dim,
                max_size=SPACE.dim), st.integers(0, 3), st.sampled_from(["global", "layer"]))  # fmt: skip
def test_ties_too(values, level, scope):
    scores, keep = torch.tensor(values), counts(SPACE, 0.3, level, scope)
    assert torch.equal(repeated(SPACE, keep)(scores), select(SPACE, scores, SPACE.full_mask(), keep))


@pytest.mark.parametrize("held", ACROSS, ids=str)
def test_what_is_protected_or_under_the_floor_stays(held):
    keep = counts(SPACE, 0.5, 1, **held)
    choose = repeated(SPACE, keep, **held)
    for _ in range(5):
        scores = torch.rand(SPACE.dim)
        scores[SPACE.indicator("7.weight")] = 0
        mask = choose(scores)
        assert torch.equal(mask, select(SPACE, scores, SPACE.full_mask(), keep, **held))
        assert int(mask[SPACE.indicator("7.weight")].sum()) >= (48 if held["protect"] else 5)


def test_counts_that_cannot_be_are_refused_at_once():
    with pytest.raises(ConfigError, match=r"cannot keep 10000 of the \d+ weights left in network"):
        repeated(SPACE, [10_000])
    with pytest.raises(ConfigError, match="cannot keep 3 weights: 48 are protected or under the floor of 0"):
        repeated(SPACE, [3], protect=["7.weight"])
