"""A preset with fewer levels: what it asks for at later levels is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sublevel.study.documents import preset_names, read
from sublevel.study.solutions import label
from sublevel.study.spec import parse

SOLUTION = re.compile(r".+/(\d+)")
"""``branch/level``, as planes name a solution."""


def read_with_levels(target: str, levels: Any) -> tuple[dict[str, Any], str]:
    """The raw study of a target; of a preset with the levels up to ``levels``, and a sentence that says what went.

    Only a preset is shortened: a study file means what it says, and is refused where it names a level past its end.

    >>> document, said = read_with_levels("mini", 3)
    >>> document["branches"][2], said
    ({'name': 'oneshot', 'levels': [3]}, 'the preset mini without its levels after 3')
    """
    document = read(target)
    counted = isinstance(levels, int) and not isinstance(levels, bool) and levels >= 1
    if not counted or target not in preset_names():
        return document, ""
    short = shortened(document, levels)
    return short, "" if short == document else f"the preset {target} without its levels after {levels}"


def shortened(document: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """A raw study without what it asks for after a level: branches, blocks of ``geometry``, planes, densities.

    A branch or a block that is left with no level goes, and so do blocks that name no other branch.
    """
    written = document.get("branches", ())
    short = [b if isinstance(b, str) else _up_to(b, levels) for b in written]
    spec = parse(document)
    labels = [label(spec, b) for b in spec.branches]
    gone = {name for name, b in zip(labels, short, strict=False) if b is None}
    out = {**document, "levels": levels}
    if written:
        out["branches"] = [b for b in short if b is not None]
    if "densities" in document.get("prune", {}):
        out["prune"] = {**document["prune"], "densities": document["prune"]["densities"][:levels]}
        del out["levels"]
    if "geometry" in document:
        blocks = {name: _block(block, levels, gone) for name, block in document["geometry"].items()}
        out["geometry"] = {name: block for name, block in blocks.items() if block is not None}
    return out


def _up_to(choice: Mapping[str, Any], levels: int) -> dict[str, Any] | None:
    """A branch or a block with its ``levels`` up to one; None where none is left."""
    if not isinstance(choice.get("levels"), list):
        return dict(choice)
    found = [n for n in choice["levels"] if n <= levels]
    return {**choice, "levels": found} if found else None


def _block(block: Any, levels: int, gone: set[str]) -> Any:
    """A block of ``geometry``, and the groups of keys in it."""
    if isinstance(block, list):  # planes: names of solutions, or groups of them
        return [each for each in block if not _past(each, levels, gone)]
    if not isinstance(block, Mapping):
        return block
    found = _up_to(block, levels)
    if found is None:
        return None
    if isinstance(found.get("branches"), list) and found["branches"]:
        found["branches"] = [name for name in found["branches"] if name not in gone]
        if not found["branches"]:
            return None
    inner = {key: _block(value, levels, gone) if key not in ("branches", "levels") else value
             for key, value in found.items()}  # fmt: skip
    return {key: value for key, value in inner.items() if value is not None or block[key] is None}


def _past(each: Any, levels: int, gone: set[str]) -> bool:
    """Whether a plane names a solution that is no longer there."""
    names = each if isinstance(each, list) else [each]
    found = [SOLUTION.fullmatch(name) for name in names if isinstance(name, str)]
    return any(f is not None and (int(f[1]) > levels or f[0].rpartition("/")[0] in gone) for f in found)
