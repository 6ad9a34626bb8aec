"""The study that measures checkpoints trained elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sublevel.errors import ConfigError

GEOMETRY: dict[str, Any] = {
    "paths": {"size": 2000},
    "spectra": {"size": 1000, "spaces": ["own", "all"]},
    "density": {"size": 1000},
    "overlaps": {"size": 1000},
    "volumes": {"size": 1000, "methods": ["logdet", "importance"]},
    "topology": {"size": 1000},
}
"""What is measured unless ``--set geometry...`` says otherwise."""


def document(
    checkpoints: Sequence[Path], masks: Sequence[Path], *, model: str, data: str, root: str | None, name: str
) -> dict[str, Any]:
    """The raw study of some checkpoints, each named by its file. ConfigError where masks do not match in number."""
    if not checkpoints:
        raise ConfigError("name at least one checkpoint to measure")
    if len(masks) not in (0, 1, len(checkpoints)):
        raise ConfigError(f"{len(masks)} masks for {len(checkpoints)} checkpoints: give none, one, or one for each")
    own = list(masks) * len(checkpoints) if len(masks) == 1 else masks or [None] * len(checkpoints)
    given = [
        {"name": _name(path, checkpoints), "path": str(path)} | ({"mask": str(mask)} if mask else {})
        for path, mask in zip(checkpoints, own, strict=True)
    ]
    source = {"name": data} | ({"root": root} if root is not None else {})
    return {"name": name, "given": given, "model": {"name": model}, "data": source, "geometry": GEOMETRY}


def _name(path: Path, among: Sequence[Path]) -> str:
    """The file's name without its ending, or the whole path where two files share it."""
    return path.stem if sum(other.stem == path.stem for other in among) == 1 else str(path)
