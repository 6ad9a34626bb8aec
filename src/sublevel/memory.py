"""How much memory this process may take, by its limits, its control group and the machine."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterator
from pathlib import Path


def limit() -> float:
    """Bytes that this process may take by its own limits (``ulimit -v``, ``ulimit -d``); infinity if unlimited."""
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((each for each in limits if each != resource.RLIM_INFINITY), default=math.inf)


def free() -> float:
    """Bytes that this process may still take, by the machine, its control group and its limits; infinity if unknown."""
    return min(_rooms(), default=math.inf)


def _rooms() -> Iterator[float]:
    if sys.platform != "linux":
        return
    groups = Path("/sys/fs/cgroup")
    own = _text(Path("/proc/self/cgroup")).rpartition("::")[2].strip().lstrip("/")
    for folder in dict.fromkeys([groups / own, groups]):
        most, taken = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
        if most.isdigit() and taken.isdigit():
            yield max(0, int(most) - int(taken))
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])
    pages = _text(Path("/proc/self/statm")).split()
    for limit, taken in ((resource.RLIMIT_AS, pages[:1]), (resource.RLIMIT_DATA, pages[5:6])):
        most = resource.getrlimit(limit)[0]
        if taken and most != resource.RLIM_INFINITY:
            yield max(0, most - int(taken[0]) * resource.getpagesize())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
