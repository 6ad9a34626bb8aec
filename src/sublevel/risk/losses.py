"""Losses per example, and the label distributions that belong to them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sublevel._types import Float, Int, Tensor
from sublevel.data.sources import IGNORED
from sublevel.errors import ModelError, unknown
from sublevel.heads import in_chunks

Loss = Callable[[Tensor, Tensor], Float[Tensor, "batch"]]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Cross-entropy of each example, in nats; with a label per token, its mean over the tokens (see `by_class`).

    Labels of `IGNORED` do not count; an example with no other label has the loss 0.

    >>> cross_entropy(torch.zeros(2, 5, 8), torch.zeros(2, 5, dtype=torch.int64)).div(torch.tensor(8.0).log())
    tensor([1., 1.])
    """
    if in_chunks(outputs, targets):
        losses = outputs.losses(targets)
    else:
        losses = F.cross_entropy(by_class(outputs, targets), targets, reduction="none")
    return losses if losses.ndim < 2 else losses.flatten(1).mean(dim=1) * _counted_scale(targets, losses)


def _counted_scale(targets: Tensor, losses: Tensor) -> Tensor | float:
    """The factor from the mean over all labels of an example to the mean over those that count."""
    if targets.is_floating_point():
        return 1.0
    return 1.0 / counted(targets).clamp(min=1.0 / targets[0].numel()).to(losses.dtype)


def counted(targets: Tensor) -> Float[Tensor, "batch"]:
    """The share of each example's labels that are not `IGNORED`, in float64."""
    there = (targets != IGNORED).double()
    return there.flatten(1).mean(dim=1) if there.ndim > 1 else there


def counting(loss: Loss, targets: Tensor) -> Loss:
    """Reweight a loss so that its mean over examples is its mean over all labels that are not `IGNORED`.

    This is ``F.cross_entropy`` of all labels at once: an example counts once per label.
    """
    if targets.dtype != torch.int64 or not (loss is cross_entropy or isinstance(loss, ByExample)):
        return loss
    share = counted(targets).mean()
    if float(share) in (0.0, 1.0):
        return loss

    def weighted(outputs: Tensor, y: Tensor) -> Float[Tensor, "batch"]:
        losses = loss(outputs, y)
        return losses * (counted(y) / share.to(y.device)).to(losses.dtype)

    weighted.__name__ = "cross-entropy over the labels that count"
    weighted.of = loss  # type: ignore[attr-defined]
    return weighted


def takes_scores(loss: Loss) -> bool:
    """Whether a loss takes the scores of a large output layer in chunks (see `sublevel.heads`)."""
    return getattr(loss, "of", loss) is cross_entropy


def relabelled(loss: object, y: Tensor) -> tuple[object, Tensor]:
    """A loss of ``torch.nn`` and labels, with `IGNORED` in place of another ``ignore_index``.

    >>> relabelled(nn.CrossEntropyLoss(ignore_index=0), torch.tensor([0, 2]))[1].tolist()
    [-100, 2]
    """
    index = ignore_index(loss)
    if index == IGNORED or y.is_floating_point():
        return loss, y
    return counting_from(loss), torch.where(y == index, IGNORED, y)


def ignore_index(loss: object) -> int:
    """The label that a loss of ``torch.nn`` ignores; `IGNORED` for any other loss."""
    return loss.ignore_index if isinstance(loss, _OF_CLASSES) else IGNORED


def counting_from(loss: object) -> object:
    """The same loss of ``torch.nn`` with the ``ignore_index`` `IGNORED`."""
    again = copy.copy(loss)
    again.ignore_index = IGNORED  # type: ignore[attr-defined]
    return again


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """``-log p`` of labels in [0, 1] with one output z per label and p(1) = sigmoid(z), averaged over the labels.

    >>> binary_cross_entropy(torch.zeros(2, 1), torch.tensor([0, 1])).div(torch.tensor(2.0).log())
    tensor([1., 1.])
    """
    entropy = F.binary_cross_entropy_with_logits
    return _paired(outputs, targets, "binary-cross-entropy", lambda z, t: entropy(z, t.to(z.dtype), reduction="none"))


