"""The manifest of a run, ``study.json`` in its folder. It is untrusted, so its shape is checked first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sublevel.engine.graph import Graph, Outcome
from sublevel.errors import ConfigError, StoreError, SublevelError
from sublevel.foreign import LARGEST, read_json
from sublevel.problem import Problem
from sublevel.study.machine import machine, versions

MANIFEST = "study.json"

Status = Literal["done", "failed", "skipped", "waiting"]
SHORT = (10_000, 1_000, 200)
"""Characters to which the messages of failed cells are cut, one after the other, until the manifest can be read."""

EXPECTED = {
    "string": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "names and values",
    "model": "names and values",
}
"""The expected kind of value, by the type in the name of pydantic's error."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    """A group of the manifest. Types are strict; keys of other versions are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Error(_Part):
    kind: str = ""
    message: str = ""


class _Cell(_Part):
    cell: str
    kind: str
    labels: dict[str, Any]
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    status: Status
    error: _Error = _Error()


class _Named(_Part):
    name: str


class _Study(_Part):
    name: str
    levels: Count
    seeds: list[int]
    data: _Named
    model: _Named


class _Model(_Part):
    name: str
    parameters: Count
    prunable: Count


class _Spent(_Part):
    cells: dict[str, Seconds]


class _About(_Part):
    data: dict[str, Any]
    model: _Model
    cells: dict[Status, Count]
    seconds: _Spent
    notes: list[str] = []
    branches: dict[str, dict[str, str]] = {}
    versions: dict[str, Any] = {}
    hardware: dict[str, Any] = {}


class _Source(_Part):
    name: str | None = None
    root: str | None = None
    object: str | None = None


class _Problem(_Part):
    model: _Named | str  # a text before version 0.2
    data: _Source
    loss: str
    loop: str | None = None
    stored: str | None = None


class _LastRun(_Part):
    seconds: Seconds
    computed: Count
    damaged: list[str]


class _Manifest(_Part):
    study: _Study
    store: str
    cells: list[_Cell]
    numerics: dict[str, str | int | float | bool | None]
    problem: _Problem | None
    about: _About
    last_run: _LastRun


def about_cells(outcomes: Collection[Outcome]) -> dict[str, Any]:
    """The number of cells by status, and the seconds by kind of cell, each key once."""
    seconds: dict[str, float] = {}
    for o in {o.key: o for o in outcomes if o.key}.values():
        seconds[o.node.kind] = seconds.get(o.node.kind, 0.0) + o.entry.get("seconds", 0.0)
    counts = Counter("done" if o.good else o.status for o in outcomes)
    return {
        "cells": {status: counts[status] for status in get_args(Status)},
        "seconds": {"cells": {kind: round(s, 3) for kind, s in sorted(seconds.items())}},
    }


def cell(outcome: Outcome) -> dict[str, Any]:
    """The manifest's record of a cell."""
    node = outcome.node
    status = "done" if outcome.good else outcome.status
    found = {"cell": node.id, "kind": node.kind, "labels": dict(node.labels), "key": outcome.key, "status": status}
    return found if outcome.good else found | {"error": outcome.error}


def text(document: Mapping[str, Any]) -> str:
    """The manifest as JSON. Where it would be too large to be read again, the messages of failed cells are cut."""
    out = _dumped(document)
    for longest in SHORT:
        if len(out) <= LARGEST:
            break
        out = _dumped({**document, "cells": [_cut(each, longest) for each in document["cells"]]})
    return out


def check_size(study: Mapping[str, Any], problem: Problem, graph: Graph) -> None:
    """ConfigError for a study whose manifest would be too large to be read, even if every cell fails."""
    error = {"kind": "x" * 20, "message": "x" * min(SHORT)}
    cells = [cell(Outcome(node, "waiting", "0" * 64, error=error)) for node in graph.nodes.values()]
    size = len(_dumped({"study": study, "about": about_problem(problem), "cells": cells})) + 2**16
    if size > LARGEST:
        raise ConfigError(
            f"the study has {len(cells):,} cells: its {MANIFEST} would have {size:,} bytes, and one of more than "
            f"{LARGEST:,} is not read; split the study, which may share a store"
        )


def _dumped(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _cut(cell: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """A cell of the manifest with a short message and without its traceback."""
    if "error" not in cell:
        return dict(cell)
    error = cell["error"]
    message = error.get("message", "")
    short = message if len(message) <= longest else f"{message[: longest - 3]}..."
    return {**cell, "error": {"kind": error.get("kind", ""), "message": short}}


def about_problem(problem: Problem) -> dict[str, Any]:
    """The manifest's record of the data and the network."""
    splits, space = problem.splits, problem.space
    return {
        "data": {
            "origin": splits.origin,
            "classes": list(splits.classes),
            "input_shape": splits.input_shape,
            **{name: len(part) for name, part in splits.parts.items()},
            "mean": list(splits.mean),
            "std": list(splits.std),
            "digest": splits.digest,
        },
        "model": {
            "name": problem.name,
            "parameters": space.dim,
            "prunable": int(space.prunable.sum()),
            "prunable_by_kind": {kind: f"{some} of {every}" for kind, (some, every) in space.kinds.items()},
        },
    }


def made_with(folder: Path, computed: int, device: str) -> dict[str, Any]:
    """Versions and hardware of the last run that computed something, on the study's ``device``.

    If nothing was ``computed``, those of the earlier manifest stay.
    """
    if not computed:
        with suppress(SublevelError, KeyError):
            about = read(folder)["about"]
            return {name: about[name] for name in ("versions", "hardware")}
    return {"versions": versions(), "hardware": machine(device)}


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises ConfigError if the folder holds no run, StoreError if its manifest cannot be read or is invalid.
    """
    path = folder / MANIFEST
    again = "run the study again to make it anew"
    try:
        document = read_json(path)
        _Manifest.model_validate(document)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder} is not the folder of a run: it has no {MANIFEST}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise StoreError(f"{path} is damaged: {_said(document, error.errors()[0])}; {again}") from None
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}; {again}") from None
    return document


def _said(document: Any, error: Any) -> str:
    absent = set(_Manifest.model_fields) - set(document) if isinstance(document, dict) else set(_Manifest.model_fields)
    if absent:
        return f"it has no {', '.join(sorted(absent))}"
    where = ".".join(map(str, error["loc"])) or "it"
    if error["type"] == "missing":
        return f"it has no {where}"
    got = ascii(error["input"])
    return f"{where} is {got if len(got) <= 70 else f'{got[:66]}...'}, expected {_expected(error)}"


def _expected(error: Any) -> str:
    match error["type"]:
        case "string_pattern_mismatch":
            return "a key of 64 hexadecimal digits"
        case "greater_than_equal":
            return "0 or more"
        case "literal_error":
            return str(error["ctx"]["expected"])
        case kind:
            return EXPECTED.get(kind.rpartition("_")[0], "another kind of value")
