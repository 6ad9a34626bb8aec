"""What to do where a network, its data and its loss do not fit: the last part of an error's sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.data import Splits
from sublevel.data.sources import IGNORED
from sublevel.inputs import parts
from sublevel.risk.losses import for_bits, for_real

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Entered:
    """The layers that a forward pass is inside, each with the shape of its first input."""

    stack: list[tuple[str, nn.Module, list[int]]] = field(default_factory=list)


@contextmanager
def watched(module: nn.Module) -> Iterator[Entered]:
    """Follow a forward pass through the layers without children, to name the one that fails."""
    seen, hooks = Entered(), []

    def enter(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape = list(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else []
        seen.stack.append((name, layer, shape))

    for name, layer in module.named_modules():
        if not list(layer.children()) and not isinstance(layer, torch.jit.ScriptModule):
            hooks.append(layer.register_forward_pre_hook(lambda m, x, name=name: enter(name, m, x)))
            hooks.append(layer.register_forward_hook(lambda *_: seen.stack.pop() and None))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def of_inputs(module: nn.Module, splits: Splits, seen: Entered) -> str:
    """The layer that failed on the inputs, and the inputs that it takes."""
    name, layer, shape = seen.stack[-1] if seen.stack else ("", module, [])
    where = f" in layer {name!r}, {layer}, on {shape}" if name and "\n" not in str(layer) else ""
    return where + _inputs(module, splits, layer, shape)


def _inputs(module: nn.Module, splits: Splits, layer: nn.Module, got: list[int]) -> str:
    sizes = parts(splits.input_shape)
    one, x = sizes[0], splits.train.x
    if any(len(s) == 3 and s[2] in (1, 3, 4) and s[0] > 4 for s in sizes):
        return "; are the channels last? give x.permute(0, 3, 1, 2)"
    takes_tokens = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())
    if "int64" in str(x.dtype) and not takes_tokens:
        images = len(one) == 3
        as_images = "x.to(torch.uint8) for images of 8 bits, or " if images else ""
        return f"; whole numbers count as tokens: give {as_images}x.float() for measurements"
    if isinstance(layer, CONVOLUTIONS):
        axes = len(layer.kernel_size)
        if len(one) == axes and len(got) == axes + 1:
            return "; give the examples an axis of channels: x[:, None]"
        if layer.in_channels > 1 and len(got) == axes + 2 and got[1] == 1:
            return (
                f"; for grey images repeat the channel: x.expand(-1, {layer.in_channels}, {', '.join(['-1'] * axes)})"
            )
        return f"; the layer takes {layer.in_channels} channels" if got[1:2] != [layer.in_channels] else ""
    if isinstance(layer, nn.Linear) and got[-1:] != [layer.in_features]:
        if len(one) > 1 and prod(one) == layer.in_features:
            return "; give x.flatten(1)"
        return f"; the layer takes {layer.in_features} numbers: give such inputs, or a network for {list(one)}"
    return ""


def of_outputs(splits: Splits, output: Tensor, scores: Tensor, loss: object) -> str:
    """What to do with outputs that do not fit class labels; ``scores`` is [N, V, ...]."""
    y, classes = splits.train.y, len(splits.classes)
    if for_real(loss):
        return f"; for regression give y.float(), for classes as targets F.one_hot(y, {classes}).float()"
    if for_bits(loss):
        return "; binary-cross-entropy takes labels 0 and 1 and one output for each; for classes take cross-entropy"
    if output.ndim > y.ndim + 1:
        return (
            f"; the network answers for each of {list(output.shape[1:-1])} places: give x.flatten(1), a label for each "
            "place, or a network with one answer"
        )
    if classes == 2 and y.ndim == 2 and output.ndim == 2:
        many = "; if the labels are one-hot, give y.argmax(1)" if bool((y.sum(1) == 1).all()) else ""
        return f"; for labels of several classes at once take loss='binary-cross-entropy'{many}"
    if output.ndim < y.ndim + 1:
        return f"; the labels have shape {list(y.shape[1:])} for one example: give one label, or outputs for each"
    every = [part.y[part.y != IGNORED] for part in splits.parts.values()]
    if not any(bool((labels == 0).any()) for labels in every):
        return "; no label is 0, and classes are numbered from 0: give y - 1"
    found = scores.shape[1] if scores.ndim > 1 else 1
    if found > classes and scores.shape[2:] == y.shape[1:]:
        return f"; if the network knows classes that these data lack, give data_options={{'classes': {found}}}"
    return _void(splits, output) or f"; give a network with {classes} outputs, or leave other labels out"


def _void(splits: Splits, output: Tensor) -> str:
    """A hint if one label above the classes of the network may mark what does not count."""
    last = len(splits.classes) - 1
    rest = [int(part.y[part.y != last].max()) for part in splits.parts.values() if bool((part.y != last).any())]
    if not rest or max(rest) >= last - 1 or max(rest) >= max(output.shape[1:], default=0):
        return ""
    return f"; if the label {last} marks what does not count, give loss=nn.CrossEntropyLoss(ignore_index={last})"
