"""Studies as they are written, before they are checked: presets, TOML files, and keys set over them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sublevel.errors import ConfigError, nearest

PRESETS = Path(__file__).parent.parent / "presets"


def read(target: str) -> dict[str, Any]:
    """The raw study of a preset or a TOML file. ``extends = "demo"`` begins from a preset's keys, group by group."""
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
        document = tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source.name} is not valid TOML: {error}") from error
    if not document:
        raise ConfigError(f"{source.name} is empty: a study says at least which network, data and levels it is about")
    base = document.pop("extends", None)
    if base is None:
        return document
    if base not in preset_names():
        raise ConfigError(f"{source.name}: extends names no preset: {base!r}{nearest(str(base), preset_names())}")
    return merged(_without(read(base), "name"), document)


def _without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k != key}


def preset_names() -> list[str]:
    """The studies that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.toml"))


def override(document: dict[str, Any], assignment: str) -> dict[str, Any]:
    """A raw study with ``a.b=value`` set; the value is TOML, or text where it is none.

    >>> override(override({"train": {"lr": 0.1}}, "train.lr=0.05"), "data.name=cifar10")
    {'train': {'lr': 0.05}, 'data': {'name': 'cifar10'}}
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"an override is written key=value, got {assignment!r}")
    return _with(document, keys, _value(text), path)


def merged(document: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A raw study with keys replaced; those in ``train``, ``data`` and ``model`` one by one."""
    out = dict(document)
    for name, value in keys.items():
        group = value.items() if name in ("train", "data", "model") and isinstance(value, Mapping) else None
        if group is None:
            out = _with(out, [name], value, name)
        for key, inner in group or ():
            out = _with(out, [name, key], inner, f"{name}.{key}")
    return out


def _with(document: Mapping[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    head, *rest = keys
    out = dict(document)
    if not rest:
        if head in ("epochs", "length"):  # two words for one thing: the last one counts
            out.pop("length", None)
            out.pop("epochs", None)
        return {**out, head: value}
    inner = out.get(head, {})
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{path!r} cannot be set: {head!r} is not a group of keys")
    return {**out, head: _with(inner, rest, value, path)}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
