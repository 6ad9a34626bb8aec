"""Ways to make a document of somebody else's wrong: one to three of its values, an object's tensors; sealed again."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from sublevel.engine.store.content import digest, sealed, unsealed
from sublevel.tickets.file import KEY

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, -0.5, 1e308, float("inf"), float("-inf"), float("nan"),
    "", "x", "../../../canary/kept", "/etc/passwd", "\x1b[2J", "\ud800", "=1+1", "canary_code:run",
    "0" * 64, "f" * 64, "a" * 100_000, [], [1], [[]], [None] * 1_000, {}, {"a": 1}, {"": {}}, {"name": []},
]  # fmt: skip

# No case holds more than one of these.
LARGE: tuple[Callable[[], Any], ...] = (
    lambda: "x" * 5_000_000,
    lambda: [[]] * 8_000_000,
    lambda: [[]] * 5_000_000,
    lambda: [deep("list", 80)] * 90_000,
    lambda: [deep("group", 80)] * 30_000,
    lambda: {f"{i}": i for i in range(100_000)},
)


def deep(kind: str, levels: int) -> Any:
    """Lists or groups inside each other."""
    out: Any = 0
    for _ in range(levels):
        out = [out] if kind == "list" else {"a": out}
    return out


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(document: Any, rng: random.Random) -> Any:
    """A copy with one to three values replaced, dropped, doubled or renamed."""
    out = copy.deepcopy(document)
    for _ in range(rng.randrange(1, 4)):
        found = list(places(out))
        if not found:
            return out
        *way, last = rng.choice(found)
        at = out
        for key in way:
            at = at[key]
        how = rng.randrange(10)
        if how == 0:
            del at[last]
        elif how == 1 and isinstance(at, dict):
            at[rng.choice(["x", "", "__class__", "key", "name"])] = at.pop(last)
        elif how == 2 and isinstance(at, list):
            at.insert(0, copy.deepcopy(at[last]))
        elif how == 3:
            at[last] = deep(rng.choice(["list", "group"]), rng.choice([50, 150, 400]))
        elif how == 4:
            at[last] = {"was": at[last]}
        elif how == 5 and rng.random() < 0.1:
            return _placed(out, way, last, rng.choice(LARGE)())
        else:
            at[last] = copy.deepcopy(rng.choice(VALUES))
    return out


def _placed(document: Any, way: Sequence[Any], last: Any, value: Any) -> Any:
    """The document with one large value, which is not looked through for further places."""
    at = document
    for key in way:
        at = at[key]
    at[last] = value
    return document


def changed_tensors(data: bytes, rng: random.Random) -> bytes:
    """An object with one of its tensors gone, renamed, of another shape or type, or with other numbers."""
    if rng.random() < 0.02:
        return empty_tensors(300_000)
    tensors = load(data)
    name = rng.choice(sorted(tensors))
    tensor = tensors.pop(name)
    how = rng.randrange(7)
    if how == 1:
        tensors[rng.choice(["x", "", "buffer:", "theta\x1b"])] = tensor
    elif how == 2:
        tensors[name] = tensor.reshape(-1)[: tensor.numel() // 2].clone()
    elif how == 3:
        tensors[name] = tensor.reshape(1, *tensor.shape)
    elif how == 4:
        tensors[name] = tensor.to(rng.choice([torch.int64, torch.bool, torch.complex64, torch.float64, torch.uint8]))
    elif how == 5:
        tensors[name] = torch.full_like(
            tensor, rng.choice([-1, 2**40, float("nan")]) if tensor.is_floating_point() else 77
        )
    elif how == 6:
        tensors[name] = torch.zeros(rng.choice([(0,), (2**20,), ()]))
    return save(tensors)


def empty_tensors(n: int) -> bytes:
    """An object of many tensors, all of them empty."""
    head = dumped({f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(n)})
    return len(head).to_bytes(8, "little") + head


def dumped(document: Any) -> bytes:
    """JSON, with the numbers and texts that JSON has not; 5,000 levels where it is too deep to write."""
    try:
        return json.dumps(document).encode()
    except RecursionError:
        return b"[" * 5_000 + b"]" * 5_000


def changed_ticket(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a ticket with something changed: its document, its header, or a tensor."""
    n = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + n]), data[8 + n :]
    document = json.loads(header["__metadata__"][KEY])
    document.pop("checksum")
    how = rng.random()
    if how < 0.6:
        document = changed(document, rng)
    elif how < 0.8:
        tensors = changed_tensors(data, rng)
        n = int.from_bytes(tensors[:8], "little")
        header, body = json.loads(tensors[8 : 8 + n]) | {"__metadata__": header["__metadata__"]}, tensors[8 + n :]
        document["checksums"] = {
            name: hashlib.sha256(body[slice(*about["data_offsets"])]).hexdigest()
            for name, about in header.items()
            if name != "__metadata__"
        }
    else:
        header = changed(header, rng)
    if isinstance(header.get("__metadata__"), dict) and KEY in header["__metadata__"]:
        text = dumped_canonical(document)
        if isinstance(document, dict):
            sum_ = hashlib.sha256(text.encode()).hexdigest()
            text = dumped_canonical(document | {"checksum": sum_})
        header["__metadata__"][KEY] = text
    head = dumped(header)
    return len(head).to_bytes(8, "little") + head + body


def changed_files(files: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    """The files of a store with one changed: an entry or a root sealed again, or an object under its new digest."""
    files = dict(files)
    victim = rng.choice(
        [name for name in files if name.startswith(rng.choice(["cells", "cells", "objects", "studies"]))]
    )
    if not victim.startswith("objects"):
        files[victim] = resealed(changed(unsealed(files[victim]), rng))
        return files
    data = changed_tensors(files.pop(victim), rng)
    old, new = victim.rpartition("/")[2], digest(data)
    files[f"objects/{new[:2]}/{new}"] = data
    for name in [name for name in files if name.startswith("cells")]:
        if old.encode() in files[name]:
            files[name] = sealed(json.loads(json.dumps(unsealed(files[name])).replace(old, new)))
    return files


def write_tar(path: Path, files: dict[str, bytes], rng: random.Random) -> None:
    """An archive of these files."""
    about: Any = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in files.items()}
    header: Any = {"format": 1, "files": about}
    if rng.random() < 0.1:
        header = changed(header, rng)
    with path.open("wb") as out:
        for name, data in {"archive.json": dumped(header), **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        out.write(bytes(1024))


def resealed(body: Any) -> bytes:
    """An entry or a root with its checksum; plain JSON where it cannot have one."""
    try:
        return sealed(body)
    except (ValueError, RecursionError, TypeError):
        return dumped({"body": body, "checksum": ""})


def dumped_canonical(document: Any) -> str:
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"))
    except (RecursionError, TypeError):
        return "[" * 5_000
