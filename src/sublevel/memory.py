"""Memory that is kept: what a process has freed it uses again, and asks the system for nothing twice."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's malloc: see mallopt(3)."""

LARGEST = (2**30, 2**25)
"""Bytes of a block that is still kept; the second is the most that glibc once took."""


@lru_cache(maxsize=1)
def keep_freed() -> bool:
    """Have glibc's malloc keep freed memory, for the rest of the process; whether it does.

    A step of training frees and allocates the same megabytes again and again. By default glibc gives blocks of that
    size back to the system, which hands out new pages, filled with zeros, one fault for each: of a residual network's
    step a seventh, on a virtual machine. The peak of resident memory is the same; it lasts until the process
    ends. No bit of a result changes. Other systems' allocators are left as they are, as is one that the environment
    has settled (MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_).
    """
    if sys.platform != "linux" or any(f"MALLOC_{what}_THRESHOLD_" in os.environ for what in ("MMAP", "TRIM")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return False
    return any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