def by_class(outputs: Tensor, targets: Tensor) -> Tensor:
    """Scores as [N, V, ...], also from [N, ..., V]; if both are possible, the last axis is V."""
    tokens = targets.shape if targets.ndim < outputs.ndim else (len(targets), *targets.shape[2:])  # soft: [N, V, ...]
    return outputs.movedim(-1, 1) if outputs.ndim > 2 and outputs.shape[:-1] == tokens else outputs


def one_logit(outputs: Tensor, targets: Tensor) -> bool:
    """Whether there is one output per label, whose sign is the answer, rather than one per class."""
    return outputs.numel() == targets.numel() and outputs.shape[0] == targets.shape[0]


def wrong(outputs: Tensor, targets: Int[Tensor, "batch *tokens"]) -> Float[Tensor, "batch"]:
    """The share of wrong answers of each example, over its labels that are not `IGNORED`.

    With one output per label, its sign is the answer.
    """
    if one_logit(outputs, targets):
        missed = (outputs.reshape(targets.shape) > 0) != (targets > 0)
    elif in_chunks(outputs, targets):
        missed = outputs.answers() != targets
    else:
        missed = by_class(outputs, targets).argmax(dim=1) != targets
    missed = missed & (targets != IGNORED)
    return (
        missed.double().flatten(1).mean(dim=1) * _counted_scale(targets, missed.double())
        if missed.ndim > 1
        else missed.double()
    )


