"""The trainable tensors of a network: their layer kind, the axis of their filters, and which are prunable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod

from torch import nn
from torch.nn.utils import parametrize

from sublevel._types import Float, Tensor
from sublevel.errors import ModelError

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)
TRANSPOSED = nn.modules.conv._ConvTransposeNd
MULTIPLYING = (*PRUNABLE, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)
"""Layers that multiply their inputs by weights; so does GPT-2's ``Conv1D``."""

Prunable = Callable[[str, nn.Module, nn.Parameter], bool]
Choice = Prunable | str | Sequence[str]
"""Selects the prunable weights: a function, or names of parameters (with wildcards), module classes, or `WORDS`."""

WORDS = {
    "default": "the weights of every convolution and linear layer",
    "matrices": "these, recurrent weights, attention's in_proj, GPT-2's Conv1D, and weights under a parametrisation",
}


@dataclass(frozen=True)
class Layer:
    """One trainable tensor as a range of coordinates.

    ``kind`` is the class of the module that holds it. ``axis`` is the axis of the units or output channels: 1 if the
    weight is [inputs, outputs, ...], as in a transposed convolution with ``groups``.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    prunable: bool
    kind: str = field(default="", compare=False)
    axis: int = field(default=0, compare=False)
    groups: int = field(default=1, compare=False)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return prod(self.shape)

    @property
    def coordinates(self) -> slice:
        """The tensor's range in theta."""
        return slice(self.start, self.start + self.size)

    @property
    def units(self) -> int:
        """Number of units or output channels; each has one filter."""
        if self.axis:
            return self.groups * self.shape[1]
        return self.shape[0] if self.shape else 1

    @property
    def fan_in(self) -> int:
        """Weights of one filter."""
        return self.size // self.units

    def by_filter(self, vector: Tensor) -> Float[Tensor, "units fan_in"]:
        """The tensor's entries [size], filter by filter.

        >>> import torch
        >>> Layer("w", (2, 3), 0, True, axis=1).by_filter(torch.arange(6)).tolist()
        [[0, 3], [1, 4], [2, 5]]
        """
        if not self.axis:
            return vector.reshape(self.units, -1)
        grouped = vector.reshape(self.groups, self.shape[0] // self.groups, self.shape[1], -1)
        return grouped.transpose(1, 2).reshape(self.units, -1)

    def from_filters(self, rows: Float[Tensor, "units fan_in"]) -> Tensor:
        """Inverse of `by_filter`: the entries [size] in the tensor's order."""
        if not self.axis:
            return rows.reshape(-1)
        grouped = rows.reshape(self.groups, self.shape[1], self.shape[0] // self.groups, -1)
        return grouped.transpose(1, 2).reshape(-1)


def layers_of(module: nn.Module, prunable: Choice | None) -> list[Layer]:
    """The trainable parameters of a network in their order.

    Raises ModelError for complex parameters, and for a name that matches nothing.
    """
    owners, start, found = _owners(module), 0, []
    choose = _chooser(module, owners, prunable)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.is_complex():
            raise ModelError(
                f"parameter {name!r} of {type(module).__name__} is complex, and a point is a vector of real numbers: "
                "hold torch.view_as_real(w) as the parameter and take torch.view_as_complex of it in forward"
            )
        owner = owners[parameter][0]
        axis, groups = _axis(owner, parameter)
        chosen = any(choose(name, each, parameter) for each in owners[parameter])
        kind = type(owner).__name__.removeprefix("Parametrized")
        found.append(Layer(name, tuple(parameter.shape), start, chosen, kind, axis, groups))
        start += parameter.numel()
    return found


def _axis(owner: nn.Module, parameter: nn.Parameter) -> tuple[int, int]:
    """The axis of a weight's outputs, and the number of groups."""
    if parameter.ndim > 1 and isinstance(owner, TRANSPOSED):
        return 1, owner.groups
    return (1, 1) if parameter.ndim == 2 and _is_conv1d(owner) else (0, 1)


def _is_conv1d(owner: nn.Module) -> bool:
    """Whether a module is the linear layer of GPT-2, whose weight is [inputs, outputs]."""
    weight = _weight(owner)
    return (
        type(owner).__name__.removeprefix("Parametrized") == "Conv1D"
        and weight is not None
        and weight.ndim == 2
        and getattr(owner, "nf", None) == weight.shape[1]
    )


def _weight(owner: nn.Module) -> nn.Parameter | None:
    """The parameter ``weight`` of a layer; None if the layer computes its weight, as under a parametrisation."""
    return owner._parameters.get("weight")


def _owners(module: nn.Module) -> dict[nn.Parameter, list[nn.Module]]:
    """The modules that hold each parameter; for a parametrised weight, its layer."""
    layer_of = {
        each: layer
        for layer in module.modules()
        if parametrize.is_parametrized(layer)
        for each in layer.parametrizations.modules()  # type: ignore[union-attr]
    }
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            owners.setdefault(parameter, []).append(layer_of.get(owner, owner))
    return owners


def _chooser(module: nn.Module, owners: dict[nn.Parameter, list[nn.Module]], chosen: Choice | None) -> Prunable:
    if chosen is None:
        return lambda name, owner, parameter: isinstance(owner, PRUNABLE) and parameter is _weight(owner)
    if callable(chosen):
        return chosen
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    every = [(name, p) for name, p in module.named_parameters(remove_duplicate=False)]
    trained = [(name, owner, p) for name, p in every for owner in owners[p]]
    aliases: dict[int, list[str]] = {}
    for name, p in every:
        aliases.setdefault(id(p), []).append(name)
    for name in names:
        if name not in WORDS and not any(_matches(name, *each) for each in trained):
            known = ", ".join(dict.fromkeys(n for n, _, _ in trained))
            words = " and ".join(f"{word!r} ({meaning})" for word, meaning in WORDS.items())
            raise ModelError(
                f"prunable: {name!r} matches no parameter and no module class; the parameters are {known}; the words "
                f"are {words}"
            )
    return lambda _, owner, p: any(_matches(n, alias, owner, p) for n in names for alias in aliases[id(p)])


def _matches(pattern: str, name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
    if fnmatchcase(name, pattern):
        return True
    if pattern in WORDS:
        if pattern == "default":
            return isinstance(owner, PRUNABLE) and parameter is _weight(owner)
        return (isinstance(owner, MULTIPLYING) or _is_conv1d(owner)) and _is_matrix(name, parameter)
    if type(owner).__name__.removeprefix("Parametrized") != pattern:
        return False
    own = _weight(owner)
    return parameter is own or (own is None and _is_matrix(name, parameter))


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Two axes or more, no bias, and not the norms of weight_norm."""
    local = name.rpartition(".")[2]
    norms = local in ("original0", "weight_g") and parameter.numel() == parameter.shape[0]
    return parameter.ndim > 1 and "bias" not in local and not norms
