"""Identify a process by machine, pid and start time. A pid alone may be reused."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


def own() -> dict[str, Any]:
    """This process as JSON for `dead`: ``machine``, ``pid``, and the start time ``born``."""
    found = _process(os.getpid())
    return {"machine": machine(), "pid": os.getpid(), "born": found.started if found else ""}


@cache
def machine() -> str:
    """An identifier of the pid namespace: this boot of this machine, and the container; '' if unknown."""
    if sys.platform == "darwin":
        return _short(f"{platform.node()} {uuid.getnode()}")
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        return _short(boot + os.readlink("/proc/self/ns/pid"))
    except OSError:
        return ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dead(about: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has certainly ended. Malformed input gives False."""
    pid, born = about.get("pid"), about.get("born")
    if not machine() or about.get("machine") != machine() or type(pid) is not int or not 0 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    found = _process(pid)
    return found is not None and (found.state in "ZX" or found.started != born)


@dataclass(frozen=True)
class _Process:
    state: str
    started: str


def _process(pid: int) -> _Process | None:
    """State and start time; None if the system does not report them."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _Process(words[0], words[19])
