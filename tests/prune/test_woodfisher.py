"""The surgeon's update: the least costly move that removes the chosen weights, against a dense solution."""

from __future__ import annotations

import pytest
import torch
from scored import at_mask, context, naive_blocks, naive_inverse
from torch import nn

from cases import dense_example_grads, named
from sublevel.prune import ScoreContext, prune
from sublevel.prune.woodfisher import blocks, inverse_fisher
from sublevel.risk import EmpiricalRisk
from sublevel.space import Point, Space

CASE = named("relu")


def removed_to(keep: int, mask: str = "all"):
    seen = context(CASE, mask)
    return seen, prune("woodfisher", CASE.point, CASE.field(), torch.Generator(), seen, [keep])


@pytest.mark.parametrize("mask", ["all", "random"])
def test_the_update_solves_the_constrained_quadratic(mask: str) -> None:
    """KKT: inside a block F d is 0 on the weights that stay; the removed are exactly 0; others stand still."""
    seen, done = removed_to(30, mask)
    theta = CASE.point.project(seen.mask).theta
    moved, bent = done.theta - theta, 0.0
    there = at_mask(CASE, mask)
    for block in naive_blocks(CASE, seen.mask):
        stays = done.mask[block]
        slope = torch.linalg.inv(naive_inverse(there, block)) @ moved[block]
        bent = max(bent, float(slope[~stays].abs().max()) if (~stays).any() else 0.0)
        assert float(slope[stays].abs().max() if stays.any() else 0.0) < 1e-9
    assert bent > 1e-5
    assert bool((done.theta[~done.mask] == 0).all())
    assert torch.equal(done.theta[~CASE.space.prunable], theta[~CASE.space.prunable])


def test_one_weight_moves_as_in_the_paper() -> None:
    """``-theta_q F^-1 e_q / [F^-1]_qq``, at the cost that its score says."""
    total = CASE.space.remaining(CASE.space.full_mask())
    _, done = removed_to(total - 1)
    (q,) = (~done.mask).nonzero().squeeze(1).tolist()
    block = next(b for b in naive_blocks(CASE, CASE.space.full_mask()) if q in b)
    inverse, at = naive_inverse(CASE, block), block.tolist().index(q)
    move = -CASE.point.theta[q] * inverse[:, at] / inverse[at, at]
    found = (done.theta - CASE.point.theta)[block]
    torch.testing.assert_close(found, move, rtol=1e-9, atol=1e-12)
    cost = float(found @ torch.linalg.inv(inverse) @ found) / 2
    assert cost == pytest.approx(float(CASE.point.theta[q] ** 2 / (2 * inverse[at, at])), rel=1e-8)


def test_making_up_for_the_removed_lowers_the_loss_of_pruning() -> None:
    """Least squares with correlated inputs, at its minimum: the loss rises by less than a fifth of what it did."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=rng, dtype=torch.float64) @ torch.randn(3, 12, generator=rng, dtype=torch.float64)
    x = x + 0.2 * torch.randn(400, 12, generator=rng, dtype=torch.float64)
    y = x.sum(1, keepdim=True) + torch.randn(400, 1, generator=rng, dtype=torch.float64)
    net = nn.Linear(12, 1, bias=False).double()
    space, at = Space.of(net), torch.linalg.lstsq(x, y).solution.squeeze(1)
    field, whole = EmpiricalRisk(space, net, x, y, loss="squared"), space.full_mask()
    done = prune("woodfisher", Point(at), field, torch.Generator(), ScoreContext(space, whole), [6])
    lost, plain = (field.loss(theta) - field.loss(at) for theta in (done.theta, Point(at).project(done.mask).theta))
    assert 0 < lost < plain / 5


@pytest.mark.parametrize("damping", [1e-5, 1e-2])
@pytest.mark.parametrize("size", [1, 7, 200])
def test_woodbury_is_the_inverse(size: int, damping: float) -> None:
    """Blocks of one weight, ragged ones, and whole layers larger than the number of examples."""
    index = blocks(CASE.space, CASE.space.full_mask(), size)
    grads = dense_example_grads(CASE, "stored")
    found = inverse_fisher(iter(grads.split(10)), index, len(grads), damping)
    for row, inverse in zip(index, found, strict=True):
        there = row >= 0
        g = grads[:, row[there]]
        want = torch.linalg.inv(g.T @ g / len(g) + damping * torch.eye(int(there.sum()), dtype=g.dtype))
        torch.testing.assert_close(inverse[there][:, there], want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))
