"""How many weights stay, and where: exact totals under every scope, open_lth's counts, what is spared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cases import convolution
from sublevel.errors import ConfigError
from sublevel.models import build
from sublevel.prune.allocation import apportion, counts, erk, protected
from sublevel.prune.select import layer_counts, open_lth, select
from sublevel.space import Layer, Space

SPACE = Space.of(convolution())
SIZES = [layer.size for layer in SPACE.prunable_layers]
PUBLISHED = [216715, 173371, 138695, 110955, 88763, 71009, 56806, 45443, 36353, 29081]


@pytest.fixture(scope="module")
def resnet() -> Space:
    return Space.of(build("resnet-20", input_shape=(3, 32, 32), classes=10))


# --- open_lth's rule.


def test_open_lths_counts_level_by_level(resnet: Space) -> None:
    assert sum(layer.size for layer in resnet.prunable_layers) == 270_896
    assert [counts(resnet, 0.2, n, rounding="open_lth") for n in range(1, 11)] == [[n] for n in PUBLISHED]


def naive_open_lth(scores: np.ndarray, mask: np.ndarray, fraction: float) -> np.ndarray:
    """pruning/sparse_global.py of open_lth, on one vector."""
    number = np.ceil(fraction * mask.sum()).astype(int)
    threshold = np.sort(scores[mask])[number]
    return np.where(scores > threshold, mask, False)


def test_selection_by_those_counts_is_open_lths_mask(resnet: Space) -> None:
    """On a network's own weights, ten levels deep, against their rule written with numpy, and our own form of it."""
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(resnet.dim, generator=rng, dtype=torch.float64).abs()
    mask, theirs = resnet.full_mask(), resnet.prunable.numpy()
    for level, left in enumerate(PUBLISHED, 1):
        rule = open_lth(resnet, scores, mask, 0.2)
        mask = select(resnet, scores, mask, counts(resnet, 0.2, level, rounding="open_lth"))
        theirs = naive_open_lth(scores.numpy(), theirs, 0.2)
        assert resnet.remaining(mask) == left
        assert np.array_equal(mask.numpy() & resnet.prunable.numpy(), theirs)
        assert torch.equal(rule, mask)


def test_ties_with_the_threshold_all_go_by_open_lths_rule_and_not_by_count() -> None:
    space = Space((Layer("w", (10,), 0, True),), (), ())
    scores = torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert open_lth(space, scores, space.full_mask(), 0.2).tolist() == [False] * 5 + [True] * 5
    exact = select(space, scores, space.full_mask(), counts(space, 0.2, 1, rounding="open_lth"))
    assert exact.tolist() == [False] * 3 + [True] * 7
    assert not bool(open_lth(space, scores, space.full_mask(), 0.99).any())


def test_nothing_falls_below_nothing() -> None:
    tiny = Space((Layer("w", (3,), 0, True),), (), ())
    assert [counts(tiny, 0.2, n, rounding="open_lth") for n in range(4)] == [[3], [1], [0], [0]]
    with pytest.raises(ConfigError, match="unknown rounding 'open-lth'; did you mean 'open_lth'"):
        counts(tiny, 0.2, 1, rounding="open-lth")


# --- ERK.


def test_erk_by_the_published_formula(resnet: Space) -> None:
    """Densities 1 - (n_in + n_out + w + h) / (n_in n_out w h) up to one factor; layers that would be full are full."""
    layers = list(resnet.prunable_layers)
    found = erk(resnet, 27_090)
    assert sum(found) == 27_090
    free = [i for i, n in enumerate(found) if n < layers[i].size]
    factors = [found[i] / layers[i].size / (sum(layers[i].shape) / math.prod(layers[i].shape)) for i in free]
    assert max(factors) / min(factors) < 1.02, "one factor for all, but for rounding"
    full = [i for i, n in enumerate(found) if n == layers[i].size]
    assert full, "the case is one in which a layer is full"
    assert all(sum(layers[i].shape) * max(factors) >= layers[i].size for i in full)


@given(st.integers(0, sum(SIZES)))
def test_erk_is_exact_and_grows_with_the_total(total: int) -> None:
    found = erk(SPACE, total)
    assert sum(found) == total
    assert all(0 <= n <= size for n, size in zip(found, SIZES, strict=True))
    more = erk(SPACE, min(total + 1, sum(SIZES)))
    assert all(b >= a for a, b in zip(found, more, strict=True))


