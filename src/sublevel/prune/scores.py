"""Scores from the weights alone, at the end and at the start of training.

The weights with the lowest scores are removed first.
"""

from __future__ import annotations

import torch

from sublevel._types import Float, Tensor
from sublevel.field import Field
from sublevel.prune.registry import score
from sublevel.space import Point, Space


@score("magnitude")
def magnitude(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``|theta_i|`` (Han et al. 1506.02626)."""
    return point.theta.abs()


@score("random", draws=True)
def random(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """A uniform draw for every coordinate: the baseline of every score."""
    return torch.rand(len(point.theta), generator=generator).to(point.theta.device)


@score("lamp")
def lamp(point: Point, field: Field | None, generator: torch.Generator, *, space: Space) -> Float[Tensor, "D"]:
    """``theta_i^2 / sum_j theta_j^2`` over the j of i's layer with weights at least as large (Lee et al. 2010.07611).

    Of two equal weights the first counts as the smaller. The largest weight of every layer scores 1, so no layer is
    emptied before all others have one weight left. In float64, added up on the CPU, since a GPU adds in no fixed order;
    0 for a weight of 0.
    """
    out = point.theta.new_zeros(len(point.theta), dtype=torch.float64)
    for layer in space.prunable_layers:
        squares, order = point.theta[layer.coordinates].double().square().sort(stable=True)
        not_smaller = squares.cpu().flip(0).cumsum(0).flip(0).to(squares.device)
        out[layer.start + order] = torch.where(squares > 0, squares / not_smaller, 0.0)
    return out


@score("movement")
def movement(point: Point, field: Field | None, generator: torch.Generator, *, start: Point) -> Float[Tensor, "D"]:
    """``(theta_i^2 - start_i^2) / 2``: the movement of a weight away from zero during training.

    The movement score ``-sum_t g_i(t) theta_i(t)`` (Sanh et al. 2005.07683) is ``integral theta_i dtheta_i`` along a
    gradient flow, in units of the learning rate, and depends only on the ends. Momentum and weight decay count as
    movement.
    """
    return (point.theta.square() - start.theta.square()) / 2


@score("magnitude-increase")
def magnitude_increase(
    point: Point, field: Field | None, generator: torch.Generator, *, start: Point
) -> Float[Tensor, "D"]:
    """``|theta_i| - |start_i|`` (Zhou et al. 1905.01067, "magnitude increase")."""
    return point.theta.abs() - start.theta.abs()


@score("distance")
def distance(point: Point, field: Field | None, generator: torch.Generator, *, start: Point) -> Float[Tensor, "D"]:
    """``|theta_i - start_i|``, in any direction (Zhou et al. 1905.01067, "movement")."""
    return (point.theta - start.theta).abs()


@score("initial-magnitude")
def initial_magnitude(
    point: Point, field: Field | None, generator: torch.Generator, *, start: Point
) -> Float[Tensor, "D"]:
    """``|start_i|``, the baseline for scores of trained weights (Zhou et al., "large init")."""
    return start.theta.abs()


@score("same-sign")
def same_sign(point: Point, field: Field | None, generator: torch.Generator, *, start: Point) -> Float[Tensor, "D"]:
    """``max(0, sign(start_i) theta_i)``: magnitude, except that weights that changed sign are removed first.

    "Large final, same sign" of Zhou et al. (1905.01067, section 5).
    """
    return (start.theta.sign() * point.theta).clamp(min=0)


@score("magnitude-increase-same-sign")
def magnitude_increase_same_sign(
    point: Point, field: Field | None, generator: torch.Generator, *, start: Point
) -> Float[Tensor, "D"]:
    """``sign(start_i) theta_i - |start_i|``: the increase in the direction of the initial sign.

    It is `magnitude_increase` if the sign was kept, and ``-|theta_i| - |start_i|`` if it changed (Zhou et al.).
    """
    return start.theta.sign() * point.theta - start.theta.abs()
