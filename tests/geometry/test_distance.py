"""Distances, angles, signs and overlaps, by hand and by their algebra."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sublevel.geometry.distance import Overlap, displacement, mask_overlap

vectors = arrays("float64", st.shared(st.integers(1, 12), key="n"), elements=st.floats(-1e3, 1e3)).map(torch.from_numpy)
masks = arrays("bool", st.shared(st.integers(1, 12), key="n")).map(torch.from_numpy)


def t(*values):
    return torch.tensor(values)


def test_by_hand():
    d = displacement(t(1.0, 0.0, -2.0, 0.0), t(1.0, 2.0, 2.0, 0.0))
    assert d.distance == math.sqrt(20)
    assert d.cosine == pytest.approx(-3 / math.sqrt(5 * 9))
    assert d.sign_agreement == 0.5  # of the two coordinates that are non-zero at both ends
    assert (d.norm_start, d.norm_end) == (math.sqrt(5), 3.0)


@given(vectors, vectors)
def test_algebra(a, b):
    there, back = displacement(a, b), displacement(b, a)
    assert there.distance == back.distance
    assert there.norm_start == back.norm_end
    if a.norm() and b.norm():
        assert -1 <= there.cosine <= 1
        assert there.cosine == back.cosine
        law = there.norm_start**2 + there.norm_end**2 - 2 * there.norm_start * there.norm_end * there.cosine
        assert there.distance**2 == pytest.approx(law, abs=1e-6 * max(1, law))


@given(vectors)
def test_to_itself_and_to_its_opposite(a):
    d = displacement(a, a)
    assert d.distance == 0
    if a.norm() > 1e-100:
        assert d.cosine == pytest.approx(1)
        assert d.cosine <= 1
        assert displacement(a, -a).cosine >= -1
    if (a != 0).any():
        assert d.sign_agreement == 1
        assert displacement(a, -a).sign_agreement == 0


def test_undefined_is_nan():
    d = displacement(t(0.0, 0.0), t(1.0, 0.0))
    assert math.isnan(d.cosine)
    assert math.isnan(d.sign_agreement)
    assert d.distance == 1.0


def test_in_float64_whatever_comes_in():
    a = torch.full((10_000,), 1.0, dtype=torch.float32)
    b = a + 1e-3
    assert displacement(a, b).distance == pytest.approx(float((b.double() - 1).norm()), rel=1e-12)


@given(masks, masks)
def test_overlap(a, b):
    n, left, both = len(a), int(a.sum()), int((a & b).sum())
    found = mask_overlap(a, b, torch.ones(n, dtype=torch.bool))
    assert found.chance == int(b.sum()) / n
    assert math.isnan(found.share) if not left else found.share == both / left


def test_overlap_counts_only_what_may_be_pruned():
    among = t(True, True, False, False)
    assert mask_overlap(t(True, True, True, True), t(True, False, True, True), among) == Overlap(0.5, 0.5)


def test_overlap_of_random_masks_is_chance():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200_000, generator=rng) < p for p in (0.1, 0.3))
    found = mask_overlap(a, b, torch.ones(200_000, dtype=torch.bool))
    assert found.share == pytest.approx(found.chance, abs=0.02)


def test_overlap_among_nothing_is_nan():
    nothing = torch.zeros(3, dtype=torch.bool)
    found = mask_overlap(~nothing, ~nothing, nothing)
    assert math.isnan(found.share)
    assert math.isnan(found.chance)
