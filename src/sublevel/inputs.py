"""The inputs of a network: one tensor, a tuple of tensors, or a dict of tensors by name; each is [N, ...]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sublevel._types import Tensor

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Shape = tuple[int, ...]
Shapes = Shape | tuple[Shape, ...] | dict[str, Shape]
"""The shape of one example: one shape, a tuple of shapes, or a dict of shapes by name."""


def call(module: nn.Module, tensors: dict[str, Tensor], inputs: Inputs) -> Tensor:
    """The output of ``module`` with these parameters and buffers in place of its own.

    Where the module assigns a new tensor to a buffer, ``tensors`` holds it afterwards.

    >>> one = torch.ones(1, 1)
    >>> call(nn.Bilinear(1, 1, 1, bias=False), {"weight": torch.tensor([[[2.0]]])}, (one, one))
    tensor([[2.]])
    """
    if isinstance(inputs, dict):
        return output_of(torch.func.functional_call(module, tensors, (), inputs))
    return output_of(torch.func.functional_call(module, tensors, inputs if isinstance(inputs, tuple) else (inputs,)))


def output_of(found: Any) -> Any:
    """The output tensor of a network: the output itself, its ``logits``, the first of a tuple, or ``out`` of a dict.

    >>> output_of((torch.ones(2), "hidden")).tolist(), output_of({"logits": torch.zeros(1)}).tolist()
    ([1.0, 1.0], [0.0])
    """
    if isinstance(found, Tensor):
        return found
    if isinstance(found, Mapping):
        named = [found[key] for key in ("logits", "out") if key in found]
    else:
        named = (
            [found.logits] if hasattr(found, "logits") else list(found)[:1] if isinstance(found, tuple | list) else []
        )
    return named[0] if named and isinstance(named[0], Tensor) else found


def as_dtype(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Real numbers as ``dtype``, all others (complex ones too) as they are."""
    return x if dtype is None or not x.is_floating_point() else x.to(dtype)


def each(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with ``function`` applied to every tensor."""
    if isinstance(inputs, dict):
        return {name: function(x) for name, x in inputs.items()}
    return tuple(map(function, inputs)) if isinstance(inputs, tuple) else function(inputs)


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The tensors; those of a dict in the order of their names."""
    if isinstance(inputs, dict):
        return [inputs[name] for name in sorted(inputs)]
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def shapes_of(document: Any) -> Shapes:
    """Shapes from lists, as JSON has them.

    >>> shapes_of([[3, 8, 8], [5]]), shapes_of({"tokens": [7]})
    (((3, 8, 8), (5,)), {'tokens': (7,)})
    """
    if isinstance(document, Mapping):
        return {name: tuple(shape) for name, shape in document.items()}
    return tuple(tuple(each) if isinstance(each, list | tuple) else each for each in document)


def parts(shapes: Shapes) -> list[Shape]:
    """The shape of every input."""
    if isinstance(shapes, dict):
        return list(shapes.values())
    several = [each for each in shapes if isinstance(each, tuple)]
    return several or [shapes]  # type: ignore[list-item]


def format_shapes(shapes: Shapes) -> str:
    """Format shapes for an error.

    >>> format_shapes((3, 8, 8)), format_shapes(((3, 8, 8), (5,))), format_shapes({"tokens": (7,)})
    ('[3, 8, 8]', '[3, 8, 8], [5]', 'tokens [7]')
    """
    if isinstance(shapes, dict):
        return ", ".join(f"{name} {list(each)}" for name, each in shapes.items())
    return ", ".join(str(list(each)) for each in parts(shapes))


def examples(inputs: Inputs) -> int:
    """N, the number of examples."""
    return len(tensors_of(inputs)[0])
