"""Masks in the 2:4 pattern."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sublevel.prune import ScoreContext, prune
from sublevel.space import Point, Space

NETS = {
    "linear": lambda: nn.Sequential(nn.Linear(16, 6), nn.Linear(6, 4)),
    "convolution": lambda: nn.Conv2d(8, 3, 3),
    "transposed": lambda: nn.ConvTranspose2d(8, 3, 2),
}


@pytest.mark.parametrize("name", NETS)
def test_half_of_the_weights_are_two_of_every_four_along_the_inputs(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]()
    space = Space.of(net)
    at = Point(nn.utils.parameters_to_vector(net.parameters()).detach())
    total = int(space.prunable.sum())
    found = prune("magnitude-2:4", at, None, torch.Generator(), ScoreContext(space, space.full_mask()), [total // 2])
    for layer in space.prunable_layers:
        kept = found.mask[layer.coordinates].view(layer.shape).movedim(1 - layer.axis, -1)
        size = at.theta[layer.coordinates].abs().view(layer.shape).movedim(1 - layer.axis, -1)
        for begin in range(0, kept.shape[-1] - 3, 4):
            group, sizes = kept[..., begin : begin + 4], size[..., begin : begin + 4]
            assert (group.sum(-1) == 2).all()
            kept_least = sizes.where(group, torch.inf).amin(-1)
            assert (kept_least >= sizes.where(~group, 0.0).amax(-1)).all()
