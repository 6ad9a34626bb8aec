"""What a problem is called: in a cell's key, and to another process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sublevel import models
from sublevel.errors import ModelError
from sublevel.models.build import qualified_name, resolve
from sublevel.risk.losses import LOSSES

Own = str | Callable[..., Any]
"""Code of a user's own: a function, or its import path ``module:function``."""


def of_model(model: Own, module: nn.Module, options: Mapping[str, Any], version: str | None) -> dict[str, Any] | None:
    """What identifies a network's code and options in a key; None where it has neither source nor version.

    Raises ModelError for options that are not JSON: they are part of a key, and cross to other processes.
    """
    for name, value in options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ModelError(
                f"model option {name!r} is of type {type(value).__name__}; options are numbers, texts and lists of them"
            ) from None
    factory = None if isinstance(model, str) else model
    factory = type(factory) if isinstance(factory, nn.Module) else factory
    return models.fingerprint(path(model), module, factory, options=options, version=version)


def of_loss(loss: Own, version: str | None) -> str | dict[str, Any] | None:
    """What identifies a loss: its name, or its code; one of ``torch.nn`` is its class, its settings and its tensors."""
    if isinstance(loss, str) and loss in LOSSES:
        return loss
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch."):
        about = {
            name: repr(value) for name, value in sorted(vars(loss).items()) if isinstance(value, int | float | str)
        }
        return {"name": qualified_name(loss), "settings": about, "values": values(loss)}
    return of_code(loss, version)


def of_code(code: Own, version: str | None) -> dict[str, Any] | None:
    """What identifies a function of the user's own; None where it has neither source nor version."""
    return models.own_code(function(code), version)


def values(module: nn.Module) -> str:
    """SHA-256 of every parameter and buffer."""
    out = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        out.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()


def function(code: Own) -> Callable[..., Any]:
    """The function itself. Raises ConfigError and ModelError for a path that leads to none."""
    return resolve(code) if isinstance(code, str) else code


def path(code: Own) -> str:
    """The import path of a function; a text stays as it is."""
    return code if isinstance(code, str) else qualified_name(code)


def importable(code: Own) -> bool:
    """Whether another process finds ``code`` by its name: not in __main__, not nested in a function."""
    if isinstance(code, str):
        return not code.startswith("__main__:")
    module, _, name = qualified_name(code).partition(":")
    found = sys.modules.get(module)
    return module != "__main__" and "." not in name and getattr(found, name, None) is code