def squared(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Half the squared error of each example, averaged over its outputs."""
    return 0.5 * _paired(outputs, targets, "squared", lambda z, t: (z - t).square())


def mse(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """The squared error of each example, averaged over its outputs: twice `squared`."""
    return _paired(outputs, targets, "mse", lambda z, t: (z - t).square())


def huber(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Huber loss of each example (half the square up to an error of 1, linear beyond), averaged over its outputs."""
    return _paired(outputs, targets, "huber", lambda z, t: F.huber_loss(z, t.to(z.dtype), reduction="none"))


def _paired(outputs: Tensor, targets: Tensor, name: str, errors: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Errors [N, outputs], averaged over the outputs.

    Raises ModelError if an example has another number of outputs than targets, which would broadcast.
    """
    z, t = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if z.shape != t.shape:
        got, want = list(outputs.shape), list(targets.shape)
        raise ModelError(f"{name} loss: outputs of shape {got} do not fit targets of shape {want}")
    return errors(z, t).mean(dim=1)


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "binary-cross-entropy": binary_cross_entropy,
    "squared": squared,
    "mse": mse,
    "huber": huber,
}


class ByExample:
    """A loss of ``torch.nn`` as a loss per example, averaged over its outputs.

    Raises ModelError for a loss whose value over a batch is not the mean over the examples.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.name, self.loss = type(loss).__name__, copy.deepcopy(loss)
        reduction = getattr(loss, "reduction", None)
        self.summed = reduction == "batchmean"  # of KLDivLoss: the sum over an example's outputs
        if reduction not in ("mean", "none", "batchmean"):
            raise ModelError(f"loss {self.name}(reduction={reduction!r}) grows with the batch; give reduction='mean'")
        if reduction == "mean" and isinstance(loss, _OF_CLASSES) and loss.weight is not None:
            raise ModelError(
                f"loss {self.name}(weight=...) divides by the weights of a batch, so it is no mean over examples; give "
                "reduction='none' to have the mean of the weighted losses"
            )
        if (index := ignore_index(loss)) != IGNORED:
            raise ModelError(f"loss {self.name}(ignore_index={index}): give ignored labels the value {IGNORED}")
        self.loss.reduction = "none"  # type: ignore[assignment]

    def __call__(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
        """The loss of each example."""
        if isinstance(self.loss, _OF_CLASSES):
            z, t = by_class(outputs, targets), targets
        elif one_logit(outputs, targets):
            z, t = outputs, targets.reshape(outputs.shape).to(outputs.dtype)
        else:
            z, t = outputs, targets
        losses = self.loss.to(outputs.device)(z, t)
        if losses.ndim < 2:
            return losses
        if self.summed:
            return losses.flatten(1).sum(dim=1)
        scale = _counted_scale(targets, losses) if isinstance(self.loss, _OF_CLASSES) else 1.0
        return losses.flatten(1).mean(dim=1) * scale


_OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_OF_BITS = (nn.BCEWithLogitsLoss, nn.BCELoss, nn.MultiLabelSoftMarginLoss)
_OF_REALS = (nn.MSELoss, nn.HuberLoss, nn.L1Loss, nn.SmoothL1Loss)
_FUNCTIONS: dict[object, str] = {
    F.cross_entropy: "cross-entropy",
    F.binary_cross_entropy_with_logits: "binary-cross-entropy",
    F.mse_loss: "mse",
    F.huber_loss: "huber",
}
_MODULES: dict[type, str] = {
    nn.CrossEntropyLoss: "cross-entropy",
    nn.BCEWithLogitsLoss: "binary-cross-entropy",
    nn.MSELoss: "mse",
    nn.HuberLoss: "huber",
}


def of_classes(loss: object) -> bool:
    """Whether a loss is a cross-entropy of classes, with one output for each class."""
    return loss == "cross-entropy" or isinstance(loss, _OF_CLASSES)


def for_bits(loss: object) -> bool:
    """Whether a loss takes labels of 0 and 1 and one output for each label."""
    return loss == "binary-cross-entropy" or isinstance(loss, _OF_BITS)


def for_real(loss: object) -> bool:
    """Whether a loss takes real targets and one output for each target."""
    return loss in ("squared", "mse", "huber") or isinstance(loss, _OF_REALS)


def outputs_for(loss: object, classes: int, y: Tensor) -> int:
    """Outputs of a network for one example: one for each of ``classes``, or for each real target or label of 0 and 1.

    >>> y = torch.zeros(9, 5)
    >>> outputs_for("cross-entropy", 3, y[:, 0].long()), outputs_for("binary-cross-entropy", 2, y.long())
    (3, 5)
    >>> outputs_for("mse", 0, y), outputs_for("mse", 0, y[:, 0])
    (5, 1)
    """
    if classes and not for_bits(loss):
        return classes
    shape = y.shape[1:2] if of_classes(loss) else y.shape[1:]
    return max(1, shape.numel())


def named(loss: object) -> object:
    """The name of a PyTorch loss that is known here (a function, class, or instance with defaults); else the loss.

    >>> named(nn.CrossEntropyLoss()), named(F.mse_loss)
    ('cross-entropy', 'mse')
    """
    if isinstance(loss, type) and issubclass(loss, nn.modules.loss._Loss):
        loss = loss()
    if isinstance(loss, nn.Module) and type(loss) in _MODULES:
        plain = {**vars(type(loss)()), "reduction": ""} == {**vars(loss), "reduction": ""}
        return _MODULES[type(loss)] if plain and getattr(loss, "reduction", "") in ("mean", "none") else loss
    return _FUNCTIONS.get(loss, loss) if callable(loss) and not isinstance(loss, nn.Module) else loss


def loss_function(loss: str | Loss) -> Loss:
    """The per-example loss of a name, a loss of ``torch.nn``, or a function."""
    loss = named(loss)  # type: ignore[assignment]
    if isinstance(loss, str) and loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if isinstance(loss, nn.modules.loss._Loss):
        return ByExample(loss)
    return LOSSES[loss] if isinstance(loss, str) else loss


@dataclass(frozen=True)
class Labels:
    """The label distribution of a loss: ``p(y | z)`` proportional to ``exp(-loss(z, y))``.

    ``noise(y, generator)`` draws for all examples at once, so that labels do not depend on the batches;
    ``draw(outputs, noise)`` turns the noise of a batch into labels.
    """

    noise: Callable[[Tensor, torch.Generator], Tensor]
    draw: Callable[[Tensor, Tensor], Tensor]


def categorical(outputs: Tensor, uniform: Float[Tensor, "B *T"]) -> Tensor:
    """Classes with the probabilities ``softmax(outputs)``, by inversion of their cumulative sums.

    For T > 1 the mean over T tokens is not the log-likelihood of a distribution. Labels are then soft,
    ``p + sqrt(T) (y - p)`` [B, V, *T] with y drawn; the second moment of their gradients is the GGN, as for `gaussian`.
    Scores that are not computed yet give the classes y [B, *T] themselves; the gradient of the soft labels is sqrt(T)
    times theirs.

    >>> categorical(torch.zeros(3, 2), torch.tensor([0.1, 0.4, 0.9])).tolist()
    [0, 0, 1]
    """
    if in_chunks(outputs, uniform):
        return outputs.by_row(lambda scores, u: _inverted(scores.double().softmax(dim=-1), u), uniform)
    p = by_class(outputs.detach(), uniform).double().movedim(1, -1).softmax(dim=-1)
    drawn = _inverted(p, uniform)
    if drawn.ndim == 1:
        return drawn
    soft = p + drawn[0].numel() ** 0.5 * (F.one_hot(drawn, p.shape[-1]) - p)
    return soft.movedim(-1, 1).to(outputs.dtype)


def _inverted(p: Float[Tensor, "*N V"], uniform: Float[Tensor, "*N"]) -> Int[Tensor, "*N"]:
    sums = p.cpu().cumsum(dim=-1).to(p.device)  # a GPU adds in no fixed order
    return (sums <= uniform[..., None]).sum(dim=-1).clamp_(max=p.shape[-1] - 1)


def gaussian(variance: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Targets ``z + sqrt(C variance) n``: an error *averaged* over C outputs belongs to a Gaussian with C times the
    variance. The Fisher matrix is then the GGN; with the variance of one output it would be the GGN divided by C.
    """

    def draw(outputs: Tensor, normal: Tensor) -> Tensor:
        scale = (normal[0].numel() * variance) ** 0.5
        return outputs.detach().reshape(normal.shape) + scale * normal.to(outputs)

    return draw


def _normal(y: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(y.shape, generator=generator, dtype=torch.float64)


def bernoulli(outputs: Tensor, uniform: Tensor) -> Tensor:
    """Labels with the probabilities ``sigmoid(outputs)``; for K > 1 soft ones, ``p + sqrt(K) (y - p)``, as above."""
    p = outputs.detach().double().sigmoid().reshape(uniform.shape)
    drawn = (uniform < p).double()
    return (p + uniform[0].numel() ** 0.5 * (drawn - p)).to(outputs.dtype)


LABELS: dict[Loss, Labels] = {
    cross_entropy: Labels(lambda y, g: torch.rand(y.shape, generator=g, dtype=torch.float64), categorical),
    binary_cross_entropy: Labels(lambda y, g: torch.rand(y.shape, generator=g, dtype=torch.float64), bernoulli),
    squared: Labels(_normal, gaussian()),
    mse: Labels(_normal, gaussian(0.5)),
}
"""Losses that are not known to be a negative log-likelihood have no entry."""


def labels_of(loss: Loss) -> Labels:
    """The label distribution of a loss.

    Raises ModelError for a loss without one.
    """
    if loss not in LABELS:
        *others, last = (name for name, f in LOSSES.items() if f in LABELS)
        name = getattr(loss, "__name__", type(loss).__name__)
        raise ModelError(
            f"the loss {name} names no distribution to draw labels from; {', '.join(others)} and {last} do"
        )
    return LABELS[loss]
