"""Name -> builder. A network is one function under one ``@model("name")`` line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sublevel.errors import ConfigError, unknown

Builder = Callable[..., nn.Module]

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
"""The allowed types of a registered network's options, by annotation."""

STARTS = {"bn_init": ("ones", "uniform"), "bias_init": ("zeros", "uniform")}
"""The options of `initialise`, which every registered network has. The first value of each is the default."""


@dataclass(frozen=True)
class Network:
    """One registered network: its name or pattern, its builder, and the revision of its definition."""

    name: str
    builder: Builder
    revision: int
    examples: tuple[str, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots of the name: ``("depth",)`` for ``resnet-{depth}``."""
        return tuple(re.findall(r"{(\w+)}", self.name))

    def match(self, name: str) -> dict[str, int] | None:
        """Return the numbers in the slots of ``name``, or None if it does not match."""
        found = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>[0-9]+)", self.name), name)
        return {slot: int(number) for slot, number in found.groupdict().items()} if found else None

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the keyword-only parameters of the builder and of `initialise`, without the slots."""
        parameters = [p for f in (self.builder, initialise) for p in inspect.signature(f).parameters.values()]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return {p.name: p for p in parameters if p.kind is keyword and p.name not in self.slots}

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse an unknown option, or a value of the wrong type."""
        allowed = self.options()
        for option, value in options.items():
            if option not in allowed:
                raise unknown("option", option, allowed, f"model {name}")
            check_value(f"option {option!r} (model {name})", value, allowed[option].annotation)
            if option in STARTS and value not in STARTS[option]:
                raise unknown(option, str(value), STARTS[option], f"model {name}")


REGISTRY: dict[str, Network] = {}


def model(name: str, *, revision: int = 1, examples: Sequence[str] = ()) -> Callable[[Builder], Builder]:
    """Register a builder ``(input_shape, classes, *, option=default, ...) -> nn.Module`` under ``name``.

    ``{slot}`` in the name stands for a whole number, passed to the builder as a keyword; ``examples`` are then the
    listed and tested names. Raise ``revision`` if the same name and options give another function of the weights, also
    by a changed default: results stored under the old revision are then no longer used. `initialise` initialises every
    network after its builder.
    """

    def register(builder: Builder) -> Builder:
        if name in REGISTRY:
            raise ConfigError(f"model {name!r} is registered twice")
        REGISTRY[name] = Network(name, builder, revision, tuple(examples) or (name,))
        return builder

    return register


def names() -> list[str]:
    """Return the names of the registered networks, sorted; for a numbered family, its examples."""
    listed = [example for entry in REGISTRY.values() for example in entry.examples]
    return sorted(listed, key=lambda name: [(int(p), "") if p.isdigit() else (-1, p) for p in name.split("-")])


def find(name: str) -> tuple[Network, dict[str, int]]:
    """Return the entry for ``name`` and the numbers in the name; raise ConfigError if there is none."""
    for entry in REGISTRY.values():
        slots = entry.match(name)
        if slots is not None:
            return entry, slots
    raise unknown("model", name, names())


def check_value(what: str, value: object, annotation: str | type) -> None:
    """Refuse a value that is not of the annotated type, or a whole number below 1.

    Only the plain types of `TYPES` are checked; others are the builder's to check.
    """
    expected = TYPES.get(annotation) if isinstance(annotation, str) else annotation
    if expected is None or expected not in TYPES.values():
        return
    if type(value) is not expected and not (expected is float and type(value) is int):
        raise ConfigError(f"{what} is {value!r}; it must be of type {expected.__name__}")
    if expected is int and isinstance(value, int) and value < 1:
        raise ConfigError(f"{what} is {value}; it must be at least 1")


def initialise(net: nn.Module, *, bn_init: str = "ones", bias_init: str = "zeros") -> None:
    """Draw conv and linear weights as N(0, 2 / fan_in); biases 0, BatchNorm weight 1 and bias 0.

    Kaiming normal (He et al. 2015, equation 10), from torch's global generator: the caller seeds it.
    ``bn_init="uniform"`` draws BatchNorm's weights from U(0, 1), ``bias_init="uniform"`` the biases of conv and linear
    layers from U(-b, b) with b = 1 / sqrt(fan_in), torch's own default: both as open_lth does.
    """
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                bound = part.weight[0].numel() ** -0.5 if bias_init == "uniform" else 0.0
                nn.init.uniform_(part.bias, -bound, bound) if bound else nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.uniform_(part.weight) if bn_init == "uniform" else nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
