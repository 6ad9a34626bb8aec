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
    """Cross-entropy of each example, in nats; with a label for every token, its mean over the tokens (see `by_class`).

    >>> cross_entropy(torch.zeros(2, 5, 8), torch.zeros(2, 5, dtype=torch.int64)).div(torch.tensor(8.0).log())
    tensor([1., 1.])
    """
    losses = F.cross_entropy(by_class(outputs, targets), targets, reduction="none")
    return losses if losses.ndim < 2 else losses.flatten(1).mean(dim=1)


def by_class(outputs: Tensor, targets: Tensor) -> Tensor:
    """Scores [N, V, ...], also where they stand as [N, ..., V]; where both could be meant, the last axis is V."""
    tokens = targets.shape if targets.ndim < outputs.ndim else (len(targets), *targets.shape[2:])  # soft: [N, V, ...]
    return outputs.movedim(-1, 1) if outputs.ndim > 2 and outputs.shape[:-1] == tokens else outputs


def wrong(outputs: Tensor, targets: Int[Tensor, "batch *tokens"]) -> Float[Tensor, "batch"]:
    """The share of wrong answers of each example: 0 or 1, or the share of its tokens."""
    missed = by_class(outputs, targets).argmax(dim=1) != targets
    return missed.double().flatten(1).mean(dim=1) if missed.ndim > 1 else missed.double()


def squared(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Half the squared error of each example, averaged over its outputs."""
    return 0.5 * _paired(outputs, targets, "squared", lambda z, t: (z - t).square())


def mse(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """The squared error of each example, averaged over its outputs: twice `squared`."""
    return _paired(outputs, targets, "mse", lambda z, t: (z - t).square())


def huber(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Huber's loss of each example (half the square up to an error of 1, linear beyond), averaged over its outputs."""
    return _paired(outputs, targets, "huber", lambda z, t: F.huber_loss(z, t.to(z.dtype), reduction="none"))


def _paired(outputs: Tensor, targets: Tensor, name: str, errors: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Errors [N, outputs], averaged over the outputs.

    Raises ModelError where an example has not as many outputs as targets: they would broadcast.
    """
    z, t = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if z.shape != t.shape:
        got, want = list(outputs.shape), list(targets.shape)
        raise ModelError(f"{name} loss: outputs of shape {got} do not fit targets of shape {want}")
    return errors(z, t).mean(dim=1)


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "squared": squared, "mse": mse, "huber": huber}


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


def categorical(outputs: Tensor, uniform: Float[Tensor, "B *T"]) -> Tensor:
    """Classes with the probabilities ``softmax(outputs)``, by inversion of their cumulative sums.

    A mean over T tokens is no logarithm of a distribution for T > 1. Its labels are soft, ``p + sqrt(T) (y - p)``
    [B, V, *T] with y drawn: their gradients have the GGN as second moment, as for `gaussian`.

    >>> categorical(torch.zeros(3, 2), torch.tensor([0.1, 0.4, 0.9])).tolist()
    [0, 0, 1]
    """
    scores = by_class(outputs.detach(), uniform).double().movedim(1, -1)
    p = scores.softmax(dim=-1)
    drawn = (p.cumsum(dim=-1) <= uniform[..., None]).sum(dim=-1).clamp_(max=p.shape[-1] - 1)
    if drawn.ndim == 1:
        return drawn
    soft = p + drawn[0].numel() ** 0.5 * (F.one_hot(drawn, p.shape[-1]) - p)
    return soft.movedim(-1, 1).to(outputs.dtype)


def gaussian(variance: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Targets ``z + sqrt(C variance) n``: an error *averaged* over C outputs is that of a Gaussian, C times as wide.

    With it the Fisher matrix is the GGN; with the variance of one output it would be the GGN over C.
    """

    def draw(outputs: Tensor, normal: Tensor) -> Tensor:
        scale = (normal[0].numel() * variance) ** 0.5
        return outputs.detach().reshape(normal.shape) + scale * normal.to(outputs)

    return draw


def _normal(y: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(y.shape, generator=generator, dtype=torch.float64)


LABELS: dict[Loss, Labels] = {
    cross_entropy: Labels(lambda y, g: torch.rand(y.shape, generator=g, dtype=torch.float64), categorical),
    squared: Labels(_normal, gaussian()),
    mse: Labels(_normal, gaussian(0.5)),
}
"""Where a loss is no distribution's logarithm, or not known to be, there is no entry."""


def labels_of(loss: Loss) -> Labels:
    """How labels are drawn under a loss.

    Raises ModelError for a loss of one's own.
    """
    if loss not in LABELS:
        *others, last = (name for name, f in LOSSES.items() if f in LABELS)
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ModelError(
            f"the loss {name} names no distribution to draw labels from; {', '.join(others)} and {last} do"
        )
    return LABELS[loss]
