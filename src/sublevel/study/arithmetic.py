"""What belongs to the numerics class of a study and is set per process: threads, denormal numbers, cuDNN's choices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sublevel.errors import ConfigError

THREADS = 1024
"""The most threads of a cell: a machine starts no more."""


@contextmanager
def arithmetic(threads: int) -> Iterator[None]:
    """Use the study's arithmetic settings inside the block; restore the process's settings afterwards.

    The threads are torch's and those of numpy's BLAS (where threadpoolctl knows it): eigenvalues of a few hundred rows
    differ in their last bits with the number of threads that compute them. ConfigError where so many cannot be started:
    the libraries crash then.
    """
    import torch

    from sublevel.memory import keep_freed
    from sublevel.precision import tf32

    if not _startable(threads):
        raise ConfigError(f"this machine does not start {threads} threads for this user (ulimit -u, or memory)")
    keep_freed()
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), _flushes(), bool(cudnn.deterministic), bool(cudnn.benchmark)
    with tf32(False), _blas().limit(limits=threads):
        try:
            _set(threads, True, True, False)
            yield
        finally:
            _set(*before)


@lru_cache
def _startable(threads: int) -> bool:
    """Whether so many threads can be there at once."""
    over, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(threads - 1):
            thread = threading.Thread(target=over.wait, daemon=True)
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
    """What sets the threads of the BLAS libraries that are loaded, numpy's among them."""
    import numpy  # noqa: F401  # so that its library is loaded
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _set(threads: int, flush: bool, deterministic: bool, benchmark: bool) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = benchmark


def _flushes() -> bool:
    """Whether denormal numbers are flushed to zero now (torch sets it, but does not tell)."""
    import torch

    return bool(torch.full((1,), 1e-310, dtype=torch.float64) * 1.0 == 0)
