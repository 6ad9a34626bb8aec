"""The GPUs of this machine: hidden from all tests but those marked ``device``, which run in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
REAL = "SUBLEVEL_REAL_GPU"
SAID = "SUBLEVEL_VISIBLE_GPUS"


def hide() -> None:
    """Hide them from this process and its children, before torch is imported; `shown` is the way back."""
    if REAL not in os.environ:  # else a process of pytest-xdist: its parent has done so
        os.environ[REAL] = str(int(found()))
        os.environ[SAID] = os.environ.get(VISIBLE, "all")
        os.environ[VISIBLE] = ""


def shown() -> dict[str, str | None]:
    """The variables with which a child sees them again; None is one to take away."""
    said = os.environ[SAID]
    return {VISIBLE: None if said == "all" else said}


def found() -> bool:
    """Whether there is a GPU that this PyTorch can use."""
    if os.environ.get(VISIBLE) == "" or not built_for_cuda() or not shutil.which("nvidia-smi"):
        return False
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "GPU" in done.stdout


def built_for_cuda() -> bool:
    """Whether this PyTorch is a CUDA build; it is not imported."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return bool(re.search(r"^cuda\b.*= '", text, re.MULTILINE))
