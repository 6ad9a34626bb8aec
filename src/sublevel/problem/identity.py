"""What a problem is called: in a cell's key, and to another process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sublevel import models
from sublevel.errors import ModelError
from sublevel.models.build import qualified_name, resolve
from sublevel.risk.losses import LOSSES

if TYPE_CHECKING:
    from sublevel.problem.problem import Problem

Own = str | Callable[..., Any]
"""Code of a user's own: a function, or its import path ``module:function``."""


def fingerprint(problem: Problem) -> dict[str, Any] | None:
    """What identifies a problem in a key; None where some of its code has neither source nor version.

    It holds the values that the factory draws, not only its code: weights that it reads from a file count too.
    Raises ModelError where two builds from one seed differ.
    """
    _check_options(problem.options)
    name = problem.model if isinstance(problem.model, str) else qualified_name(problem.model)
    factory = None if isinstance(problem.model, str) else problem.model
    factory = type(factory) if isinstance(factory, nn.Module) else factory
    model = models.fingerprint(name, problem.module, factory, options=problem.options, version=problem.version)
    loss = problem.loss if isinstance(problem.loss, str) and problem.loss in LOSSES else _loss(problem)
    loop = None if problem.loop is None else models.own_code(function(problem.loop), problem.version)
    if model is None or loss is None or (loop is None and problem.loop is not None):
        return None
    weights = hashlib.sha256(problem.space.prunable.numpy().tobytes()).hexdigest()
    values = [_values(problem.build(0, "template")) for _ in range(2)]
    if values[0] != values[1]:
        raise ModelError(
            f"two builds of model {problem.name} from one seed differ: its weights must be drawn from torch's "
            "generator, not from numpy's or Python's"
        )
    found = {"data": problem.splits.digest, "model": model, "values": values[0], "prunable": weights, "loss": loss}
    return found | ({} if loop is None else {"loop": loop})


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


def _check_options(options: Mapping[str, Any]) -> None:
    """Options are part of a key, and cross to other processes."""
    for name, value in options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ModelError(
                f"model option {name!r} is of type {type(value).__name__}; options are numbers, texts and lists of them"
            ) from None


def _values(module: nn.Module) -> str:
    """SHA-256 of every parameter and buffer."""
    out = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        out.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()


def _loss(problem: Problem) -> dict[str, Any] | None:
    """What identifies a loss of the user's own; one of ``torch.nn`` is its class, its settings and its tensors."""
    loss = problem.loss
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch."):
        about = {
            name: repr(value) for name, value in sorted(vars(loss).items()) if isinstance(value, int | float | str)
        }
        return {"name": qualified_name(loss), "settings": about, "values": _values(loss)}
    return models.own_code(function(loss), problem.version)
