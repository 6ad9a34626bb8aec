"""Build a network from a name, an import path or a function."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sublevel.errors import ConfigError, ModelError, kind_and_text, nearest
from sublevel.inputs import Shapes, parts, shapes_of
from sublevel.models import pretrained
from sublevel.models.registry import STARTS, find, initialise
from sublevel.own_code import contained


def build(name: str | Callable[..., nn.Module], /, *, input_shape: Shapes, classes: int, **options: Any) -> nn.Module:
    """Build a network for inputs of ``input_shape`` (channels first, no batch) and ``classes`` outputs.

    Several inputs are a tuple of shapes, or a dict by name.

    ``name`` is a registered name (`names`), an import path ``"module:function"``, the function itself, or
    ``"hf:FOLDER"`` for a pretrained transformer (see `sublevel.models.pretrained`).
    Your own function is called with ``options``, and with ``input_shape`` and ``classes`` if its signature names them;
    it initialises its weights. Weights are drawn from torch's global generator, which the caller seeds.

    Raises ConfigError for an unknown name or option, ModelError for code that cannot be imported, fails, or does not
    return an ``nn.Module``, and for unsupported inputs.
    """
    shape = check_shape(input_shape, classes)
    if isinstance(name, nn.Module):
        if options:
            raise ConfigError(f"a built network has no options, got {', '.join(options)}: pass its function")
        return copied(name)
    if not callable(name) and not isinstance(name, str):
        raise ModelError(
            f"the network is of type {type(name).__name__}; give a network, the function that builds one, or its name "
            "(weights of a file or a state dict are read by Problem.point)"
        )
    if not isinstance(name, str):
        return call(name, qualified_name(name), shape, classes, options)
    if pretrained.is_pretrained(name):
        return pretrained.build(name, classes=classes, **options)
    if ":" in name:
        return call(resolve(name), name, shape, classes, options)
    entry, slots = find(name)
    entry.check(name, options)
    starts = {option: value for option, value in options.items() if option in STARTS}
    net = entry.builder(shape, classes, **slots, **{o: v for o, v in options.items() if o not in STARTS})
    if starts.get("bn_init", "ones") != "ones" and not any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        raise ConfigError(f"option 'bn_init' (model {name}): the network has no BatchNorm")
    initialise(net, **starts)
    return net


def copied(network: nn.Module) -> nn.Module:
    """A copy of a built network, in training mode.

    Raises ModelError if the network cannot be copied.
    """
    network = unwrapped(network)
    try:
        return copy.deepcopy(network).train()
    except Exception as error:  # code of the network's own
        raise ModelError(
            f"the network {type(network).__name__} cannot be copied ({str(error).splitlines()[0]}); give the function "
            "or class that builds it, and read its weights with Problem.point(network)"
        ) from error


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside ``torch.compile`` and ``nn.DataParallel``, which is the same function.

    Raises ModelError for a TorchScript network, whose weights cannot be replaced.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(
            "TorchScript networks cannot be evaluated at other weights: give the network of Python that was scripted, "
            "and read the weights of a script with Problem.point(network.state_dict())"
        )
    while True:
        if isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        elif isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        else:
            return network


def check_shape(input_shape: Shapes, classes: int) -> Shapes:
    """Return the shapes as tuples; refuse empty shapes and sizes that are not positive integers."""
    try:
        shape = shapes_of(input_shape)
    except TypeError:
        shape = ()
    if not shape or any(type(n) is not int or n < 1 for part in parts(shape) for n in part):
        one = "; give numbers [N] as x[:, None]" if shape == () else ""
        raise ModelError(f"input_shape is {input_shape!r}; it must be sizes of at least 1, such as (3, 32, 32){one}")
    if type(classes) is not int or classes < 1:
        raise ModelError(f"classes is {classes!r}; it must be a whole number of at least 1")
    return shape


def qualified_name(factory: Callable[..., Any]) -> str:
    """Return ``module:qualname`` of a function or class, or of the class of a callable object."""
    named = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{named.__module__}:{named.__qualname__}"


def resolve(path: str) -> Callable[..., nn.Module]:
    """Import ``"module:function"``; also from the working directory."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"model {path!r} is no import path; the form is module:function, such as my.nets:tiny")
    found = attribute_of(import_module(module_name, path), attribute, path)
    if not callable(found):
        raise ModelError(f"model {path!r} is of type {type(found).__name__}; it must be a function or a class")
    function: Any = found
    return function


def attribute_of(module: ModuleType, attribute: str, path: str) -> object:
    """Return ``module.a.b`` for ``"a.b"``; suggest the nearest name if there is none."""
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [word for word in vars(found) if not word.startswith("_")]
            raise ModelError(f"model {path!r}: {module.__name__} has no {part!r}{nearest(part, public)}")
        found = getattr(found, part)
    return found


def import_module(module_name: str, path: str) -> ModuleType:
    """Import with the working directory last on ``sys.path``, so that installed packages take precedence."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        with contained():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(f"model {path!r}: importing {module_name} failed: {error}") from error
        raise ModelError(f"model {path!r}: there is no module {error.name!r}, installed or in {os.getcwd()}") from error
    except Exception as error:
        raise ModelError(f"model {path!r}: importing {module_name} failed: {kind_and_text(error)}") from error


def call(
    factory: Callable[..., Any],
    name: str,
    input_shape: Shapes,
    classes: int,
    options: Mapping[str, Any],
) -> nn.Module:
    """Call the user's function with the options, and with the shapes if its signature names them."""
    arguments = bind(factory, name, {"input_shape": input_shape, "classes": classes}, options)
    try:
        with contained():
            net = factory(**arguments)
    except Exception as error:
        raise ModelError(f"model {name!r} failed: {kind_and_text(error)}") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"model {name!r} returned {type(net).__name__}; it must return a torch.nn.Module")
    return unwrapped(net)


def bind(
    factory: Callable[..., Any], name: str, offered: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments for ``factory``; raise ConfigError for options that its signature lacks."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return dict(options)
    arguments = {key: value for key, value in offered.items() if key in parameters} | dict(options)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    allowed = [p.name for p in parameters.values() if p.kind in by_name and p.name not in offered]
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in allowed and not takes_all:
            hint = nearest(option, allowed) if allowed else "; it has no options"
            raise ConfigError(f"unknown option {option!r} (model {name}){hint}")
    for p in parameters.values():
        if p.kind in by_name and p.default is p.empty and p.name not in arguments:
            raise ConfigError(f"model {name!r} needs the option {p.name!r}")
    return arguments
