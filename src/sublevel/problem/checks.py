"""Check before training that a network fits its data and its loss."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.data import Part, Splits
from sublevel.data.sources import IGNORED
from sublevel.errors import ConfigError, ModelError, nearest
from sublevel.heads import large_heads
from sublevel.inputs import Inputs, as_dtype, call, format_shapes, tensors_of
from sublevel.numerics import FOUND, deterministic, ieee
from sublevel.own_code import contained
from sublevel.problem import remedies
from sublevel.risk.batchnorm import STATISTICS
from sublevel.risk.losses import Loss, by_class, for_bits, for_real, of_classes, one_logit
from sublevel.rng import seeded
from sublevel.space import Space

EXAMPLES, NUMBERS = 64, 2**16
"""Maximum number of examples in a check, and approximate maximum of numbers in them."""

ROUNDING = 1e-3
"""Change of an output, as a share of the largest, that rounding explains."""


def check_device(name: str) -> str:
    """The name of a device that numbers are computed on. Raises ConfigError for any other.

    Sums are in float64, which Apple's MPS does not have.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    return name


def check_output(
    module: nn.Module, name: str, splits: Splits, dtype: torch.dtype, loss: str | Loss, losses: Loss,
    *, roomy: bool = False,
) -> None:  # fmt: skip
    """Refuse a network that is not a function, outputs that do not fit the labels, and a loss that is not per example.

    Labels [N] in C classes need outputs [N, C], or more if ``roomy``; labels for every token, [N, T], need [N, T, V] or
    [N, V, T] with a vocabulary V of at least C; real targets need one output per target. Raises ModelError.
    """
    classes, few = len(splits.classes), max(2, min(EXAMPLES, NUMBERS // max(1, splits.train.x[:1].numel())))
    few = 2 if large_heads(module) else few
    x, y = splits.train.x[:few].cpu(), splits.train.y[:few].cpu()
    prepare = partial(splits.prepare, dtype=dtype)
    try:
        with contained(), remedies.watched(module) as seen:
            learns = _learns(module, prepare(x[:2]))
            outputs = [_output(module, name, prepare(part)) for part in (x, x, x[len(x) // 2 :])]
    except ModelError:
        raise
    except Exception as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"model {name} fails on inputs of shape {format_shapes(splits.input_shape)}: "
            f"{why}{remedies.of_inputs(module, splits, seen)}"
        ) from error
    output, again, half = outputs
    if not isinstance(output, Tensor):
        got = f"dict of {', '.join(map(str, output))}" if isinstance(output, Mapping) else type(output).__name__
        raise ModelError(
            f"model {name} gives a {got} for a batch; expected a tensor, a tuple that begins with one, an output with "
            ".logits, or a dict with 'logits' or 'out'"
        )
    if not output.ndim or len(output) != len(x):
        raise ModelError(
            f"model {name} gives an output of shape {list(output.shape)} for {len(x)} examples; expected one row for "
            "each example"
        )
    if output.shape != again.shape or not _same(output, again):
        raise ModelError(
            f"model {name}: the network draws random numbers in evaluation mode, or changes itself there (two outputs "
            "for one input differ), so it is no function of its weights; make it depend on self.training, as "
            "nn.Dropout does"
        )
    norms = [m.running_mean is None for m in module.modules() if isinstance(m, STATISTICS)]
    by_batch = bool(norms) and all(norms)  # the policy is then ``batch``
    same = output[-len(half) :]  # the later half: a recurrence over the batch leaves the outputs before it alone
    if not by_batch and same.shape == half.shape and bool((same - half).abs().max() > ROUNDING * output.abs().max()):
        raise ModelError(
            f"model {name}: the output for an example depends on the other examples of its batch, so the loss is no "
            "mean over examples; the usual causes are a recurrent layer or attention without batch_first=True, and a "
            "mean over the batch in forward"
        )
    if not learns:
        raise ModelError(
            f"model {name}: the output has no gradient with respect to the weights; the usual causes are .detach(), "
            "torch.no_grad(), .data and numpy in forward"
        )
    if ignored := _ignored(module, prepare(x), None if roomy else output):
        known = [p for p in inspect.signature(module.forward).parameters if p not in ("args", "kwargs")]
        raise ModelError(f"model {name} ignores the input {ignored!r}: leave it out{nearest(ignored, known)}")
    _check_next(module, name, splits, x, y)
    shape, target = list(output.shape[1:]), list(y.shape[1:])
    scores = by_class(output, y)
    if classes == 2 and one_logit(output, y):
        if of_classes(loss):
            one_hot = y.ndim == 2 and y.shape[1] > 1 and bool((y.sum(dim=1) == 1).all())
            raise ModelError(
                f"model {name} gives one output for each label of two classes; take loss='binary-cross-entropy'"
                + (", or give y.argmax(1) if the labels are one-hot" if one_hot else "")
            )
    elif classes and (
        for_bits(loss)
        or (for_real(loss) and not one_logit(output, y))
        or not _fits(scores, classes, (len(y), *target), vocabulary=bool(target) or roomy)
    ):
        wanted = "one output for each label" if for_bits(loss) or for_real(loss) else [*target, classes]
        raise ModelError(
            f"model {name} gives outputs of shape {shape} for one example, but the data have {classes} classes; "
            f"expected {wanted}{remedies.of_outputs(splits, output, scores, loss)}"
        )
    every = splits.train.y
    one = prod(every.shape[1:]) == 1
    whole = every.is_floating_point() and one and bool((every == every.round()).all())
    as_labels = "y.long()" if every.ndim == 1 else "y.flatten().long()"
    hint = f"; labels of classes are whole numbers: give {as_labels}" if whole else ""
    if not classes and prod(shape) != prod(target):
        needed = f"; give a network with {prod(target)} output{'s' * (prod(target) > 1)}"
        raise ModelError(
            f"model {name} gives outputs of shape {shape} for one example, but its target has shape "
            f"{target}{hint or needed}"
        )
    if not classes:
        _check_targets(name, splits, loss, scores)
    _check_loss(loss, losses, output[:2], y[:2], "class labels" if classes else "real targets", hint)


def _fits(scores: Tensor, classes: int, labels: tuple[int, ...], *, vocabulary: bool) -> bool:
    """Whether scores [N, V, ...] belong to labels [N, ...]: V is the number of classes, or a larger vocabulary."""
    found = scores.shape
    if len(found) < 2 or (found[0], *found[2:]) != labels:
        return False
    return found[1] == classes or (vocabulary and found[1] > classes)


def _ignored(module: nn.Module, inputs: Inputs, output: Tensor | None) -> str | None:
    """An input by name that a network with a ``forward(**kwargs)`` ignores: no ``forward`` inside has the name.

    With an ``output``, it must also stay the same if the examples exchange their values of the input.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    if not isinstance(inputs, dict) or not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    known = {name for m in module.modules() for name in inspect.signature(m.forward).parameters}
    for key in sorted(inputs.keys() - known):
        other = {name: t.roll(1, 0) if name == key else t.clone() for name, t in inputs.items()}
        if output is None or (not _same(other[key], inputs[key]) and _same(_output(module, "", other), output)):
            return key
    return None


def _output(module: nn.Module, name: str, inputs: Inputs) -> Any:
    """The network's output in evaluation mode. Raises ModelError if it changes its input unseen by PyTorch."""
    before = [(t._version, t.clone()) for t in tensors_of(inputs)]
    try:
        with torch.no_grad():
            output = call(module.eval(), {}, inputs)
    finally:
        module.train()
    for (version, value), tensor in zip(before, tensors_of(inputs), strict=True):
        if tensor._version == version and not _same(tensor, value):
            raise ModelError(
                f"model {name} writes into its input by .data or numpy, which PyTorch cannot see: begin its "
                "forward with x = x.clone()"
            )
    return output


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _learns(module: nn.Module, inputs: Inputs) -> bool:
    """Whether PyTorch can differentiate the output with respect to trainable weights, if there are any."""
    try:
        with torch.enable_grad():
            output = call(module.eval(), {}, inputs)
    finally:
        module.train()
    free = not any(p.requires_grad for p in module.parameters())
    return free or not isinstance(output, Tensor) or output.requires_grad


def _check_next(module: nn.Module, name: str, splits: Splits, x: Tensor, y: Tensor) -> None:
    """Refuse a causal language model of transformers whose labels are its tokens: its own code shifts them."""
    causal = any(type(m).__name__.endswith(("ForCausalLM", "LMHeadModel")) for m in module.modules())
    columns = splits.layout.unpack(x) if splits.layout else [x]
    alike = (t for t in columns if t.shape == y.shape and t.dtype == torch.int64)
    if causal and y.ndim == 2 and any(bool(((t == y) | (y == IGNORED)).all()) for t in alike):
        raise ModelError(
            f"model {name} predicts the next token, and the labels are the tokens themselves, which its own code would "
            "shift: give inputs tokens[:, :-1] and labels tokens[:, 1:]"
        )


def in_precision(module: nn.Module, dtype: torch.dtype, name: str) -> nn.Module:
    """The network with its real tensors in ``dtype``; complex buffers stay unchanged.

    Raises ModelError for parameters in half or mixed precision: in one precision the network is another function.
    """
    kinds: dict[torch.dtype, str] = {}
    for parameter_name, parameter in module.named_parameters():
        if parameter.is_floating_point():
            kinds.setdefault(parameter.dtype, parameter_name)
    half = [d for d in kinds if d not in (torch.float32, torch.float64)]
    if half or len(kinds) > 1:
        kinds_found = ", ".join(f"{first!r} {str(d).removeprefix('torch.')}" for d, first in kinds.items())
        raise ModelError(
            f"model {name} has parameters in {'half' if half else 'mixed'} precision ({kinds_found}) and would be "
            f"computed in {str(dtype).removeprefix('torch.')} here, which is another function; return net.float() from "
            "its function to compute that one (a checkpoint in bfloat16 is read exactly)"
        )
    return module._apply(lambda t: as_dtype(t, dtype))


def _check_targets(name: str, splits: Splits, loss: object, scores: Tensor) -> None:
    """Refuse real targets that are not the probabilities that a cross-entropy takes."""
    if not (of_classes(loss) or for_bits(loss)):
        return
    every = torch.cat([part.y.reshape(-1) for part in splits.parts.values()])
    bad = every[(every < 0) | (every > 1)]
    if len(bad):
        raise ModelError(
            f"targets of a cross-entropy are probabilities from 0 to 1, got {float(bad[0]):g}; for regression give "
            "loss='mse', for classes whole numbers, y.long()"
        )
    if of_classes(loss) and splits.train.y.ndim > 1 and scores.shape[1] == 1:
        raise ModelError(
            f"model {name} gives one output, and the cross-entropy of one class is always 0; give "
            "loss='binary-cross-entropy' for probabilities, loss='mse' for regression"
        )


def _check_loss(loss: str | Loss, losses: Loss, output: Tensor, y: Tensor, kind: str, hint: str) -> None:
    called = getattr(loss, "__name__", repr(loss))
    try:
        with contained():
            found = losses(output, y)
    except (RuntimeError, TypeError, IndexError) as error:
        raise ModelError(f"loss {called} does not take {kind}: {error}{hint}") from error
    if not isinstance(found, Tensor) or found.shape != (len(y),):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ModelError(
            f"loss {called} gives {got} for a batch of {len(y)}; expected one loss for each example "
            "(reduction='none' in PyTorch's)"
        )


def unused(
    space: Space, module: nn.Module, part: Part, prepare: Callable[[Tensor], Inputs], losses: Loss
) -> tuple[str, ...]:
    """The trainable parameters that do not affect the loss of a training batch; empty if the check fails."""
    gradients = _gradients(space, module, part, prepare, losses)
    return tuple(name for name, gradient in gradients.items() if gradient is None)


def unordered(
    space: Space, module: nn.Module, part: Part, prepare: Callable[[Tensor], Inputs], losses: Loss
) -> tuple[str, ...]:
    """The operations of a training step that add in no fixed order on this device, as PyTorch names them."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with deterministic(str(part.x.device)):
            _gradients(space, module, part, prepare, losses)
    found = (FOUND.match(str(each.message)) for each in said)
    return tuple(sorted({re.sub("^aten::|_(cuda|out|kernel)", "", each[1]) for each in found if each}))


@ieee
def _gradients(
    space: Space, module: nn.Module, part: Part, prepare: Callable[[Tensor], Inputs], losses: Loss
) -> dict[str, Tensor | None]:
    """The gradient of the training loss of two examples, by parameter; empty if the user's code fails."""
    point = space.point(module)
    leaves = {name: value.detach().requires_grad_() for name, value in space.views(point.theta).items()}
    try:
        with seeded(0, "probe:unused"):
            outputs = call(module.train(), {**leaves, **point.buffers}, prepare(part.x[:2]))
        found = torch.autograd.grad(losses(outputs, part.y[:2].clone()).sum(), list(leaves.values()), allow_unused=True)
    except Exception:  # a training reports its error
        return {}
    return dict(zip(leaves, found, strict=True))
