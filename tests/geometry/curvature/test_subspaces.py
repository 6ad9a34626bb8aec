"""Layers, matched sets, filter norms, and the overlap of eigenspaces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cases import CASES, named
from sublevel.geometry.curvature import (
    eigenspace_overlap,
    filter_norms,
    layer_masks,
    matched_sets,
    top_eigenvalues,
)
from sublevel.risk import EmpiricalRisk
from sublevel.space import Space

F64 = torch.float64


def frame(n, k, seed):
    rng = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=rng, dtype=F64))[0].T


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_part_the_mask(case):
    for mask in case.masks().values():
        parts = layer_masks(case.space, mask)
        whole = case.space.full_mask() if mask is None else mask
        assert torch.equal(torch.stack(list(parts.values())).sum(dim=0), whole.long())
        for layer in case.space.layers:
            assert layer.name not in parts or bool(parts[layer.name][layer.coordinates].any())


def test_a_collapsed_layer_is_not_listed():
    case = named("perceptron")
    mask = case.space.full_mask()
    first = case.space.layers[0]
    mask[first.coordinates] = False
    assert first.name not in layer_masks(case.space, mask)


def test_the_spectrum_of_a_layer_interlaces():
    case = named("frozen")
    whole = top_eigenvalues(case.field(), case.point, k=3).values
    for own in layer_masks(case.space).values():
        k = min(3, int(own.sum()))
        inside = top_eigenvalues(case.field(), case.point, k=k, mask=own).values
        assert bool((inside <= whole[:k] + 1e-6 * whole[0]).all())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matched_sets_have_the_same_count_in_every_layer(case):
    before, after = case.space.full_mask(), case.masks()["dead"]
    sets = matched_sets(case.space, before, after, seed=3)
    assert bool((~after[sets["pruned"]]).all())
    assert bool(after[sets["kept"]].all())
    for layer in case.space.layers:
        counts = [int(((s >= layer.start) & (s < layer.start + layer.size)).sum()) for s in sets.values()]
        kept = int(after[layer.coordinates].sum())
        assert counts == [min(kept, layer.size - kept) if layer.prunable else 0] * 3
    for index in sets.values():
        assert bool((index.diff() > 0).all())


def test_matched_sets_are_drawn_by_the_seed_and_random_is_from_all():
    case = named("wide")
    before, after = case.space.full_mask(), case.masks()["random"]
    one, two, other = (matched_sets(case.space, before, after, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[kind], two[kind]) for kind in one)
    assert not torch.equal(one["random"], other["random"])
    share = float(after[one["random"]].double().mean())
    assert 0.35 < share < 0.65
    second = matched_sets(case.space, after, after & other_half(case, after))
    assert all(bool(after[index].all()) for index in second.values())


def other_half(case, mask):
    keep = mask.clone()
    keep[(mask & case.space.prunable).nonzero().squeeze(1)[::2]] = False
    return keep


def test_sets_that_cannot_be_matched_are_refused():
    case = named("perceptron")
    full, half = case.space.full_mask(), case.masks()["random"]
    with pytest.raises(ValueError, match=r"restores \d+ coordinates that were pruned before"):
        matched_sets(case.space, half, full)
    with pytest.raises(ValueError, match="no layer has both pruned and kept weights"):
        matched_sets(case.space, full, full)
    with pytest.raises(ValueError, match=r"the mask before has 3 entries, the space \d+"):
        matched_sets(case.space, full[:3], full[:3])
    with pytest.raises(ValueError, match="the mask has 3 entries"):
        layer_masks(case.space, full[:3])
    with pytest.raises(ValueError, match="theta has 3 entries"):
        filter_norms(case.space, torch.zeros(3))


def test_filter_norms_are_rows_of_prunable_layers_and_magnitudes_elsewhere():
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2)).double()
    space, theta = Space.of(net), torch.arange(1.0, 42.0, dtype=F64) * torch.tensor([1.0, -1.0]).repeat(21)[:41]
    assert space.dim == 41
    norms, views = space.views(filter_norms(space, theta)), space.views(theta)
    for name, view in views.items():
        if name in ("0.weight", "3.weight"):
            for row, scale in zip(view, norms[name], strict=True):
                torch.testing.assert_close(scale, torch.full_like(scale, float(row.square().sum().sqrt())))
        else:
            assert torch.equal(norms[name], view.abs())


def adaptive(net, theta, x, y, **options):
    space = Space.of(net)
    field = EmpiricalRisk(space, net, x, y)
    plain = top_eigenvalues(field, theta, k=4, **options).values
    return plain, top_eigenvalues(field, theta, k=4, scale=filter_norms(space, theta), **options).values


def test_adaptive_curvature_does_not_see_a_rescaling():
    """Layers of a ReLU network against each other: the function is the same, the plain Hessian is not."""
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    x, y = torch.randn(30, 5, generator=rng, dtype=F64), torch.randint(0, 3, (30,), generator=rng)
    space = Space.of(net)
    theta = torch.randn(space.dim, generator=rng, dtype=F64)
    factors = torch.cat([torch.full((42,), 4.0), torch.full((21,), 0.25), torch.ones(3)]).double()
    plain, steady = adaptive(net, theta, x, y)
    moved, same = adaptive(net, factors * theta, x, y)
    torch.testing.assert_close(same, steady, rtol=1e-8, atol=1e-10)
    assert float(moved[0]) > 2 * float(plain[0])


def test_adaptive_curvature_does_not_see_the_norm_of_a_normalised_filter():
    """Behind BatchNorm H grows as |w|^-2: pruning would move sharpness through the norm alone."""
    rng = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm1d(6, eps=1e-12, track_running_stats=False)
    net = nn.Sequential(nn.Linear(5, 6, bias=False), norm, nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(30, 5, generator=rng, dtype=F64), torch.randint(0, 3, (30,), generator=rng)
    space = Space.of(net)
    theta = torch.randn(space.dim, generator=rng, dtype=F64)
    small = theta.clone()
    small[:30] *= torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0, 0.3], dtype=F64).repeat_interleave(5)
    plain, steady = adaptive(net, theta, x, y)
    moved, same = adaptive(net, small, x, y)
    torch.testing.assert_close(same, steady, rtol=1e-6, atol=1e-8)
    assert float(moved[0]) > 1.5 * float(plain[0])


def test_equal_orthogonal_and_rotated_spaces():
    basis = torch.eye(10, dtype=F64)
    same = eigenspace_overlap(basis[:3], frame(3, 3, 1) @ basis[:3])
    assert same.overlap == pytest.approx(1.0)
    assert float(same.angles.max()) < 1e-12
    apart = eigenspace_overlap(basis[:3], basis[3:6])
    assert apart.overlap == 0.0
    torch.testing.assert_close(apart.angles, torch.full((3,), math.pi / 2, dtype=F64))
    known = torch.tensor([1e-9, 0.3, 1.2], dtype=F64)
    turned = known.cos()[:, None] * basis[:3] + known.sin()[:, None] * basis[3:6]
    found = eigenspace_overlap(basis[:3], frame(3, 3, 2) @ turned)
    torch.testing.assert_close(found.angles, known, rtol=1e-6, atol=1e-14)
    assert found.overlap == pytest.approx(float(known.cos().square().mean()))


def test_the_overlap_of_random_spaces_is_the_chance_level():
    overlaps = torch.tensor(
        [eigenspace_overlap(frame(40, 5, 2 * i), frame(40, 5, 2 * i + 1)).overlap for i in range(200)]
    )
    assert abs(float(overlaps.mean()) - 5 / 40) <= 3 * float(overlaps.std()) / math.sqrt(200)
    assert eigenspace_overlap(frame(40, 5, 0), frame(40, 5, 1)).chance == 5 / 40
    assert eigenspace_overlap(frame(40, 5, 0), frame(40, 5, 1), dimension=20).chance == 5 / 20


def test_eigenspaces_of_one_hessian_are_one_space():
    case = named("perceptron")
    one, two = (top_eigenvalues(case.field(), case.point, k=4, seed=seed).vectors for seed in (0, 1))
    assert eigenspace_overlap(one, two).overlap == pytest.approx(1.0, abs=1e-9)


def test_rows_that_are_no_basis_are_refused():
    basis = torch.eye(4)
    with pytest.raises(ValueError, match="rows of the second space are not orthonormal: off by 3"):
        eigenspace_overlap(basis[:2], 2 * basis[:2])
    with pytest.raises(ValueError, match="not orthonormal"):
        eigenspace_overlap(torch.full((2, 4), math.nan), basis[:2])
    with pytest.raises(ValueError, match="3 directions in a space of dimension 2"):
        eigenspace_overlap(basis[:3], basis[:3], dimension=2)
