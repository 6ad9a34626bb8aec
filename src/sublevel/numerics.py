"""The arithmetic of a process: the precision of float32 products, threads, denormal numbers, cuDNN, and memory.

Products of float32 have IEEE precision unless a recipe sets TF32. PyTorch has two sets of switches, and the caller may
have set either: the current ``fp32_precision`` of every backend, and the older ``allow_tf32`` and
``set_float32_matmul_precision``. On a CPU the latter's ``medium`` lets oneDNN round the factors of a matrix product to
bfloat16 if the processor can: an error of 1e-3 of the result.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from inspect import isgenerator
from threading import Event, RLock, Thread
from types import FunctionType
from typing import Any, TypeVar

import torch

from sublevel.errors import ConfigError

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


THREADS = 1024
"""Largest number of threads of a cell."""


FOUND = re.compile(r"([\w:]+) does not have a deterministic implementation")
"""The warning of PyTorch for an operation that has no kernel with a fixed order of its sums; its name."""

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable by which cuBLAS gives every stream a workspace of its own, as fixed orders require."""


@contextmanager
def deterministic(device: str, *, warns: bool = True) -> Iterator[None]:
    """On a GPU, use kernels that add in a fixed order, where PyTorch has them (`torch.use_deterministic_algorithms`).

    Those are ``index_add``, ``scatter_add`` and others of the kind. An operation without one computes as usual, with a
    warning if ``warns``. On a CPU nothing changes.
    """
    if torch.device(device).type == "cpu":
        yield
        return
    os.environ.setdefault(CUBLAS, ":4096:8")
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False  # which takes time
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            if not warns:
                warnings.filterwarnings("ignore", message=FOUND.pattern)
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills


@contextmanager
def arithmetic(threads: int, device: str = "cpu") -> Iterator[None]:
    """Use the study's arithmetic settings inside the block; restore the process's settings afterwards.

    The threads are torch's and those of numpy's BLAS, if threadpoolctl knows it: the last bits of the eigenvalues of a
    few hundred rows depend on the number of threads. Raises ConfigError if this user cannot start ``threads``
    threads: the libraries would crash.
    """
    if not _startable(threads):
        raise ConfigError(f"this machine does not start {threads} threads for this user (ulimit -u, or memory)")
    keep_freed()
    cudnn = torch.backends.cudnn
    flushes = bool(torch.full((1,), 1e-310, dtype=torch.float64) * 1.0 == 0)  # torch sets it, and does not tell
    before = torch.get_num_threads(), flushes, bool(cudnn.deterministic), bool(cudnn.benchmark)
    with tf32(False), deterministic(device, warns=False), _blas().limit(limits=threads):
        try:
            _set(threads, True, True, False)
            yield
        finally:
            _set(*before)


@lru_cache
def _startable(threads: int) -> bool:
    """True if this number of threads can run at once."""
    over, started = Event(), list[Thread]()
    try:
        for _ in range(threads - 1):
            thread = Thread(target=over.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        return False
    finally:
        over.set()
        for thread in started:
            thread.join()
    return True


@lru_cache(maxsize=1)
def _blas() -> Any:
    """Sets the threads of the loaded BLAS libraries, numpy's among them."""
    import numpy  # noqa: F401  # so that its library is loaded
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _set(threads: int, flush: bool, deterministic: bool, benchmark: bool) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = benchmark


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's malloc: see mallopt(3)."""

LARGEST_BLOCK = (2**30, 2**25)
"""Largest reused block in bytes; the second value is the maximum in older versions of glibc."""


@lru_cache(maxsize=1)
def keep_freed() -> bool:
    """Make glibc's malloc reuse freed memory for the rest of the process; return whether it does.

    A training step frees and allocates the same megabytes each time. By default glibc returns such blocks to the
    system, and every new page costs a page fault: a seventh of a residual network's step on a virtual machine. The
    peak of resident memory stays the same, but it lasts until the process ends. Results do not change. Other systems'
    allocators stay unchanged, and so do settings from the environment (MALLOC_MMAP_THRESHOLD_ or
    MALLOC_TRIM_THRESHOLD_).
    """
    if sys.platform != "linux" or any(f"MALLOC_{what}_THRESHOLD_" in os.environ for what in ("MMAP", "TRIM")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return False
    return any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_BLOCK) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
