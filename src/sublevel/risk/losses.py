"""Losses of single examples, and the distributions of labels that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from sublevel._types import Float, Int, Tensor
from sublevel.errors import ModelError, unknown

Loss = Callable[[Tensor, Tensor], Float[Tensor, "batch"]]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Cross-entropy of each example, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def squared(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Half the squared error of each example, averaged over its outputs.

    Raises ModelError where an example has not as many outputs as targets: they would broadcast.
    """
    z, t = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if z.shape != t.shape:
        got, want = list(outputs.shape), list(targets.shape)
        raise ModelError(f"squared loss: outputs of shape {got} do not fit targets of shape {want}")
    return 0.5 * (z - t).square().mean(dim=1)


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "squared": squared}


def loss_function(loss: str | Loss) -> Loss:
    """A per-example loss by its name, or the function itself."""
    if isinstance(loss, str) and loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss] if isinstance(loss, str) else loss


@dataclass(frozen=True)
class Labels:
    """The labels that a loss says the outputs predict: ``p(y | z)`` proportional to ``exp(-loss(z, y))``.

    ``noise(y, generator)`` draws for all examples at once, so that labels do not depend on the batches;
    ``draw(outputs, noise)`` turns the noise of a batch into labels.
    """

    noise: Callable[[Tensor, torch.Generator], Tensor]
    draw: Callable[[Tensor, Tensor], Tensor]


def categorical(outputs: Float[Tensor, "B C"], uniform: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Classes with the probabilities ``softmax(outputs)``, by inversion of their cumulative sums.

    >>> categorical(torch.zeros(3, 2), torch.tensor([0.1, 0.4, 0.9])).tolist()
    [0, 0, 1]
    """
    below = outputs.detach().double().softmax(dim=-1).cumsum(dim=-1) <= uniform[:, None]
    return below.sum(dim=-1).clamp_(max=outputs.shape[-1] - 1)


def gaussian(outputs: Tensor, normal: Tensor) -> Tensor:
    """Targets ``z + sqrt(C) n``: half a squared error *averaged* over C outputs is a Gaussian of variance C.

    With it the Fisher matrix is the GGN; with unit variance it would be the GGN over C.
    """
    scale = (normal[0].numel()) ** 0.5
    return outputs.detach().reshape(normal.shape) + scale * normal.to(outputs)


LABELS: dict[Loss, Labels] = {
    cross_entropy: Labels(lambda y, g: torch.rand(len(y), generator=g, dtype=torch.float64), categorical),
    squared: Labels(lambda y, g: torch.randn(y.shape, generator=g, dtype=torch.float64), gaussian),
}
"""Where a loss is no distribution's logarithm, or not known to be, there is no entry."""


def labels_of(loss: Loss) -> Labels:
    """How labels are drawn under a loss.

    Raises ModelError for a loss of one's own.
    """
    if loss not in LABELS:
        known = " and ".join(name for name, f in LOSSES.items() if f in LABELS)
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ModelError(f"the loss {name} names no distribution to draw labels from; {known} do")
    return LABELS[loss]
