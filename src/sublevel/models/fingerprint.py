"""The fingerprint of a network in a cell's key.

A registered network is identified by its name, options and revision; the user's network by the source of its code (see
`sublevel.models.source`). Both fingerprints include the names, shapes and types of the network's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from sublevel.models import pretrained
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
    """Return the fingerprint of ``module`` for a cell's key, or None if it has none.

    ``name`` is the argument of `build`; ``factory`` is the user's function, optional for a registered name or an import
    path. None means that some source is not readable and ``version`` is absent: results of such a network must not be
    cached. With a ``version`` the user is responsible for changes of unreadable code.
    """
    if pretrained.is_pretrained(name):
        return {**pretrained.fingerprint(module), "options": dict(options), "state": state(module)}
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
    """Return the fingerprint of the user's function, such as a loss, or None if it has none."""
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
