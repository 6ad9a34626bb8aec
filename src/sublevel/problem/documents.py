"""A problem as JSON, from which another process builds it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublevel._types import Tensor
from sublevel.data import own
from sublevel.problem import identity

if TYPE_CHECKING:
    from sublevel.problem.problem import Problem


def portable(p: Problem) -> bool:
    """Whether all code that makes the problem is found by its name elsewhere."""
    code = [p.model, p.loss, *([] if p.loop is None else [p.loop])]
    return not callable(p.prunable) and all(map(identity.importable, code))


def described(p: Problem, put: Callable[[dict[str, Tensor]], str]) -> dict[str, Any]:
    """The problem's fields as JSON; ``put`` stores data of one's own and returns their digest."""
    given = p.train is not None
    named = {"name": p.data, "root": None if p.root is None else str(Path(p.root).resolve())}
    return {
        "model": p.name,
        "options": dict(p.options),
        "data": {"object": put(own.tensors(p.dataset))} if given else named,
        "data_options": dict(p.data_options),
        "loss": identity.path(p.loss),
        "loop": None if p.loop is None else identity.path(p.loop),
        "prunable": [p.prunable] if isinstance(p.prunable, str) else p.prunable,
        "validation": p.validation,
        "train_size": p.train_size,
        "test_size": p.test_size,
        "mean": p.mean and list(p.mean),
        "std": p.std and list(p.std),
        "version": p.version,
        "device": p.device,
        "dtype": p.dtype,
    }


def fields(document: Mapping[str, Any], get: Callable[[str], dict[str, Tensor]] | None) -> dict[str, Any]:
    """The way back from `described`; ``get`` loads stored data by digest, and without it those given are left out."""
    rest = {name: value for name, value in document.items() if name != "data"}
    source = document["data"]
    if "object" not in source:
        return {**rest, "data": source["name"], "root": source["root"]}
    if get is None:
        return {**rest, "data": "own"}
    stored = get(source["object"])
    train, test = ((own.inputs_in(stored, split), stored[f"{split}_y"]) for split in ("train", "test"))
    return {**rest, "train": train, "test": test}
