"""A digest of the source code of a network.

It covers the factory, the classes of the network's modules with their bases, and everything that these mention by name:
the user's functions, classes and constants, followed through files that are neither installed nor part of Python. It
also covers the attributes of the network's modules. Other dependencies (a file read at run time, a number behind an
object) are not covered; an object without a text form raises NoSource.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from sublevel.models.constants import format_value, is_inert, is_plain
from sublevel.models.loaded import matches_its_file

INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

IGNORED = set(vars(nn.Module()))
"""The attributes of every module: submodules, tensors, hooks, training mode."""

Texts = dict[str, str]
"""Qualified name -> source, or repr of a constant."""


class NoSource(Exception):
    """The source of some code is not readable: typed into a prompt, made by exec, or compiled."""


def source_digest(factory: Callable[..., Any], module: nn.Module) -> str:
    """Return the SHA-256 of all source of a network, in the order of the qualified names.

    Raises NoSource if some source is not readable, or if the factory holds objects without a text form.
    """
    texts: Texts = {}
    gather_factory(factory, texts)
    for name, part in module.named_modules():
        gather(type(part), texts, part_of_net=True)
        gather_attributes(f"module {name}", part, texts)
    return digest_of(texts)


def function_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of a function's source and what it mentions. Raises NoSource as `source_digest` does."""
    texts: Texts = {}
    gather_factory(function, texts)
    return digest_of(texts)


def digest_of(texts: Texts) -> str:
    """Return the SHA-256 of texts in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(texts):
        for text in (name, texts[name]):
            digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()


def gather_factory(factory: Any, texts: Texts) -> None:
    """Add the source of a function, class, bound class method or partial application."""
    if isinstance(factory, functools.partial):
        texts["partial"] = plain((factory.args, sorted(factory.keywords.items())))
        gather_factory(factory.func, texts)
    elif isinstance(factory, MethodType):
        gather_factory(factory.__self__, texts)
        gather_factory(factory.__func__, texts)
    elif isinstance(factory, (type, FunctionType)):
        gather(factory, texts, part_of_net=True)
    else:
        raise NoSource(f"an object of type {type(factory).__name__}")


def gather_attributes(name: str, part: nn.Module, texts: Texts) -> None:
    """Add a module's attributes other than tensors and submodules: sizes, slopes, activation functions.

    An object without a text form is skipped in a class of PyTorch; in the user's class it raises NoSource.
    """
    theirs = belongs_to_torch(type(part))
    for key, value in sorted(vars(part).items()):
        if key in IGNORED or (theirs and not is_plain(value) and not callable(value)):
            continue
        if isinstance(value, (type, FunctionType)):
            texts[f"{name}.{key}"] = f"{value.__module__}:{value.__qualname__}"
            gather(value, texts)
        elif not is_inert(value):
            texts[f"{name}.{key}"] = plain(value)


def gather(thing: type | FunctionType, texts: Texts, *, part_of_net: bool = False) -> None:
    """Add the source of a function or class, and of what it mentions.

    Installed packages are read where they are ``part_of_net``; nothing is followed from there.
    """
    name = f"{thing.__module__}:{thing.__qualname__}"
    library = is_library(thing)
    if name in texts or belongs_to_torch(thing) or (library and not part_of_net):
        return
    texts[name] = source_of(thing)
    for key, value in vars(thing).items() if isinstance(thing, type) and not library else ():
        if "__" not in key and is_plain(value):
            texts[f"{name}.{key}"] = format_value(value)
    for base in thing.__mro__[1:] if isinstance(thing, type) else ():
        gather(base, texts, part_of_net=part_of_net)
    if not library:
        for function in functions_of(thing):
            follow(function, texts)


def follow(function: FunctionType, texts: Texts) -> None:
    """Gather what a function mentions: its closure, its globals, and what it imports."""
    name = f"{function.__module__}:{function.__qualname__}"
    for key, value in captured(function):
        if isinstance(value, (type, FunctionType)):
            gather(value, texts)
        elif not is_inert(value):
            texts[f"{name}.{key}"] = plain(value)
    keys = mentioned(function.__code__)
    for key in keys:
        value = function.__globals__.get(key, sys.modules.get(key))
        found = vars(value) if isinstance(value, ModuleType) and not is_installed(value) else {}
        reached = {f"{function.__module__}.{key}": value} | {f"{key}.{k}": found[k] for k in keys & found.keys()}
        for path, each in reached.items():
            if isinstance(each, (type, FunctionType)):
                gather(each, texts)
            elif "__" not in path and not is_inert(each):
                texts[path] = plain(each)


def captured(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the filled cells of a closure; ``__class__`` is there for ``super()`` and captures nothing."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if name != "__class__":
            yield name, value


def mentioned(code: CodeType) -> set[str]:
    """Return the names that a code object, and the functions nested in it, look up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= mentioned(constant)
    return names


def functions_of(thing: type | FunctionType) -> Iterator[FunctionType]:
    """Yield a function itself, or the functions among a class's attributes."""
    for value in vars(thing).values() if isinstance(thing, type) else (thing,):
        inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(inner, FunctionType):
            yield inspect.unwrap(inner)


def belongs_to_torch(thing: type | FunctionType) -> bool:
    """Return whether code belongs to PyTorch or is built into Python, so that its version identifies it."""
    module = thing.__module__ or ""
    return module.partition(".")[0] == "torch" or getattr(builtins, thing.__qualname__, None) is thing


def is_library(thing: type | FunctionType) -> bool:
    """Return whether code belongs to sublevel, Python or an installed package."""
    module = sys.modules.get(thing.__module__ or "")
    return module is not None and is_installed(module)


def is_installed(module: ModuleType) -> bool:
    """Return whether a module belongs to sublevel, Python or an installed package; False for a prompt."""
    if module.__name__.partition(".")[0] == "sublevel":
        return True
    if module.__name__ in ("__main__", "builtins"):
        return False
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names or (file is not None and file.startswith(INSTALLED))


def source_of(thing: type | FunctionType) -> str:
    """Return the source text; for a class of a notebook, which has no file, the source of its functions.

    Raises NoSource if the file was edited after the import, because its text is not the loaded code.
    """
    if not all(map(matches_its_file, functions_of(thing))):
        raise NoSource(f"{thing.__qualname__}: its file has changed since it was imported")
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError) as error:
        functions = list(functions_of(thing)) if isinstance(thing, type) else []
        if not functions:
            raise NoSource(thing.__qualname__) from error
        return "".join(source_of(function) for function in functions)


def plain(value: object) -> str:
    """Return the text form of a constant; raise NoSource for an object without one."""
    if not is_plain(value):
        raise NoSource(f"an object of type {type(value).__name__}")
    return format_value(value)
