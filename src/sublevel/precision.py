"""How float32 numbers are multiplied: as IEEE says, unless a recipe names TF32.

PyTorch has two sets of switches for it, and both may hold for the caller's own work: the present ``fp32_precision`` of
every backend, and the older ``allow_tf32`` and ``set_float32_matmul_precision``. On a CPU the latter's ``medium`` makes
oneDNN round the factors of a matrix product to bfloat16 where the processor can: an error of 1e-3 of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isgenerator
from threading import RLock
from types import FunctionType
from typing import Any, TypeVar

import torch

_BACKENDS = torch.backends
_SWITCHES: dict[str, Any] = {
    "cuda.matmul": _BACKENDS.cuda.matmul,
    "cudnn.conv": _BACKENDS.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    "cudnn.rnn": _BACKENDS.cudnn.rnn,  # pyright: ignore[reportAttributeAccessIssue]
    "mkldnn.matmul": _BACKENDS.mkldnn.matmul,  # pyright: ignore[reportAttributeAccessIssue]
    "mkldnn.conv": _BACKENDS.mkldnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    "mkldnn.rnn": _BACKENDS.mkldnn.rnn,  # pyright: ignore[reportAttributeAccessIssue]
}
"""What has an ``fp32_precision``: ``ieee``, ``tf32``, ``bf16``, or ``none``, which is that of the whole backend."""

_LOCK = RLock()
_HELD: list[tuple[object, bool]] = []
"""Who holds the switches now, the last above all, and whether with TF32. They are the whole process's."""
_FOUND: list[_State] = []
"""The switches as they were before the first of these."""

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Float32 products as IEEE says, or with TF32 on CUDA where it is ``allowed``; as before afterwards.

    The switches are those of the process: of several threads in here at once the one that came last decides, and the
    caller's settings return when the last has left. A CPU multiplies as IEEE says in either case.
    """
    me = object()
    with _LOCK:
        if not _HELD:
            _FOUND.append(_State())
        if not _HELD or _HELD[-1][1] != allowed:
            _FOUND[0].write(allowed)
        _HELD.append((me, allowed))
    try:
        yield
    finally:
        with _LOCK:
            now = _HELD[-1][1]
            _HELD[:] = [held for held in _HELD if held[0] is not me]
            if not _HELD:
                _FOUND.pop().restore()
            elif _HELD[-1][1] != now:
                _FOUND[0].write(_HELD[-1][1])


class _State:
    """Both sets of switches, the older ones where they can be read: PyTorch refuses where the two contradict."""

    def __init__(self) -> None:
        self.present = {name: switch.fp32_precision for name, switch in _SWITCHES.items()}
        self.matmul = _read(torch.get_float32_matmul_precision)
        self.cudnn = _read(lambda: _BACKENDS.cudnn.allow_tf32)

    def write(self, allowed: bool) -> None:
        """Older switches first, as they set some of the present ones."""
        if self.matmul is not None:
            torch.set_float32_matmul_precision("high" if allowed else "highest")
        if self.cudnn is not None:
            _BACKENDS.cudnn.allow_tf32 = allowed
        for name, switch in _SWITCHES.items():
            switch.fp32_precision = "tf32" if allowed and not name.startswith("mkldnn") else "ieee"

    def restore(self) -> None:
        """A switch that had its value from its backend's is given it back from there."""
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.cudnn is not None:
            _BACKENDS.cudnn.allow_tf32 = self.cudnn
        for name, switch in _SWITCHES.items():
            switch.fp32_precision = "none"
            if switch.fp32_precision != self.present[name]:
                switch.fp32_precision = self.present[name]


def _read(switch: Callable[[], Any]) -> Any:
    try:
        return switch()
    except RuntimeError:
        return None


def ieee(function: F) -> F:
    """The function, or the method, with float32 products as IEEE says; so is what a generator does between values."""

    @wraps(function)
    def exact(*args: Any, **kwargs: Any) -> Any:
        with tf32(False):
            found = function(*args, **kwargs)
        return _each(found) if isgenerator(found) else found

    return exact  # type: ignore[return-value]


def _each(values: Iterator[Any]) -> Iterator[Any]:
    while True:
        with tf32(False):
            try:
                value = next(values)
            except StopIteration:
                return
        yield value


def ieee_methods(cls: type, names: frozenset[str]) -> None:
    """Make those of the methods that the class itself defines `ieee`."""
    for name in names & vars(cls).keys():
        if isinstance(own := vars(cls)[name], FunctionType) and not getattr(own, "__isabstractmethod__", False):
            setattr(cls, name, ieee(own))


def ieee_functions(namespace: dict[str, Any]) -> None:
    """Make the public functions of a module `ieee`: those that its ``__all__`` names, in its ``globals()``."""
    public = {name: f for name in namespace["__all__"] if isinstance(f := namespace[name], FunctionType)}
    namespace |= {name: ieee(f) for name, f in public.items()}
    namespace["__test__"] = {name: f for name, f in public.items() if f.__module__ == namespace["__name__"]}  # doctests
