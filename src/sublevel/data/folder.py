"""An image folder, or a tar or zip of one: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*``."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sublevel.cache import cache_dir
from sublevel.data.images import Budget, decode, stack
from sublevel.data.sources import Dataset, source
from sublevel.data.splits import stratified
from sublevel.data.trees import listing_digest, read_files
from sublevel.errors import ConfigError, DataError
from sublevel.files import replacing
from sublevel.rng import generator

_FORMAT = 1  # of the cached file, and of the way images are decoded
_SPLITS = {"train", "test", "val", "valid", "validation"}


@source("folder")
def folder(
    root: Path | None, *, channels: int | None = None, size: int | None = None, test_fraction: float = 0.2
) -> Dataset:
    """Read a folder of images, or an archive of one, in the order of the relative paths.

    ``channels`` is 1 (grey) or 3 (colour), by default 3 if any image is in colour. ``size`` resizes every image to
    ``size x size``. If the tree has no train and test folders, ``test_fraction`` of every class is held out for test,
    always the same images. Folders above ``train`` are ignored. Decoded images are cached. Raises `DataError` if there
    are no images or only one class, or for an unreadable image, unequal sizes, or classes that differ between train and
    test.
    """
    _check_options(channels, size, test_fraction)
    if root is None or not root.exists():
        got = "nothing" if root is None else f"{root}, which does not exist"
        raise DataError(
            "data source 'folder': data.root must be a folder, or a tar or zip of one, with train/<class>/* "
            f"and test/<class>/*, or <class>/*; got {got}"
        )
    key = listing_digest(root)
    paths, x = _cached(root, key, channels, size)
    what = f"archive {root.name}, sha256 {key}" if root.is_file() else f"folder {root.resolve().name}"
    origin = f"{len(paths):,} images of the {what}"
    return _assemble(paths, x, test_fraction, origin)


def _check_options(channels: int | None, size: int | None, test_fraction: float) -> None:
    if channels not in (None, 1, 3):
        raise ConfigError(f"data.options.channels is {channels!r}; allowed: 1 (grey), 3 (colour)")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ConfigError(f"data.options.size is {size!r}; allowed: a whole number of pixels, at least 1")
    if not isinstance(test_fraction, float) or not 0 < test_fraction < 1:
        raise ConfigError(f"data.options.test_fraction is {test_fraction!r}; allowed: a fraction between 0 and 1")


def _decode_all(root: Path, channels: int | None, size: int | None) -> tuple[list[str], Tensor]:
    budget = Budget()
    images = {name: decode(content, name, channels, size, budget) for name, content in read_files(root)}
    if not images:
        raise DataError(f"{root} has no image that Pillow can read; expected train/<class>/* and test/<class>/*")
    paths = sorted(images, key=lambda name: name.split("/"))
    return paths, stack(paths, [images.pop(name) for name in paths])


def _cached(root: Path, key: str, channels: int | None, size: int | None) -> tuple[list[str], Tensor]:
    identity = json.dumps([_FORMAT, key, channels, size])
    path = cache_dir() / "folder" / f"{hashlib.sha256(identity.encode()).hexdigest()}.safetensors"
    known = _read_cache(path)
    if known is not None:
        return known
    paths, x = _decode_all(root, channels, size)
    _write_cache(path, paths, x)
    return paths, x


def _checksum(x: Tensor) -> str:
    return f"{zlib.crc32(x.numpy().data):08x}"


def _read_cache(path: Path) -> tuple[list[str], Tensor] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            x, paths = file.get_tensor("x"), file.get_tensor("paths")
            whole = (file.metadata() or {}).get("crc32") == _checksum(x)
        return (json.loads(bytes(paths.numpy())), x) if whole else None
    except (OSError, SafetensorError, ValueError):
        return None


def _write_cache(path: Path, paths: list[str], x: Tensor) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    listed = torch.from_numpy(np.frombuffer(json.dumps(paths).encode(), np.uint8).copy())
    try:
        with replacing(path) as temporary:
            save_file({"x": x, "paths": listed}, temporary, metadata={"crc32": _checksum(x)})
    except (OSError, SafetensorError):
        return  # the cache only saves time


def _assemble(paths: list[str], x: Tensor, test_fraction: float, origin: str) -> Dataset:
    parts, labels = _layout(paths)
    classes, y = _classes(labels)
    if parts is None:
        test = stratified(y, round(len(y) * test_fraction), generator(0, "split:folder"))
        hint = f"too few images to hold out {test_fraction} of each class (data.options.test_fraction)"
    else:
        test = torch.tensor([part == "test" for part in parts])
        hint = "both must have the same class folders"
    named = {"train": set(y[~test].tolist()), "test": set(y[test].tolist())}
    for here, other in (("train", "test"), ("test", "train")):
        if only := sorted(named[here] - named[other]):
            lacking = ", ".join(classes[label] for label in only)
            raise DataError(f"classes in {here} but not in {other}: {lacking}; {hint}")
    return Dataset("folder", x[~test], y[~test], x[test], y[test], classes, origin)


def _layout(paths: list[str]) -> tuple[list[str] | None, list[str]]:
    """The part (train or test; None if the tree has no parts) and the class of every image."""
    parts = _strip([path.split("/") for path in paths])
    tops = {p[0] for p in parts}
    split = "train" in tops and tops <= _SPLITS
    if split and tops != {"train", "test"}:
        raise DataError(f"the top folders are {', '.join(sorted(tops))}; allowed: train and test, or the classes")
    labels = [p[split] if len(p) > 1 + split else "" for p in parts]
    if "" in labels:
        raise DataError(f"image {paths[labels.index('')]} is in no class folder; expected <class>/<image>")
    return [p[0] for p in parts] if split else None, labels


def _strip(parts: list[list[str]]) -> list[list[str]]:
    """Drop folders that all paths share, down to the folder of the splits or of the classes."""
    tops = {p[0] for p in parts}
    if len(tops) == 1 and tops.isdisjoint(_SPLITS) and min(len(p) for p in parts) > 2:
        return _strip([p[1:] for p in parts])
    return parts


def _classes(labels: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataError(
            f"there is one class only, {', '.join(map(repr, classes))}; at least two class folders are needed"
        )
    number = {name: label for label, name in enumerate(classes)}
    return classes, torch.tensor([number[name] for name in labels])
