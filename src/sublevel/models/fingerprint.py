"""What identifies a network in the key of a stored result.

A registered network is its name, options and revision; a network of the user's own is the source of the code
that makes it (see `sublevel.models.source`). Both hold the names, shapes and types of the network's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from sublevel.models.build import qualified_name, resolve
from sublevel.models.registry import find
from sublevel.models.source import NoSource, function_digest, source_digest


def fingerprint(
    name: str,
    module: nn.Module,
    factory: Callable[..., Any] | None = None,
    *,
    options: Mapping[str, Any],
    version: str | None = None,
) -> dict[str, Any] | None:
    """Return what identifies ``module`` in a cache key, or None if nothing does.

    ``name`` is what was given to `build`; ``factory`` is the user's function, and may be left out for a
    registered name or an import path. None means that some source could not be read and no ``version`` was
    given: such a network must not be cached. With a ``version`` the user answers for what cannot be read.
    """
    if ":" not in name and factory is None:
        return registered(name, module, options)
    factory = resolve(name) if factory is None else factory
    try:
        source: str | None = source_digest(factory, module)
    except NoSource:
        source = None
    if source is None and version is None:
        return None
    full = name if ":" in name else qualified_name(factory)
    return {
        "name": full,
        "options": dict(options),
        "state": state(module),
        "source": source,
        "version": version,
    }


def own_code(function: Callable[..., Any], version: str | None = None) -> dict[str, Any] | None:
    """Return what identifies a function of the user's own, such as a loss, or None if nothing does."""
    try:
        source: str | None = function_digest(function)
    except NoSource:
        source = None
    if source is None and version is None:
        return None
    return {"name": qualified_name(function), "source": source, "version": version}


def registered(name: str, module: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of a registered network; an option at its default is left out."""
    entry, _ = find(name)
    defaults = {option: parameter.default for option, parameter in entry.options().items()}
    chosen = {key: value for key, value in options.items() if key not in defaults or value != defaults[key]}
    return {"name": name, "options": chosen, "state": state(module), "revision": entry.revision}


def state(module: nn.Module) -> dict[str, list[Any]]:
    """Return name -> [shape, dtype] of every parameter and buffer."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors}