shares = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=5)


@given(shares, st.floats(0, 1))
def test_apportioning_is_nearest_and_exact(parts: list[tuple[int, int, int]], where: float) -> None:
    """Between the bounds, exact, and no unit given to one part would have been due to another first."""
    weight, low, extra = zip(*parts, strict=True)
    high = [a + b for a, b in zip(low, extra, strict=True)]
    total = sum(low) + round(where * sum(extra))
    found = apportion(total, weight, low, high)
    assert sum(found) == total
    assert all(a <= n <= b for a, n, b in zip(low, found, high, strict=True))
    given_at = [(n - 0.5) / w for n, w, a in zip(found, weight, low, strict=True) if n > a]
    due_at = [(n + 0.5) / w for n, w, b in zip(found, weight, high, strict=True) if n < b]
    if given_at and due_at:
        assert max(given_at) <= min(due_at) + 1e-12


def test_levels_of_every_scope_are_nested_with_what_is_spared(resnet: Space) -> None:
    scores = torch.rand(resnet.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spare = {"protect": ("conv", "fc*"), "floor": 40}
    for scope in ("global", "layer", "erk"):
        mask = resnet.full_mask()
        for level in (1, 4, 9):
            keep = counts(resnet, 0.3, level, scope, **spare)
            child = select(resnet, scores, mask, keep, **(spare if scope == "global" else {}))
            left = dict(zip((x.name for x in resnet.prunable_layers), layer_counts(resnet, child), strict=True))
            assert resnet.remaining(child) == sum(keep)
            assert left["conv.weight"] == 432
            assert left["fc.weight"] == 640
            assert min(left.values()) >= 40
            assert not bool((child & ~mask).any())
            if scope != "layer":
                assert sum(keep) == counts(resnet, 0.3, level)[0], "sparing layers does not change the total"
            mask = child


# --- Protection and floors.


def test_a_floor_saves_a_layer_that_the_scores_would_empty() -> None:
    layers = list(SPACE.prunable_layers)
    scores = torch.rand(SPACE.dim)
    scores[layers[0].coordinates] -= 5.0
    assert layer_counts(SPACE, select(SPACE, scores, SPACE.full_mask(), [20]))[0] == 0
    saved = select(SPACE, scores, SPACE.full_mask(), [20], floor=3)
    assert layer_counts(SPACE, saved)[0] == 3
    assert SPACE.remaining(saved) == 20
    best = scores[layers[0].coordinates].topk(3).indices.sort().values
    assert saved[layers[0].coordinates].nonzero().squeeze(1).tolist() == best.tolist()


@given(st.integers(0, 10**6), st.integers(30, sum(SIZES)))
def test_a_floor_that_does_not_bind_changes_nothing(seed: int, keep: int) -> None:
    scores = torch.rand(SPACE.dim, generator=torch.Generator().manual_seed(seed)).mul(30).floor()
    plain = select(SPACE, scores, SPACE.full_mask(), [keep])
    least = min(layer_counts(SPACE, plain))
    assert torch.equal(select(SPACE, scores, SPACE.full_mask(), [keep], floor=least), plain)


def test_patterns_name_layers_by_weight_or_module() -> None:
    assert protected(SPACE, ["0.weight"]) == protected(SPACE, ["0"]) == ["0.weight"]
    assert protected(SPACE, ["[03].*"]) == ["0.weight", "3.weight"]
    with pytest.raises(ConfigError, match=r"protect: '9.weight' matches no prunable layer; did you mean '\d.weight'"):
        protected(SPACE, ["0", "9.weight"])
    with pytest.raises(ConfigError, match=r"protect = \['\*'\] covers every prunable layer: nothing is left to prune"):
        protected(SPACE, ["*"])


def test_totals_too_small_for_what_is_spared() -> None:
    with pytest.raises(
        ConfigError, match=r"level 4 leaves 11 weights, fewer than the 27 that protect = \['0'\] and floor"
    ):
        counts(SPACE, 0.5, 4, protect=["0"])
    with pytest.raises(ConfigError, match="cannot keep 5 weights: 6 are protected or under the floor of 2"):
        select(SPACE, torch.rand(SPACE.dim), SPACE.full_mask(), [5], floor=2)
    with pytest.raises(ConfigError, match="900 weights cannot be shared out among layers that hold 0 to 183"):
        erk(SPACE, 900)
