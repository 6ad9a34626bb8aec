"""Pack several inputs of an example into one row of bytes, and unpack them, bit by bit.

So examples are one tensor ``x [N, ...]`` everywhere: they are shuffled, split, moved and stored as one, and only
`Splits.prepare` knows that a network takes several.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sublevel.errors import DataError
from sublevel.inputs import Inputs, Shapes, tensors_of


@dataclass(frozen=True)
class Layout:
    """The layout of a row: type and shape of every input of one example.

    ``names`` are the keywords that the network takes the inputs by, in alphabetical order; without them the inputs are
    passed in their order.
    """

    dtypes: tuple[torch.dtype, ...]
    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...] = ()

    @property
    def input_shape(self) -> Shapes:
        """The shape of every input of one example, in order or by name."""
        return dict(zip(self.names, self.shapes, strict=True)) if self.names else self.shapes

    def inputs(self, tensors: list[Tensor]) -> Inputs:
        """The tensors as inputs of a network: a tuple, or a dict by name."""
        return dict(zip(self.names, tensors, strict=True)) if self.names else tuple(tensors)

    def unpack(self, x: Tensor) -> list[Tensor]:
        """The inputs in the rows ``x``: ``[N, *shape]`` each."""
        sizes = [prod(shape) * dtype.itemsize for dtype, shape in zip(self.dtypes, self.shapes, strict=True)]
        columns = (part.clone(memory_format=torch.contiguous_format) for part in x.split(sizes, dim=1))  # aligned
        kinds = zip(columns, self.dtypes, self.shapes, strict=True)
        return [column.view(dtype).view(len(x), *shape) for column, dtype, shape in kinds]

    def __str__(self) -> str:
        kinds = [f"{str(d).removeprefix('torch.')} {list(s)}" for d, s in zip(self.dtypes, self.shapes, strict=True)]
        names = [f"{name}: " for name in self.names] or [""] * len(kinds)
        return ", ".join(name + kind for name, kind in zip(names, kinds, strict=True))


def pack(inputs: Inputs) -> tuple[Tensor, Layout | None]:
    """Pack several inputs into rows of bytes uint8 ``[N, B]`` with their layout; one input is returned unchanged.

    Raises DataError where the inputs are not of one length, are empty, or have names that are no keywords.

    >>> rows, layout = pack((torch.tensor([[1.5], [2.5]]), torch.tensor([7, 8])))
    >>> rows.shape, layout.unpack(rows[1:])
    (torch.Size([2, 12]), [tensor([[2.5000]]), tensor([8])])
    """
    if isinstance(inputs, Tensor):
        return inputs, None
    names = tuple(sorted(inputs)) if isinstance(inputs, dict) else ()
    if not inputs or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise DataError(f"inputs have the names {list(names)}; at least one, each a keyword of the network's forward")
    tensors = tensors_of(inputs)
    lengths = [len(t) if t.ndim else 0 for t in tensors]
    if len(set(lengths)) > 1 or not all(t.numel() for t in tensors):
        raise DataError(
            f"the inputs have {', '.join(map(str, lengths))} examples; all need the same number, and none may be empty"
        )
    rows = [t.contiguous().reshape(len(t), -1).view(torch.uint8) for t in tensors]
    return torch.cat(rows, dim=1), Layout(
        tuple(t.dtype for t in tensors), tuple(tuple(t.shape[1:]) for t in tensors), names
    )
