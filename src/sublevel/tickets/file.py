"""Read and write the file of a ticket: safetensors, with one JSON document in its header.

The document is one entry of the header because safetensors writes several in an order that changes from run to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sublevel._types import Bool, Tensor
from sublevel.codec import packed, unpacked
from sublevel.errors import ConfigError, DataError, ModelError, StoreError
from sublevel.files import replacing
from sublevel.foreign import load_json, load_tensors, opened
from sublevel.space import Layer, Point, Space

KEY = "sublevel-ticket"
FORMAT = 1
LARGEST_HEADER = 100_000_000
"""The header limit of safetensors, in bytes; a larger header is not safetensors."""

TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
    torch.complex64,
)  # fmt: skip
"""The dtypes of a ticket's tensors; complex numbers only in buffers and constants."""

Document = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a file: mask [D], points by name, constants, recipe and provenance."""

    space: Space
    mask: Bool[Tensor, "D"]
    points: Mapping[str, Point]
    constants: Mapping[str, Tensor]
    about: Mapping[str, Any]


def serialised(c: Contents) -> bytes:
    """The bytes of the file. Raises ConfigError if ``about`` is not JSON, ModelError for a dtype outside `TYPES`."""
    from safetensors.torch import save

    tensors = {"mask": packed(c.mask)}
    tensors |= {f"{at}/{name}": t for at, point in c.points.items() for name, t in _named(c.space, point).items()}
    tensors |= {f"constant/{name}": t for name, t in c.constants.items()}
    plain = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    for name, tensor in plain.items():
        if tensor.dtype not in TYPES:
            raise ModelError(f"a ticket cannot hold {name!r} of type {_type(tensor)}; allowed: {_types()}")
    checksums = {name: checksum(t) for name, t in plain.items()}
    document = {"format": FORMAT, **_described(c), "about": dict(c.about), "checksums": checksums}
    try:
        document["checksum"] = _digest(_canonical(document))
        return save(plain, {KEY: _canonical(document).decode()})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the 'about' of a ticket must be JSON: {error}") from None


def write(path: Path, data: bytes) -> Path:
    """Write a file atomically. Raises StoreError if that is impossible."""
    try:
        with replacing(path) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def read(path: Path) -> Contents:
    """Read a file and check its format, header, tensors and numbers. Raises DataError naming the fault."""
    data = _bytes(path)
    try:
        document = _document(path, _header(path, data))
        tensors = _tensors(path, data, document)
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory") from None
    try:
        return _contents(document, tensors)
    except Exception as error:  # an untrusted document may be wrong in any way
        raise DataError(f"{path}: the parts of the ticket do not fit together: {_format_error(error)}") from None


def _bytes(path: Path) -> bytes:
    try:
        with opened(path) as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"there is no ticket {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory") from None


def _format_error(error: Exception) -> str:
    """An error in one line, with its type unless it is a ValueError."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def checksum(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes in C order."""
    return _digest(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _header(path: Path, data: bytes) -> Document:
    """The JSON header of safetensors: eight bytes of length, then text; checks the file's length by its offsets."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > LARGEST_HEADER:
        raise DataError(f"{path} is not a ticket: it is no safetensors file")
    if len(data) < 8 + length:
        raise DataError(f"{path} is cut short: its header has {length} bytes, {len(data) - 8} are there")
    try:
        header = load_json(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not all(type(end) is int for end in ends):
            raise TypeError
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise DataError(f"{path} is not a ticket: its header is not that of a safetensors file") from None
    promised = 8 + length + max(ends, default=0)
    if len(data) < promised:
        raise DataError(f"{path} is cut short: {len(data)} bytes are there of {promised}")
    return header


def _document(path: Path, header: Document) -> Document:
    """The ticket's part of the header, after checking its format and checksum."""
    metadata = header.get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{path} is not a ticket: it is a safetensors file without {KEY!r} in its header")
    try:
        document = load_json(text)
        found, stated = document["format"], document["checksum"]
        rest = _canonical({name: value for name, value in document.items() if name != "checksum"})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged: {KEY!r} in its header cannot be read") from None
    if type(found) is int and found > FORMAT:
        raise DataError(
            f"{path} has ticket format {found}, this version of sublevel reads format {FORMAT}; use a newer sublevel"
        )
    if _digest(rest) != stated or type(found) is not int or found != FORMAT:
        raise DataError(f"{path} is damaged: its header is not the one that was written")
    return document


def _tensors(path: Path, data: bytes, document: Document) -> dict[str, Tensor]:
    """All tensors, after checking the SHA-256 of each."""
    try:
        tensors = {name: tensor.clone() for name, tensor in load_tensors(data).items()}
        stated = document["checksums"]
        if not isinstance(stated, dict):
            raise TypeError("its checksums have no names")
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} is damaged: {_format_error(error)}") from None
    for name in sorted(set(stated) ^ set(tensors)):
        there = "is there but not in the header" if name in tensors else "is missing"
        raise DataError(f"{path} is damaged: its tensor {name!r} {there}")
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES:
            raise DataError(f"{path}: the tensor {name!r} is of type {_type(tensor)}; allowed: {_types()}")
        if checksum(tensor) != stated[name]:
            raise DataError(
                f"{path} is damaged: the SHA-256 of {name!r} is {checksum(tensor)[:12]}, its header says "
                f"{str(stated[name])[:12]}"
            )
    return tensors


