"""N:M patterns as a criterion: at most N of every M neighbouring weights, as sparse tensor cores compute with."""

from __future__ import annotations

import torch

from sublevel._types import Float, Tensor
from sublevel.field import Field
from sublevel.prune.registry import score
from sublevel.space import Layer, Point, Space

KEPT, GROUP = 2, 4
"""2 of 4 (Mishra et al. 2104.08378)."""


@score("magnitude-2:4")
def two_of_four(point: Point, field: Field | None, generator: torch.Generator, *, space: Space) -> Float[Tensor, "D"]:
    """``|theta_i|``, and above all others for the two largest of every four weights along the input axis.

    With half of the weights to keep (``fraction = 0.5``, one level) the mask is exactly 2:4 (Mishra et al. 2104.08378):
    the weights of one output at consecutive inputs, at each position of a kernel by itself. Where the inputs are no
    multiple of four, the last group is smaller and keeps half of its weights, rounded up. To fewer weights, the pattern
    goes first: the smaller weights of each group, then the smallest of the others; to more, groups keep three or four.
    """
    magnitude = point.theta.abs().double()  # the sum below keeps every bit of a float32
    first = torch.zeros_like(magnitude, dtype=torch.bool)
    for layer in space.prunable_layers:
        first[layer.coordinates] = _largest_of_groups(magnitude[layer.coordinates], layer)
    return magnitude + first * (2 * magnitude.max() + 1)


def _largest_of_groups(magnitude: Float[Tensor, "n"], layer: Layer) -> Tensor:
    """True [n] for the largest weights of each group; of equal ones the first."""
    inputs = 1 - layer.axis if len(layer.shape) > 1 else 0
    at = torch.arange(layer.size, device=magnitude.device).view(layer.shape).movedim(inputs, -1)
    at = at.reshape(-1, at.shape[-1])
    chosen = torch.zeros(layer.size, dtype=torch.bool, device=magnitude.device)
    for begin in range(0, at.shape[1], GROUP):
        group = at[:, begin : begin + GROUP]
        order = magnitude[group].sort(dim=1, descending=True, stable=True).indices
        keep = order[:, : -(-group.shape[1] * KEPT // GROUP)]
        chosen[group.gather(1, keep).flatten()] = True
    return chosen
