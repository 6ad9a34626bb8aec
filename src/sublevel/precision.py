"""The precision of float32 products: IEEE, unless a recipe sets TF32.

PyTorch has two sets of switches, and the caller may have set either: the current ``fp32_precision`` of every backend,
and the older ``allow_tf32`` and ``set_float32_matmul_precision``. On a CPU the latter's ``medium`` lets oneDNN round
the factors of a matrix product to bfloat16 if the processor can: an error of 1e-3 of the result.
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
"""The switches ``fp32_precision``: ``ieee``, ``tf32``, ``bf16``, or ``none`` for the backend's setting."""

_LOCK = RLock()
_HELD: list[tuple[object, bool]] = []
"""The current holders of the process's switches, and whether each allows TF32; the last one decides."""
_FOUND: list[_Switches] = []
"""The switches before the first holder."""

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Compute float32 products in IEEE precision, or with TF32 on CUDA if ``allowed``; restore the switches afterwards.

    The switches are global to the process: of several threads in this block, the last to enter decides. The caller's
    settings return when the last thread leaves. A CPU uses IEEE precision in either case.
    """
    me = object()
    with _LOCK:
        if not _HELD:
            _FOUND.append(_Switches())
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


class _Switches:
    """Both sets of switches; the older ones if PyTorch lets us read them, which it refuses if the two contradict."""

    def __init__(self) -> None:
        self.present = {name: switch.fp32_precision for name, switch in _SWITCHES.items()}
        self.matmul = _read(torch.get_float32_matmul_precision)
        self.cudnn = _read(lambda: _BACKENDS.cudnn.allow_tf32)

    def write(self, allowed: bool) -> None:
        """Write the older switches first, because they also set some of the current ones."""
        if self.matmul is not None:
            torch.set_float32_matmul_precision("high" if allowed else "highest")
        if self.cudnn is not None:
            _BACKENDS.cudnn.allow_tf32 = allowed
        for name, switch in _SWITCHES.items():
            switch.fp32_precision = "tf32" if allowed and not name.startswith("mkldnn") else "ieee"

    def restore(self) -> None:
        """Restore all switches; one that took its backend's value takes it from there again."""
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
    """Wrap a function, method or generator so that its float32 products have IEEE precision."""

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
    """Apply `ieee` to those of the named methods that the class itself defines."""
    for name in names & vars(cls).keys():
        if isinstance(own := vars(cls)[name], FunctionType) and not getattr(own, "__isabstractmethod__", False):
            setattr(cls, name, ieee(own))


def ieee_functions(namespace: dict[str, Any]) -> None:
    """Apply `ieee` to the functions in a module's ``__all__``; ``namespace`` is its ``globals()``."""
    public = {name: f for name in namespace["__all__"] if isinstance(f := namespace[name], FunctionType)}
    namespace |= {name: ieee(f) for name, f in public.items()}
    namespace["__test__"] = {name: f for name, f in public.items() if f.__module__ == namespace["__name__"]}  # doctests
