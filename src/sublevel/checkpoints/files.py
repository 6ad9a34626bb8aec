"""Read named tensors from a file or a folder, without running code from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sublevel._types import Tensor
from sublevel.errors import DataError
from sublevel.foreign import check_zip, load_tensors, read_json

HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""Keys under which training scripts store a state dict, the most common first."""

FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Suffixes of checkpoints in a folder."""

BESIDE = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
"""Prefixes of files that a training writes next to its weights."""

SHARD = re.compile(r"-\d+-of-0*([2-9]|[1-9]\d+)\.\w+$")
"""How the name of one of several shards ends."""

POINTER = b"version https://git-lfs"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
LARGEST_HEADER = 100_000_000
"""Bytes: the limit of safetensors itself."""


def load(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint: a state dict in one file, in shards with an index, or in a folder.

    A file is safetensors or a file of ``torch.save``, with any suffix; the latter is loaded with ``weights_only=True``.
    A state dict may be under a key of `HOLDERS`, or under the only key that holds one. ``*.index.json`` names the
    shards of a large checkpoint. In a folder, the index or otherwise the only checkpoint is read.

    Raises DataError in one sentence with the remedy.
    """
    path = Path(path)
    if path.is_dir():
        return load(_inside(path))
    if not path.is_file():
        raise DataError(f"there is no checkpoint {path}")
    if path.name.endswith(".index.json"):
        return _shards(path)
    if several := SHARD.search(path.name):
        raise DataError(f"{path} is one of {several[1]} shards: name their folder or index (*.index.json)")
    return _tensors(path)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of one file."""
    found = _loaded(path)
    if not isinstance(found, Mapping):
        raise DataError(f"{path} holds {type(found).__name__}; a checkpoint is a state dict: names and tensors")
    try:
        return state_dict_in(found, path)
    except RecursionError:
        raise DataError(f"{path} holds dicts too many levels deep, or a dict in itself") from None


def _inside(folder: Path) -> Path:
    """The checkpoint of a folder: its index of shards, or the only file with the first present suffix."""
    for pattern in ("*.safetensors.index.json", "*.index.json", *(f"*{ending}" for ending in FILES)):
        found = sorted(folder.glob(pattern))
        found = [each for each in found if not each.name.startswith(BESIDE)]
        if len(found) == 1:
            return found[0]
        if found and all(SHARD.search(each.name) for each in found):
            raise DataError(f"{folder} holds shards without their index: copy *.index.json beside them")
        if found:
            raise DataError(f"{folder} holds {', '.join(each.name for each in found)}; name one of them as checkpoint")
    raise DataError(f"{folder} is a folder without a checkpoint: no *.index.json and no file *{', *'.join(FILES)}")


def _shards(index: Path) -> dict[str, Tensor]:
    """The tensors that an index names, from the shards in its folder."""
    try:
        document = read_json(index)
        places = {str(name): str(file) for name, file in document["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{index} is no index of shards: expected a JSON object with 'weight_map' ({type(error).__name__})"
        ) from None
    out: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file or file.endswith(".index.json"):
            raise DataError(f"{index} names the shard {file!r}; a shard lies in the folder of its index, and is none")
        if not (index.parent / file).is_file():
            raise DataError(f"{index} names the shard {file}, which is missing: copy it into the folder of the index")
        shard = _tensors(index.parent / file)
        wanted = [name for name, place in places.items() if place == file]
        for name in wanted:
            if name not in shard:
                raise DataError(f"{index} says that {file} holds {name!r}, but it does not: the shards do not belong")
        out |= shard
    return out


def _loaded(path: Path) -> Any:
    """The content of a file. Raises DataError if reading it fails or would run code."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if start == POINTER:
        raise DataError(f"{path} is a pointer of Git LFS in place of the file: git lfs pull fetches the file")
    header = int.from_bytes(start[:8], "little")
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and header <= LARGEST_HEADER):
        return _safetensors(path)
    if path.suffix == ".npz":
        raise DataError(
            f"{path} holds arrays of numpy; write them as safetensors: safetensors.torch.save_file({{name: "
            "torch.as_tensor(array) for name, array in numpy.load(path).items()}, 'weights.safetensors')"
        )
    try:
        check_zip(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files and files with code raise many kinds of errors
        raise DataError(f"{path} is no checkpoint that can be loaded without running its code: {_why(error)}") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(
            f"{path} is no checkpoint that can be loaded without running its code: it is damaged, or no safetensors "
            f"file ({_line(error)})"
        ) from None


def _why(error: Exception) -> str:
    """Explain why torch.load refused a file, with the remedy if there is one."""
    text = ESCAPES.sub("", str(error))
    if "TorchScript" in text:
        return (
            "it is a TorchScript archive; where you trust it, write its weights to a file of their own: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pt')"
        )
    if name := re.search(r"(?:Unsupported (?:global|class)[^\w]*(?:GLOBAL )?|GLOBAL )([A-Za-z_][\w.]*)", text):
        found = name[1].rstrip(".")
        numpy = found.startswith(("numpy", "_codecs"))
        kind = "a numpy number or array" if numpy else f"an object of {found}"
        if numpy:
            kind += " (arrays become tensors by {name: torch.as_tensor(array) for name, array in found.items()})"
        return (
            f"it holds {kind}, where a checkpoint holds tensors alone; where you trust the file, write its weights to "
            "one of their own: found = torch.load(path, weights_only=False), then "
            "torch.save(found.state_dict(), 'weights.pt') if found is a network, and the same of the entry that "
            "is a state dict otherwise"
        )
    why = f" ({_line(error)})" if "weights_only" not in _line(error) else ""  # PyTorch advises to run its code
    return f"it is damaged, or no file of torch.save{why}"


def _line(error: Exception) -> str:
    """The first line of an exception's text."""
    lines = ESCAPES.sub("", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def state_dict_in(found: Mapping[Any, Any], path: str | Path, above: str = "") -> dict[str, Tensor]:
    """The state dict in a mapping, at the top or under a key; arrays become tensors.

    Raises DataError naming the keys if there are none or several.

    Numbers and texts next to tensors are ignored; if a mapping is next to them, the tensors are not the state dict.
    """
    inner = {str(key): value for key, value in found.items() if isinstance(value, Mapping)}
    if extra := [key for key in inner if key.rpartition(".")[2] == "_extra_state"]:
        raise DataError(f"{path} holds {extra[0]!r} beside its tensors; a point holds tensors only: make it a buffer")
    tensors = {key: torch.as_tensor(value) for key, value in found.items() if _is_numbers(value)}
    if not inner and all(isinstance(key, str) for key in tensors) and (tensors or not found):
        return {str(key): value for key, value in tensors.items()}
    usual = [key for key in HOLDERS if key in inner and _holds(inner[key])]
    some = usual or [key for key, value in inner.items() if _holds(value)]
    nested = len(usual) > 1 and all(inner[usual[0]] is inner[key] for key in usual)
    if len(some) == 1 or nested:
        some = [some[0], *(key for key in inner if key != some[0] and _another(inner[some[0]], inner[key]))]
    if len(some) == 1 or nested:
        return state_dict_in(inner[some[0]], path, f"{above}{some[0]}.")
    keys = ", ".join(f"{above}{key} ({type(value).__name__})" for key, value in list(found.items())[:12])
    what = f"state dicts under {', '.join(above + key for key in some)}" if some else f"dict with the keys {keys}"
    raise DataError(
        f"{path} holds {what or 'an empty dict'}; a checkpoint is a state dict: names and tensors"
        + (": save the one that is meant, as torch.save(found[key], 'weights.pt')" if some else "")
    )


def _is_numbers(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def _another(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    """Whether two mappings hold tensors of the same names with other values, such as averaged weights (EMA)."""
    both = all(isinstance(each, Tensor) for each in (*a.values(), *b.values()))
    if not both or not a or a.keys() != b.keys():
        return False
    return any(a[key].shape != b[key].shape or not bool((a[key] == b[key]).all()) for key in a)


def _holds(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a state dict or holds one."""
    if any(isinstance(each, Mapping) for each in value.values()):
        return any(_holds(each) for each in value.values() if isinstance(each, Mapping))
    return any(isinstance(each, Tensor) for each in value.values()) and all(isinstance(key, str) for key in value)
