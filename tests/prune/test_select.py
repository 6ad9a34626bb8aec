"""Masks of an exact count, nested and stable."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cases import convolution, named, perceptron
from sublevel.errors import ConfigError
from sublevel.prune import SCORES, score_function
from sublevel.prune.select import counts, layer_counts, removed, select
from sublevel.space import Layer, Space

SPACE = Space.of(convolution())
TOTAL = int(SPACE.prunable.sum())


def sized(*sizes):
    """A space of layers of these sizes."""
    return Space(tuple(Layer(str(i), (n,), sum(sizes[:i]), True) for i, n in enumerate(sizes)), (), ())


@pytest.mark.parametrize("fraction", ["0.05", "0.1", "0.15", "0.2", "0.29", "0.3", "0.35", "0.5", "0.55", "0.9"])
def test_removed_is_the_nearest_count_with_halves_up(fraction):
    """floor(f r + 1/2) in exact arithmetic: 0.29 of 50 is 14.5, so 15 go."""
    for remaining in range(2000):
        want = math.floor(Fraction(fraction) * remaining + Fraction(1, 2))
        assert removed(float(fraction), remaining) == want, remaining


def test_the_published_network_level_by_level():
    """ResNet-20: 270,896 weights, ten levels of 20%."""
    left = [counts(sized(270_896), 0.2, level)[0] for level in range(11)]
    assert left == [270896, 216717, 173374, 138699, 110959, 88767, 71014, 56811, 45449, 36359, 29087]


def test_a_level_is_counted_from_what_the_one_before_left():
    assert counts(sized(10, 7), 0.5, 0) == [17]
    assert counts(sized(10, 7), 0.5, 1) == [8]
    assert counts(sized(10, 7), 0.5, 2) == [4]
    assert counts(sized(10, 7), 0.5, 2, "layer") == [2, 1]
    with pytest.raises(ConfigError, match="unknown pruning scope 'layers'; did you mean 'layer'"):
        counts(sized(10), 0.5, 1, "layers")


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_levels_are_exact_and_nested(fraction, scope):
    mask, scores = SPACE.full_mask(), torch.rand(SPACE.dim)
    for level in range(1, 7):
        keep = counts(SPACE, fraction, level, scope)
        child = select(SPACE, scores, mask, keep)
        assert SPACE.remaining(child) == sum(keep)
        if scope == "layer":
            assert layer_counts(SPACE, child) == keep
        assert not bool((child & ~mask).any())
        assert bool(child[~SPACE.prunable].all())
        mask, scores = child, torch.rand(SPACE.dim)


@given(st.integers(0, TOTAL), st.integers(0, 10**6))
def test_the_best_are_kept(keep, seed):
    scores = torch.rand(SPACE.dim, generator=torch.Generator().manual_seed(seed))
    parent = SPACE.full_mask()
    mask = select(SPACE, scores, parent, [keep])
    kept, gone = scores[mask & SPACE.prunable], scores[~mask]
    assert len(kept) == keep
    if len(kept) and len(gone):
        assert kept.min() > gone.max()


@given(st.integers(0, TOTAL), st.lists(st.integers(0, 3), min_size=SPACE.dim, max_size=SPACE.dim))
def test_ties_go_by_position_lowest_first(keep, values):
    scores = torch.tensor(values, dtype=torch.float64)
    mask = select(SPACE, scores, SPACE.full_mask(), [keep])
    order = sorted((values[i], i) for i in range(SPACE.dim) if SPACE.prunable[i])
    gone = {i for _, i in order[: TOTAL - keep]}
    assert {i for i in range(SPACE.dim) if not mask[i]} == gone


@given(st.integers(0, 10**6), st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_selection_in_two_steps_is_selection_in_one(seed, a, b):
    scores = torch.rand(SPACE.dim, generator=torch.Generator().manual_seed(seed)).mul(20).floor()
    few, many = sorted((a, b))
    parent = select(SPACE, scores, SPACE.full_mask(), [many])
    assert torch.equal(select(SPACE, scores, parent, [few]), select(SPACE, scores, SPACE.full_mask(), [few]))


def test_what_is_gone_has_no_score():
    """A weight that the parent removed stays removed however well it scores, and does not use up the count."""
    parent = SPACE.full_mask()
    parent[:5] = False
    scores = torch.zeros(SPACE.dim)
    scores[:5] = 100.0
    mask = select(SPACE, scores, parent, [10])
    assert not bool(mask[:5].any())
    assert SPACE.remaining(mask) == 10


def test_what_cannot_be_pruned_has_no_score_either():
    scores = torch.where(SPACE.prunable, 1.0, 0.0)
    assert bool(select(SPACE, scores, SPACE.full_mask(), [1])[~SPACE.prunable].all())


def test_the_parent_is_not_written():
    parent = SPACE.full_mask()
    select(SPACE, torch.rand(SPACE.dim), parent, [3])
    assert bool(parent.all())


def test_all_and_nothing():
    scores = torch.rand(SPACE.dim)
    assert torch.equal(select(SPACE, scores, SPACE.full_mask(), [TOTAL]), SPACE.full_mask())
    assert torch.equal(select(SPACE, scores, SPACE.full_mask(), [0]), ~SPACE.prunable)


@pytest.mark.parametrize("count", [TOTAL + 1, -1])
def test_counts_that_cannot_be_are_refused(count):
    with pytest.raises(ConfigError, match=f"cannot keep {count} of the {TOTAL} weights left in network"):
        select(SPACE, torch.rand(SPACE.dim), SPACE.full_mask(), [count])


def test_a_layer_that_has_too_few_is_named():
    with pytest.raises(ConfigError, match=r"cannot keep 28 of the 27 weights left in 0\.weight"):
        select(SPACE, torch.rand(SPACE.dim), SPACE.full_mask(), [28, 0, 0])


def test_a_network_of_one_layer():
    space = Space.of(nn.Linear(5, 2))
    mask = select(space, torch.arange(12.0), space.full_mask(), [4])
    assert mask[:10].tolist() == [False] * 6 + [True] * 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(bad):
    """Infinite scores have their place; one that is nan would be kept above all others in silence."""
    scores = torch.rand(SPACE.dim)
    scores[3] = bad
    if math.isnan(bad):
        with pytest.raises(ConfigError, match="nan"):
            select(SPACE, scores, SPACE.full_mask(), [10])
    else:
        assert bool(select(SPACE, scores, SPACE.full_mask(), [10])[3]) == (bad > 0)


def test_global_magnitude_compares_across_layers_and_layer_does_not():
    space = Space.of(perceptron())
    theta = torch.cat(
        [torch.full((layer.size,), 10.0 if layer.name.startswith("2") else 1.0) for layer in space.layers]
    )
    overall = select(space, theta.abs(), space.full_mask(), [24])
    assert layer_counts(space, overall) == [0, 24]
    assert layer_counts(space, select(space, theta.abs(), space.full_mask(), [24, 12])) == [24, 12]


def test_magnitude_and_random():
    point = named("perceptron").point
    assert torch.equal(SCORES["magnitude"](point, None, torch.Generator()), point.theta.abs())
    draw = [SCORES["random"](point, None, torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert not torch.equal(*draw)
    assert float(draw[0].min()) >= 0
    assert float(draw[0].max()) < 1


def test_an_unknown_score_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown pruning score 'magnitud'; did you mean 'magnitude'"):
        score_function("magnitud")
