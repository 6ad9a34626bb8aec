"""Your own code that a study names: its import paths and files, listed before any of it is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from importlib.machinery import PathFinder
from typing import Any

from sublevel.errors import ConfigError

ROLES = {"model": "network", "data": "data", "loss": "loss", "loop": "training loop"}


def own_code(study: Mapping[str, Any]) -> dict[str, str]:
    """The import paths ``module:function`` that a resolved study names, with their roles."""
    model = study.get("model")
    said = {"model": model.get("name") if isinstance(model, Mapping) else model}
    data = study.get("data")
    said |= {"data": data.get("name") if isinstance(data, Mapping) else data}
    said |= {name: study.get(name) for name in ("loss", "loop")}
    return {path: ROLES[role] for role, path in said.items() if isinstance(path, str) and is_code(path)}


def is_code(path: object) -> bool:
    """Whether a name is an import path; ``hf:FOLDER`` names a folder of which no code is run.

    >>> is_code("my_nets:net"), is_code("resnet-20"), is_code("hf:runs/bert")
    (True, False, False)
    """
    return isinstance(path, str) and ":" in path and not path.startswith("hf:")


def format_named_code(study: Mapping[str, Any]) -> list[str]:
    """A sentence for each import path, with its role and place."""
    return [f"own code that would run: {path} ({role}, {where(path)})" for path, role in own_code(study).items()]


def where(path: str) -> str:
    """The file or folder of a module, found without importing anything."""
    top = path.partition(":")[0].partition(".")[0]
    try:
        spec = PathFinder.find_spec(top, [*sys.path, os.getcwd()])
    except (ValueError, ImportError, OSError):
        spec = None
    if spec is None:
        return "not found from here"
    places = list(spec.submodule_search_locations or ())
    return places[0] if places else str(spec.origin)


def check_trusted(study: Mapping[str, Any], trusted: Collection[str] | None, source: str) -> None:
    """Raise ConfigError if a study from elsewhere names code that is not ``trusted``; None trusts all code."""
    unknown = [] if trusted is None else sorted(set(own_code(study)) - set(trusted))
    if unknown:
        raise ConfigError(
            f"{source} names code that is not imported unless you name it too: {', '.join(unknown)} "
            f"(ticket export: --code {unknown[0]}; plan: a study file, without --no-code)"
        )
