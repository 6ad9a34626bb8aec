"""Your own arrays: one ``.npz`` or ``.safetensors`` file with train_x, train_y, test_x and test_y."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sublevel.data.bounds import check_fits, check_wide
from sublevel.data.own import inputs_in, joined, real
from sublevel.data.sources import Dataset, integers, numbered, source
from sublevel.errors import DataError
from sublevel.foreign import check_zip, load_tensors

_WANTED = ("train_x", "train_y", "test_x", "test_y")
_TOKENS = (torch.int8, torch.int16, torch.int32, torch.int64)


@source("arrays")
def arrays(root: Path | None, *, classes: Sequence[str] | None = None) -> Dataset:
    """Read the four arrays of the file ``root``.

    Samples: uint8 ``[N, C, H, W]`` or ``[N, H, W]`` are images; integers ``[N, T]`` are tokens and become int64; floats
    of any shape become float32. Several inputs are arrays ``train_x:NAME``, passed by name, or ``train_x:0``,
    ``train_x:1``, ..., passed in order. Labels: integers ``[N]`` (or ``[N, T]``) become int64; float targets are kept.
    ``classes`` names the labels 0, 1, ... (default: the numbers). Pickles are refused. Raises `DataError` for a missing
    array, an object array or another type.
    """
    if root is None or not root.is_file():
        raise DataError(f"data source 'arrays': data.root must be an .npz or .safetensors file, got {root}")
    found = _read(root)
    missing = [name for name in _WANTED if not any(key == name or key.startswith(f"{name}:") for key in found)]
    if missing:
        raise DataError(
            f"{root} has no {', '.join(missing)}; found: {', '.join(sorted(found)) or 'nothing'}; "
            f"expected: {', '.join(_WANTED)}"
        )
    x = {name: _samples(t, f"{name} in {root}") for name, t in found.items() if name.partition(":")[0] in _WANTED[::2]}
    train_x, test_x = (inputs_in(x, split) for split in ("train", "test"))
    assert train_x is not None
    assert test_x is not None
    for name in _WANTED[1::2]:
        if found[name].is_complex() or found[name].dtype == torch.bool:
            raise DataError(f"{name} in {root} is {found[name].dtype}; allowed: integer labels or float targets")
    train_y, test_y = (integers(found[name]) for name in _WANTED[1::2])
    origin = f"arrays of the file {root.name}"
    return joined("arrays", (train_x, train_y), (test_x, test_y), numbered(train_y, test_y, names=classes), origin)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            check_fits(path.stat().st_size)
            return load_tensors(path.read_bytes())
        if path.suffix != ".npz":
            raise ValueError(f"its name ends in {path.suffix!r}")
        check_zip(path)
        with np.load(path, allow_pickle=False) as file:
            found = {name: torch.from_numpy(np.ascontiguousarray(file[name])) for name in file.files}
        check_wide(sum(map(_width, found.values())), path.stat().st_size)
        return found
    except Exception as problem:  # untrusted files raise many kinds: MemoryError, ...
        why = str(problem) or type(problem).__name__
        raise DataError(f"{path} cannot be read as .npz or .safetensors: {why}") from problem


def _width(t: Tensor) -> int:
    """Bytes of an array as it is used: tokens and labels become int64, half precision becomes float32."""
    widest = 4 if t.is_floating_point() else 8 if t.ndim <= 2 else 1
    return t.numel() * max(t.element_size(), widest)


def _samples(x: Tensor, where: str) -> Tensor:
    if x.is_floating_point() or (x.dtype in _TOKENS and x.dim() <= 2):
        return real(x)
    if x.dtype == torch.bool and ":" in where.partition(" ")[0]:  # a mask among several inputs
        return x
    if x.dtype != torch.uint8 or x.dim() not in (3, 4):
        raise DataError(
            f"{where} is {x.dtype} {list(x.shape)}; allowed: uint8 [N, C, H, W] or [N, H, W], floats, or tokens int64 "
            "[N, T]"
        )
    x = x[:, None] if x.dim() == 3 else x
    if x.shape[3] in (1, 3, 4) and x.shape[1] > 4:
        raise DataError(
            f"{where} has shape {list(x.shape)}, channels last; expected [N, C, H, W]: transpose(0, 3, 1, 2)"
        )
    return x.contiguous()
