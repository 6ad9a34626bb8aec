"""Check that a network has the parameters and buffers of a ticket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest

from torch import nn

from sublevel._types import Tensor
from sublevel.errors import ModelError
from sublevel.space import Space

Entry = tuple[str, tuple[int, ...]]
"""A tensor's name and shape."""


def check_fits(space: Space, buffers: Mapping[str, Tensor], constants: Mapping[str, Tensor], module: nn.Module) -> None:
    """Compare trainable parameters, constant parameters and buffers, in their order, by name and shape.

    Raises ModelError naming the first difference.
    """
    kind = type(module).__name__
    parameters = dict(module.named_parameters())
    trained = {name: p for name, p in parameters.items() if name not in constants}
    fixed = {name: parameters[name] for name in constants if name in parameters}
    _compare("parameter", kind, ((layer.name, layer.shape) for layer in space.layers), _entries(trained))
    _compare("constant parameter", kind, _entries(constants), _entries(fixed))
    _compare("buffer", kind, _entries(buffers), _entries(dict(module.named_buffers())))


def owners(module: nn.Module, names: Iterable[str]) -> list[tuple[str, nn.Module, str]]:
    """The owners of parameters, as (name in ``module``, owner, name in the owner); a tied parameter has several."""
    named = dict(module.named_parameters())
    wanted = {id(named[name]): name for name in names}
    return [
        (wanted[id(parameter)], owner, local)
        for owner in module.modules()
        for local, parameter in owner.named_parameters(recurse=False)
        if id(parameter) in wanted
    ]


def _entries(tensors: Mapping[str, Tensor]) -> Iterable[Entry]:
    return ((name, tuple(tensor.shape)) for name, tensor in tensors.items())


def _compare(what: str, network: str, own: Iterable[Entry], other: Iterable[Entry]) -> None:
    for n, (mine, theirs) in enumerate(zip_longest(own, other), start=1):
        if mine != theirs:
            raise ModelError(
                f"the ticket is for another network: {what} {n} is {_format_entry(mine)} in the ticket, "
                f"{_format_entry(theirs)} in {network}"
            )


def _format_entry(entry: Entry | None) -> str:
    return "absent" if entry is None else f"{entry[0]!r} {list(entry[1])}"
