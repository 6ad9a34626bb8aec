"""Which process is meant: its number is given again after a while, its number and time of birth together are not."""

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
    """This process, as JSON that `dead` understands: ``machine``, ``pid``, ``born``."""
    return {"machine": machine(), "pid": os.getpid(), "born": _born(os.getpid())}


@cache
def machine() -> str:
    """A name for what gives processes their numbers: this boot of this machine, and the container; '' if unknown."""
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
    """Whether a process is known to be dead: it was here, and is here no more. What is misshapen is not known."""
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
    return found is not None and (found.state in "ZX" or found.born != born)


def _born(pid: int) -> str:
    found = _process(pid)
    return found.born if found else ""


@dataclass(frozen=True)
class _Process:
    state: str
    born: str


def _process(pid: int) -> _Process | None:
    """State and time of birth; None where the system does not say."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _Process(words[0], words[19])
