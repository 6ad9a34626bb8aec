"""WoodFisher: optimal brain surgery with the block Fisher matrix, which removes weights and updates the others."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from sublevel._types import Bool, Float, Int, Tensor
from sublevel.field import Field
from sublevel.prune.registry import Scores, score
from sublevel.prune.sensitivity import likelihood_of
from sublevel.space import Point, Space, project

BLOCK = 32
"""Weights per block: consecutive remaining weights of one layer."""
DAMPING = 1e-5
"""Damping on the diagonal of the Fisher matrix (the value of Singh and Alistarh)."""
RANK = 16
"""Examples per step of Woodbury's formula."""


@score("woodfisher", updates=True, passes=500)
def woodfisher(
    point: Point, field: Field | None, generator: torch.Generator, *, space: Space, mask: Bool[Tensor, "D"]
) -> Scores:
    """``theta_q^2 / (2 [F^-1]_qq)`` with F the damped empirical Fisher in blocks (Singh and Alistarh 2004.14340).

    The update removes all pruned weights Q of a block together: ``theta - F^-1[:, Q] (F^-1[Q, Q])^-1 theta_Q``. This
    step d minimises ``d^T F d / 2`` under ``theta_Q + d_Q = 0``; for one weight it is theirs. It takes 8 `BLOCK` bytes
    of memory per remaining weight, in float64.
    """
    loss = likelihood_of(field, "woodfisher")
    index = blocks(space, mask, BLOCK)
    inverse = inverse_fisher(loss.example_grads(point), index, loss.examples, DAMPING)
    there = index >= 0
    costs = _inside(point.theta.double(), index).square() / (2 * inverse.diagonal(dim1=1, dim2=2))
    values = costs.new_zeros(space.dim).index_put_((index[there],), costs[there])
    return Scores(values, lambda left: compensated(point.theta, inverse, index, left))


def blocks(space: Space, mask: Bool[Tensor, "D"], size: int) -> Int[Tensor, "blocks size"]:
    """The coordinates of the remaining weights, layer by layer, ``size`` per row; -1 pads a layer's last row.

    >>> from sublevel.space import Layer
    >>> blocks(Space((Layer("w", (4,), 0, True),), (), ()), torch.tensor([True, False, True, True]), 2).tolist()
    [[0, 2], [3, -1]]
    """
    found = []
    for layer in space.prunable_layers:
        alive = layer.start + mask[layer.coordinates].nonzero().squeeze(1)
        found.append(F.pad(alive, (0, -len(alive) % size), value=-1).view(-1, size))
    return torch.cat(found)


def inverse_fisher(
    gradients: Iterator[Tensor], index: Int[Tensor, "blocks size"], examples: int, damping: float
) -> Float[Tensor, "blocks size size"]:
    """``(damping I + 1/N sum_n g_n g_n^T)^-1`` of every block, by Woodbury's formula with `RANK` examples per step.

    ``A^-1 - A^-1 U (I + U^T A^-1 U)^-1 U^T A^-1`` with the gradients U over sqrt(N), in float64. ``gradients`` yields
    chunks [B, D].
    """
    size = index.shape[1]
    eye = torch.eye(size, dtype=torch.float64, device=index.device)
    inverse = (eye / damping).repeat(len(index), 1, 1)
    for rows in (part for chunk in gradients for part in chunk.split(RANK)):
        u = torch.stack([_inside(row.double(), index) for row in rows], dim=2) / examples**0.5
        moved = inverse @ u
        small = torch.eye(len(rows), dtype=u.dtype, device=u.device) + u.mT @ moved
        inverse.baddbmm_(moved, torch.linalg.solve(small, moved.mT), alpha=-1.0)
    return inverse


def compensated(
    theta: Float[Tensor, "D"],
    inverse: Float[Tensor, "blocks size size"],
    index: Int[Tensor, "blocks size"],
    left: Bool[Tensor, "D"],
) -> Float[Tensor, "D"]:
    """The weights after pruning to ``left``: exactly 0 outside it, and updated in every block with a pruned weight."""
    there, values = index >= 0, _inside(theta.double(), index)
    gone = there & ~left[index.clamp(min=0)]
    eye = torch.eye(index.shape[1], dtype=torch.float64, device=theta.device)
    among = torch.where(gone[:, :, None] & gone[:, None, :], inverse, eye)
    forces = torch.linalg.solve(among, (values * gone)[..., None])
    moved = values - (inverse @ forces).squeeze(2)
    return project(theta.index_put((index[there],), moved[there].to(theta.dtype)), left)


def _inside(vector: Float[Tensor, "D"], index: Int[Tensor, "blocks size"]) -> Float[Tensor, "blocks size"]:
    """The entries of a vector by block, 0 at the padding."""
    return vector[index.clamp(min=0)] * (index >= 0)
