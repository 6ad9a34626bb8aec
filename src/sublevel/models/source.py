"""The source code that makes up a network, as one digest.

Read are the factory, the classes of the network's modules with their bases, and what these mention by name:
the user's functions, classes and plain constants, followed through files that are neither installed nor part
of Python. What is reached in other ways (an attribute of an object, a file that is read) is not seen.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})

Texts = dict[str, str]
"""Qualified name -> source, or repr of a constant."""


class NoSource(Exception):
    """Some code of a network has no source to read: typed into a prompt, made by exec, or compiled."""


def source_digest(factory: Callable[..., Any], module: nn.Module) -> str:
    """Return the SHA-256 of all source that makes up a network, in the order of the qualified names.

    Raises NoSource if some of it cannot be read, or if the factory holds objects that no source tells.
    """
    texts: Texts = {}
    gather_factory(factory, texts)
    for part in module.modules():
        gather(type(part), texts, part_of_net=True)
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


def gather(thing: type | FunctionType, texts: Texts, *, part_of_net: bool = False) -> None:
    """Add the source of a function or class, and of what it mentions.

    Installed packages are read where they are ``part_of_net``; nothing is followed from there.
    """
    name = f"{thing.__module__}:{thing.__qualname__}"
    library = is_library(thing)
    if name in texts or belongs_to_torch(thing) or (library and not part_of_net):
        return
    texts[name] = source_of(thing)
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
        elif not isinstance(value, (ModuleType, BuiltinFunctionType)):
            texts[f"{name}.{key}"] = plain(value)
    keys = mentioned(function.__code__)
    for key in keys:
        value = function.__globals__.get(key, sys.modules.get(key))
        found = vars(value) if isinstance(value, ModuleType) and not is_installed(value) else {}
        reached = {f"{function.__module__}.{key}": value} | {f"{key}.{k}": found[k] for k in keys & found.keys()}
        for path, each in reached.items():
            if isinstance(each, (type, FunctionType)):
                gather(each, texts)
            elif "__" not in path and is_plain(each):
                texts[path] = repr(each)


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
    """Return whether code comes with PyTorch or is built into Python: its version stands for it."""
    module = thing.__module__ or ""
    return module.partition(".")[0] == "torch" or getattr(builtins, thing.__qualname__, None) is thing


def is_library(thing: type | FunctionType) -> bool:
    """Return whether code is sublevel's, or lies where Python and packages are installed."""
    module = sys.modules.get(thing.__module__ or "")
    return module is not None and is_installed(module)


def is_installed(module: ModuleType) -> bool:
    """Return whether a module is sublevel's, Python's or an installed package's; a prompt's is not."""
    if module.__name__.partition(".")[0] == "sublevel":
        return True
    if module.__name__ in ("__main__", "builtins"):
        return False
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names or (file is not None and file.startswith(INSTALLED))


def source_of(thing: type | FunctionType) -> str:
    """Return the source text; of a notebook's class, which has no file, that of its functions."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError) as error:
        functions = list(functions_of(thing)) if isinstance(thing, type) else []
        if not functions:
            raise NoSource(thing.__qualname__) from error
        attributes = sorted((k, repr(v)) for k, v in vars(thing).items() if "__" not in k and is_plain(v))
        return "".join([repr(attributes), *(source_of(function) for function in functions)])


def is_plain(value: object) -> bool:
    """Return whether a value is None, a number, a text, or a tuple or list of these: repr tells it all."""
    if isinstance(value, (tuple, list)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def plain(value: object) -> str:
    """Return the repr of a plain value; raise NoSource for an object whose content repr does not tell."""
    if not is_plain(value):
        raise NoSource(type(value).__name__)
    return repr(value)
