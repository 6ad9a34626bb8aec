"""The versions and the hardware of a run, in general terms."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sublevel._version import __version__

PACKAGES = ("torch", "numpy", "scipy", "pandas", "safetensors", "plotly", "matplotlib")


def versions() -> dict[str, str]:
    """Versions of Python, sublevel and the packages that it computes with."""
    found = {"python": platform.python_version(), "sublevel": __version__} | dict.fromkeys(PACKAGES, "absent")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine(device: str) -> dict[str, Any]:
    """Processor, cores, memory, operating system, and the name of the ``device``'s GPU: no host name, no path."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = None
    with suppress(ValueError, OSError, AttributeError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {
        "processor": processor(),
        "cores": cores,
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
    }


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
