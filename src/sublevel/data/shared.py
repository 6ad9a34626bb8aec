"""Share splits between the processes of a study through one memory-mapped file in the cache.

So a machine holds one copy of the data for any number of workers, and only one process reads and splits the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sublevel.cache import cache_dir
from sublevel.data.packing import Layout
from sublevel.data.splits import PARTS, Part, Splits
from sublevel.files import replacing
from sublevel.inputs import shapes_of

KEPT, KEPT_DAYS = 8, 14
"""On write: remove files unused for KEPT_DAYS; beyond the KEPT newest, those older than a day."""

DAY = 86400.0


def share(splits: Splits) -> tuple[str, Splits] | None:
    """Write ``splits`` to the cache if absent; return their name for `shared`, and the mapped splits.

    Returns None if sharing has no benefit (rows read from files on demand) or the cache cannot be written. The cache
    only saves memory and time.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not splits.in_memory:
        return None
    about = _about(splits)
    name = _name(splits.digest, about)
    there = shared(name)
    if there is None:
        try:
            _remove_old()
            with replacing(_path(name)) as temporary:
                save_file(_unshared(splits), temporary, metadata={"splits": about})
        except (OSError, RuntimeError, MemoryError, SafetensorError):
            return None
        there = shared(name)
    return None if there is None else (name, there)


def shared(name: str) -> Splits | None:
    """Map the splits of that name from the cache; None if they are absent or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        path = _path(name)
        with suppress(OSError):  # another user's file, or a read-only disk
            os.utime(path)
        with safe_open(str(path), framework="pt") as file:
            about = (file.metadata() or {})["splits"]
            parts = {part: Part(file.get_tensor(f"{part}.x"), file.get_tensor(f"{part}.y")) for part in PARTS}
        splits = Splits(**parts, **_fields(json.loads(about)))
        return splits if _name(splits.digest, about) == name else None
    except (OSError, SafetensorError, RuntimeError, MemoryError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _folder() -> Path:
    return cache_dir() / "splits"


def _path(name: str) -> Path:
    return _folder() / f"{name}.safetensors"


def _name(digest: str, about: str) -> str:
    return hashlib.sha256(f"{digest}\n{about}".encode()).hexdigest()


def _about(splits: Splits) -> str:
    """The fields of splits other than their tensors, as JSON."""
    layout = splits.layout
    fields: dict[str, Any] = {name: getattr(splits, name) for name in ("mean", "std", "classes", "origin")}
    fields["input_shape"] = None if layout else splits.input_shape
    fields["layout"] = layout and {
        "dtypes": [str(dtype).removeprefix("torch.") for dtype in layout.dtypes],
        "shapes": layout.shapes,
        "names": layout.names,
    }
    return json.dumps(fields, sort_keys=True)


def _unshared(splits: Splits) -> dict[str, Tensor]:
    """The tensors on the CPU, each in separate memory, as safetensors requires."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    tensors = {f"{name}.{what}": getattr(part, what) for name, part in splits.parts.items() for what in ("x", "y")}
    for name, tensor in tensors.items():
        plain = tensor.cpu().contiguous()
        memory = plain.untyped_storage()
        own = memory.nbytes() == plain.nbytes and memory.data_ptr() not in taken
        found[name] = plain if own else plain.clone()
        taken.add(memory.data_ptr())
    return found


def _fields(about: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `_about`."""
    given, layout = about["layout"], None
    if given:
        dtypes = tuple(getattr(torch, name) for name in given["dtypes"])
        layout = Layout(dtypes, tuple(map(tuple, given["shapes"])), tuple(given["names"]))
    shape = layout.input_shape if layout else shapes_of(about["input_shape"])
    rest = {name: tuple(about[name]) for name in ("mean", "std", "classes")}
    return {**rest, "origin": about["origin"], "input_shape": shape, "layout": layout}


def _remove_old() -> None:
    """Remove old files from the cache. Processes that have mapped a removed file can still read it."""
    with suppress(OSError):
        ages = {path: time.time() - path.stat().st_mtime for path in _folder().iterdir()}
        last = sorted((path for path in ages if path.suffix == ".safetensors"), key=ages.__getitem__)[:KEPT]
        for path, age in ages.items():
            if age > (KEPT_DAYS * DAY if path in last else DAY):
                path.unlink(missing_ok=True)
