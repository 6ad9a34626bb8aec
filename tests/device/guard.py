"""The compiled part of the pretend device: it must be loaded before torch is imported."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gpus

SOURCE = Path(__file__).with_name("guard.cpp")


def torch_folder() -> Path:
    """Where torch is installed; torch itself is not imported."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def missing() -> str:
    """Why there can be no pretend device here; empty where there can."""
    if not sys.platform.startswith("linux"):
        return "the pretend device is for Linux"
    if gpus.built_for_cuda():
        return "the pretend device stands in for CUDA in a CPU build of PyTorch"
    return "" if shutil.which("g++") else "the pretend device is compiled by g++, which is not here"


def library() -> Path:
    """The shared library in the user's cache, compiled where this source has not been for this PyTorch."""
    torch, source = torch_folder(), SOURCE.read_bytes()
    name = hashlib.sha256(source + (torch / "version.py").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sublevel" / "pretend-device"
    path = cache / f"{name}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        folders = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}", f"-L{torch / 'lib'}"]
        command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", str(SOURCE), "-o", str(part)]
        subprocess.run([*command, *folders, "-lc10", "-ltorch_cpu"], check=True)
        part.replace(path)
    return path


def load() -> ctypes.CDLL:
    """Give this process's PyTorch a guard and hooks for CUDA."""
    assert "torch" not in sys.modules, "the guard comes before torch"
    ctypes.CDLL(str(torch_folder() / "lib" / "libtorch_cpu.so"), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(library()), ctypes.RTLD_GLOBAL)
