"""Values with a complete text form, and values that cannot affect a network's function."""

from __future__ import annotations

import logging
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, GenericAlias, ModuleType, UnionType

import torch

ATOMS = (bool, int, float, complex, str, bytes, Enum, PurePath, torch.dtype, torch.device, torch.Size, range, slice)
INERT = (ModuleType, BuiltinFunctionType, GenericAlias, UnionType, logging.Logger, typing.TypeVar)


def is_plain(value: object) -> bool:
    """Return whether a value is an atom, or a collection or dataclass of plain values: `format_value` covers all of it.

    >>> is_plain({"slope": 0.1, "widths": [3, 4]}), is_plain(object())
    (True, False)
    """
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    if is_dataclass(value) and not isinstance(value, type):
        return all(is_plain(getattr(value, f.name)) for f in fields(value))
    return value is None or isinstance(value, (*ATOMS, BuiltinFunctionType))


def format_value(value: object) -> str:
    """Return the same text for equal plain values, independent of the order of sets and dicts.

    >>> format_value({"b": {2, 1}, "a": None})
    "{'a': None, 'b': {1, 2}}"
    """
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{format_value(k)}: {format_value(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(format_value, value))) + "}"
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return "[" + ", ".join(map(format_value, value)) + "]"
    if is_dataclass(value) and not isinstance(value, type):
        inside = {f.name: getattr(value, f.name) for f in fields(value)}
        return f"{type(value).__qualname__}{format_value(inside)}"
    if isinstance(value, BuiltinFunctionType):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)


def is_inert(value: object) -> bool:
    """Return whether a global cannot affect the result: modules, loggers, types for annotations."""
    return isinstance(value, INERT) or type(value).__module__ == "typing"
