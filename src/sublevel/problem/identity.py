"""The identity of a problem: its fingerprint in a cell's key, and its import paths for other processes."""

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
"""The user's code: a function, or its import path ``module:function``."""


def of_model(model: Own, module: nn.Module, options: Mapping[str, Any], version: str | None) -> dict[str, Any] | None:
    """The fingerprint of a network's code and options; None without source and version.

    Raises ModelError for options that are not JSON, because keys and other processes need them.
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
    """The fingerprint of a loss: its name or code; for ``torch.nn``, its class, settings and tensors."""
    if isinstance(loss, str) and loss in LOSSES:
        return loss
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch."):
        about = {
            name: repr(value) for name, value in sorted(vars(loss).items()) if isinstance(value, int | float | str)
        }
        return {"name": qualified_name(loss), "settings": about, "values": values(loss)}
    return of_code(loss, version)


def of_code(code: Own, version: str | None) -> dict[str, Any] | None:
    """The fingerprint of a user's function; None without source and version."""
    return models.own_code(function(code), version)


def values(module: nn.Module) -> str:
    """SHA-256 of every parameter and buffer."""
    out = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        out.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()


def function(code: Own) -> Callable[..., Any]:
    """The function. Raises ConfigError or ModelError if a path does not lead to a function."""
    return resolve(code) if isinstance(code, str) else code


def path(code: Own) -> str:
    """The import path of a function; a string is returned unchanged."""
    return code if isinstance(code, str) else qualified_name(code)


def importable(code: Own) -> bool:
    """Whether another process can import ``code``: it is not in __main__ and not nested in a function."""
    if isinstance(code, str):
        return not code.startswith("__main__:")
    module, _, name = qualified_name(code).partition(":")
    found = sys.modules.get(module)
    return module != "__main__" and "." not in name and getattr(found, name, None) is code
