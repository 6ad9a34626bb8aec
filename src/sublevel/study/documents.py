"""Studies as written, before they are checked: presets, TOML files, and overrides of their keys."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sublevel.errors import ConfigError, nearest
from sublevel.foreign import DEEPEST, bounded

LARGEST = 2**20
"""Bytes of the largest study file that is read."""

LONG_KEY = re.compile(rb"(?:\.[^.,=\[\]{}#\n]{1,64}){%d}" % DEEPEST)
"""A key of too many parts, without spaces: the time to parse it grows with the square of their number."""

PRESETS = Path(__file__).parent.parent / "presets"
GROUPS = ("train", "data", "model", "prune")
REPLACES = {
    "train.epochs": ("train.length",),
    "train.length": ("train.epochs",),
    "fraction": ("prune.densities", "prune.target"),
    "prune.densities": ("fraction", "prune.target", "levels"),
    "prune.target": ("fraction", "prune.densities"),
}
"""Keys that an override replaces, because they set the same thing in another form."""


def read(target: str) -> dict[str, Any]:
    """The raw study of a preset or a TOML file. ``extends = "demo"`` starts from a preset's keys, group by group."""
    path = Path(target)
    if path.suffix == ".toml" or _is_file(path):
        if not _is_file(path):
            raise ConfigError(f"there is no study file {target}")
        source = path
    elif target in preset_names():
        source = PRESETS / f"{target}.toml"
    else:
        raise ConfigError(f"{target!r} is neither a study file (.toml) nor a preset{nearest(target, preset_names())}")
    return {"name": source.stem, **_extended(source)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _extended(source: Path) -> dict[str, Any]:
    try:
        with source.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        if LONG_KEY.search(data.translate(None, b" \t\r")):
            raise ValueError(f"a key has more than {DEEPEST} parts")
        document = bounded(tomllib.loads(data.decode()), numbers=False)
    except RecursionError:
        raise ConfigError(f"{source.name} is not valid TOML: it is too many levels deep") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError too
        raise ConfigError(f"{source.name} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or error}") from error
    if not document:
        raise ConfigError(f"{source.name} is empty: a study names at least its network, data and levels")
    base = document.pop("extends", None)
    if base is None:
        return document
    if base not in preset_names():
        raise ConfigError(f"{source.name}: extends names no preset: {base!r}{nearest(str(base), preset_names())}")
    return merged({key: value for key, value in read(base).items() if key != "name"}, document)


def preset_names() -> list[str]:
    """The names of the presets."""
    return sorted(p.stem for p in PRESETS.glob("*.toml"))


def override(document: dict[str, Any], *assignments: str) -> dict[str, Any]:
    """A raw study with ``a.b=value`` set, in order; a value is TOML, or text if it is not valid TOML.

    ``geometry.NAME=none`` leaves a measurement out.

    >>> override({"train": {"lr": 0.1}}, "train.lr=0.05", "data.name=cifar10")
    {'train': {'lr': 0.05}, 'data': {'name': 'cifar10'}}
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or len(keys) > DEEPEST:
            raise ConfigError(f"an override is written key=value, got {assignment[:80]!r}")
        document = placed(
            _unsaid(document, ".".join(keys)), keys, _value(text, block=len(keys) == 2 and keys[0] == "geometry"), path
        )
    return document


def merged(document: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A raw study with keys replaced; those in ``train``, ``data``, ``model`` and ``prune`` one by one."""
    said: list[tuple[list[str], Any]] = []
    for name, value in keys.items():
        inside = name in GROUPS and isinstance(value, Mapping)
        said += [([name, key], inner) for key, inner in value.items()] if inside else [([name], value)]
    out = dict(document)
    for path, _ in said:
        out = _unsaid(out, ".".join(path))
    for path, value in said:
        out = placed(out, path, value, ".".join(path))
    return out


def _unsaid(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A raw study without the keys that setting ``path`` replaces (`REPLACES`)."""
    out = dict(document)
    for other in REPLACES.get(path, ()):
        head, _, rest = other.partition(".")
        if not rest:
            out.pop(other, None)
        elif isinstance(inner := out.get(head), Mapping):
            out[head] = {k: v for k, v in inner.items() if k != rest}
    return out


def placed(document: Mapping[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    """The document with a value under a path of keys; missing groups are created.

    Raises ConfigError, which quotes ``path``, if one of the keys is not a group.
    """
    head, *rest = keys
    if not rest:
        return {**document, head: value}
    inner = document.get(head, {})
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{path!r} cannot be set: {head!r} is not a group of keys")
    return {**document, head: placed(inner, rest, value, path)}


def _value(text: str, *, block: bool = False) -> Any:
    if block and text.strip() == "none":
        return None
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except (RecursionError, ValueError) as error:  # levels, or digits
        raise ConfigError(f"{text[:40]}... cannot be set: {str(error).split(';')[0]}") from None
    return found["value"] if len(found) == 1 else text