def _described(c: Contents) -> Document:
    """Names, shapes and types of everything in the file."""
    parts = {layer.name: layer for layer in c.space.layers}
    start = _named(c.space, c.points["start"])
    return {
        "parameters": [
            _entry(name, start[name])
            | {"prunable": layer.prunable}
            | ({"axis": layer.axis, "groups": layer.groups} if layer.axis else {})
            for name, layer in parts.items()
        ],
        "buffers": [_entry(name, start[name]) for name in start if name not in parts],
        "constants": [_entry(name, tensor) for name, tensor in c.constants.items()],
        "statistics": list(c.space.statistics),
        "points": list(c.points),
    }


def _contents(document: Document, tensors: Mapping[str, Tensor]) -> Contents:
    _check_document(document)
    layers, start = list[Layer](), 0
    for entry in document["parameters"]:
        axis, groups = entry.get("axis", 0), entry.get("groups", 1)
        layers.append(Layer(entry["name"], tuple(entry["shape"]), start, entry["prunable"], axis=axis, groups=groups))
        start += layers[-1].size
    buffers = tuple(entry["name"] for entry in document["buffers"])
    space = Space(tuple(layers), buffers, tuple(document["statistics"]))
    whole = [*document["parameters"], *document["buffers"]]
    named = {at: _expected(tensors, f"{at}/", whole) for at in document["points"]}
    constants = _expected(tensors, "constant/", document["constants"])
    _check_numbers(space, named, constants)
    mask = tensors["mask"]
    if mask.dtype != torch.uint8 or tuple(mask.shape) != (-(-space.dim // 8),):
        raise ValueError(f"the mask has {mask.numel()} bytes for {space.dim} parameters")
    known = {"mask", *(f"constant/{name}" for name in constants)}
    unknown = set(tensors) - known.union(f"{at}/{entry['name']}" for at in named for entry in whole)
    if "start" in named and unknown:
        raise ValueError(f"it holds {min(unknown)!r}, which nothing in it names")
    points = {
        at: Point(
            torch.cat([found[layer.name].reshape(-1) for layer in layers]), {name: found[name] for name in buffers}
        )
        for at, found in named.items()
    }
    return Contents(space, unpacked(mask, space.dim), points, constants, document["about"])


def _check_document(document: Document) -> None:
    """Raise ValueError if a part of the document has the wrong type."""
    for part in ("parameters", "buffers", "constants"):
        for entry in _list(document, part, dict):
            if not isinstance(entry["name"], str) or not isinstance(entry.get("prunable", False), bool):
                raise ValueError(f"an entry of {part} has no name, or another mark than prunable or not")
            lies = entry.get("axis", 0), entry.get("groups", 1)
            known = all(type(n) is int for n in lies) and lies[1] > 0
            second = known and lies[0] == 1 and len(entry["shape"]) > 1 and entry["shape"][0] % lies[1] == 0
            if not known or not (lies == (0, 1) or second):
                raise ValueError(
                    f"the filters of {entry['name']!r} lie along axis {lies[0]!r} in groups of {lies[1]!r}"
                )
        names = [entry["name"] for entry in document[part]]
        if len(set(names)) < len(names):
            raise ValueError(f"{part} has one name twice")
    for part in ("statistics", "points"):
        if len(set(_list(document, part, str))) < len(document[part]):
            raise ValueError(f"{part} has one name twice")
    about = document["about"]
    groups = [about, *(about.get(name, {}) for name in ("data", "model", "training", "versions"))]
    if not all(isinstance(group, dict) for group in groups):
        raise ValueError("what it says about itself has no names")


def _list(document: Document, part: str, kind: type) -> list[Any]:
    found = document[part]
    if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
        raise ValueError(f"{part} is no list of {'texts' if kind is str else 'entries'}")
    return found


def _check_numbers(space: Space, points: Mapping[str, Mapping[str, Tensor]], constants: Mapping[str, Tensor]) -> None:
    """ValueError for weights that are no real numbers of one precision, and for nan and infinity anywhere."""
    for prefix, tensors in (*points.items(), ("constant", constants)):
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{prefix + '/' + name!r} holds numbers that are not finite")
    for at, tensors in points.items():
        kinds = {_type(tensors[layer.name]) for layer in space.layers}
        if len(kinds) != 1 or not tensors[space.layers[0].name].is_floating_point():
            raise ValueError(
                f"the weights at {at!r} are of type {', '.join(sorted(kinds)) or 'none'}; allowed: one float type"
            )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _types() -> str:
    return ", ".join(str(kind).removeprefix("torch.") for kind in TYPES)


def _expected(tensors: Mapping[str, Tensor], prefix: str, entries: list[Document]) -> dict[str, Tensor]:
    """The tensors that a list in the header names, after checking their shapes and types."""
    found = {entry["name"]: tensors[prefix + entry["name"]] for entry in entries}
    for entry in entries:
        if _entry(entry["name"], found[entry["name"]]) != {k: entry[k] for k in ("name", "shape", "dtype")}:
            raise ValueError(f"{prefix + entry['name']!r} is not of shape {entry['shape']} and type {entry['dtype']}")
    return found


def _named(space: Space, point: Point) -> dict[str, Tensor]:
    return {**space.views(point.theta), **{name: point.buffers[name] for name in space.buffers}}


def _entry(name: str, tensor: Tensor) -> Document:
    return {"name": name, "shape": list(tensor.shape), "dtype": _type(tensor)}


def _canonical(document: Document) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
