"""Every kind of cell, and the key of a cell."""

from __future__ import annotations

import torch

from sublevel.engine.store import canonical, digest
from sublevel.errors import unknown
from sublevel.study import branches, given, kernels, measurements  # noqa: F401 - they register their kinds
from sublevel.study.cells import KINDS, Json
from sublevel.train.engines import ENGINE

__all__ = ["KINDS", "key", "numerics"]


def numerics(device: str, dtype: str, threads: int, processes: int = 1) -> dict[str, Json]:
    """The numerics class. Within one class and one kind of processor, results agree to the bit.

    Several ``processes`` that train together round their sums differently from one.
    """
    together = {"processes": processes} if processes > 1 else {}
    return together | {
        "device": torch.device(device).type,
        "dtype": dtype,
        "tf32": False,
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "engine": ENGINE,
        "threads": threads,
    }


def key(kind: str, inputs: Json, problem: Json, numerics: Json) -> str:
    """A cell's key: SHA-256 of everything on which its result depends."""
    if kind not in KINDS:
        raise unknown("kind of cell", kind, KINDS)
    document = {
        "kind": kind,
        "version": KINDS[kind].version,
        "inputs": inputs,
        "problem": problem,
        "numerics": numerics,
    }
    return digest(canonical(document))
