"""Make glibc reuse freed memory instead of returning it to the system."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's malloc: see mallopt(3)."""

LARGEST = (2**30, 2**25)
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
    return any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
