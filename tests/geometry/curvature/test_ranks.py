"""The rank statistic: against all pairs by hand, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sublevel.geometry.curvature.ranks import above, rank_correlation, steeper
from sublevel.space import Space

NET = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
SPACE = Space.of(NET)


def by_hand(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b]))


def test_it_is_the_share_of_pairs_with_ties_counted_half() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (7, 3), (40, 55)):
        a, b = rng.integers(0, 6, n).astype(float), rng.integers(0, 6, m).astype(float)
        assert above(a, b) == pytest.approx(by_hand(a, b), abs=1e-12)
    assert above(np.ones(3), np.ones(4)) == 0.5


def sets() -> tuple[torch.Tensor, torch.Tensor]:
    one = torch.zeros(SPACE.dim, dtype=torch.bool)
    one[SPACE.prunable.nonzero().squeeze(1)[::3]] = True
    return one, SPACE.prunable & ~one


def test_layers_count_alike_whatever_their_size_and_scale() -> None:
    one, other = sets()
    first, second = SPACE.prunable_layers
    values = torch.zeros(SPACE.dim, dtype=torch.float64)
    values[first.coordinates] = torch.where(one[first.coordinates], 2.0, 1.0).double()  # steeper: 1
    values[second.coordinates] = 1000.0  # no order: 1/2
    found = steeper(SPACE, [values], one, other)
    assert (found.value, found.se, found.layers) == (0.75, 0.0, 2)
    scaled = values.clone()
    scaled[first.coordinates] *= 1e-9
    assert steeper(SPACE, [scaled], one, other).value == 0.75
    assert steeper(SPACE, [values], other, one).value == 0.25


def test_a_layer_without_one_of_the_sets_does_not_count() -> None:
    one, other = sets()
    values = torch.rand(SPACE.dim, dtype=torch.float64)
    second = next(x for i, x in enumerate(SPACE.prunable_layers) if i == 1)
    one[second.coordinates] = False
    assert steeper(SPACE, [values], one, other).layers == 1
    assert np.isnan(steeper(SPACE, [values], torch.zeros_like(one), other).value)


def test_the_error_of_noisy_diagonals_covers_what_more_draws_do() -> None:
    """Groups of draws around a truth: the jackknife says how far their mean rank strays, and 0 for equal groups."""
    one, other = sets()
    truth = torch.linspace(0, 1, SPACE.dim, dtype=torch.float64)
    assert steeper(SPACE, [truth] * 4, one, other).se == 0
    rng, seen, said = torch.Generator().manual_seed(1), [], []
    for _ in range(200):
        groups = [truth + 0.4 * torch.randn(SPACE.dim, generator=rng, dtype=torch.float64) for _ in range(8)]
        found = steeper(SPACE, groups, one, other)
        seen.append(found.value)
        said.append(found.se)
    assert np.mean(said) == pytest.approx(np.std(seen), rel=0.3)


def test_ranks_correlate_as_spearman_says() -> None:
    assert rank_correlation(np.array([1.0, 5.0, 2.0]), np.array([0.1, 9.0, 0.2])) == 1.0
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == -1.0
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert rank_correlation(a, b) == pytest.approx(1 - 6 * 2 / (4 * 15))
