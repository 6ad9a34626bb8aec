"""A network on a few inputs, to compare the functions of two points without data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.inputs import Inputs, as_dtype, call, each

SIDES = (32, 28, 16, 8, 64, 224)
"""Image sizes to try if the network's input size is unknown."""
EXAMPLES = 8


class Probe:
    """The outputs of a network in evaluation mode on a few ``inputs``, or on random inputs of a fitting shape."""

    def __init__(self, module: nn.Module, inputs: Inputs | None = None) -> None:
        self.module = module
        self._inputs = [inputs] if inputs is not None else None

    def __call__(self, points: Sequence[Mapping[str, Tensor]]) -> list[Tensor] | None:
        """The outputs under each set of parameters and buffers by name; None if no input fits."""
        like = next(iter(points[0].values()))
        modes = [(m, m.training) for m in self.module.modules()]
        self.module.eval()
        try:
            for inputs in self._inputs or _guesses(self.module):
                moved = each(inputs, lambda t: as_dtype(t.to(like.device), like.dtype))
                try:
                    with torch.no_grad():
                        found = [call(self.module, dict(at), each(moved, torch.clone)) for at in points]
                except (RuntimeError, ValueError, IndexError, TypeError):
                    continue
                if all(isinstance(out, Tensor) for out in found):
                    self._inputs = [inputs]
                    return found
            return None
        finally:
            for m, training in modes:
                m.training = training


def same_outputs(a: Tensor, b: Tensor) -> bool:
    """Whether outputs differ only by rounding."""
    allowed = 1e-9 if a.dtype == torch.float64 else 1e-3
    return bool((a - b).norm() <= allowed * torch.maximum(a.norm(), b.norm()))


def _guesses(module: nn.Module) -> Iterator[Inputs]:
    """Random inputs for the first layer whose input shape is known."""
    draw = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.Embedding):
            yield torch.randint(0, layer.num_embeddings, (EXAMPLES, 8), generator=draw)
        elif isinstance(layer, nn.modules.conv._ConvNd):
            axes = len(layer.kernel_size)
            yield from (torch.randn(EXAMPLES, layer.in_channels, *[s] * axes, generator=draw) for s in SIDES)
        elif isinstance(layer, nn.RNNBase):
            yield torch.randn(EXAMPLES, 8, layer.input_size, generator=draw)
        elif isinstance(layer, nn.Linear):
            yield torch.randn(EXAMPLES, layer.in_features, generator=draw)
            yield torch.randn(EXAMPLES, 8, layer.in_features, generator=draw)
        else:
            continue
        return
