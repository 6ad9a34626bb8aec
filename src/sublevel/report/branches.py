"""The branches of a study in the few words that they are registered with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel.claims.branches import Branches
from sublevel.report.findings import nested
from sublevel.report.frame import Frame
from sublevel.report.palette import known_first


def described(summary: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Branch -> its ``summary`` and what it may ``cite``, as the summary of a run has them.

    >>> described({"branches": {"oneshot": {"summary": "one-shot pruning"}, "imp": {"summary": ""}}})
    {'oneshot': {'summary': 'one-shot pruning', 'cite': ''}}
    """
    found = nested(summary, "branches")
    texts = {name: {key: str(nested(found, name, key) or "") for key in ("summary", "cite")} for name in found or ()}
    return {name: text for name, text in texts.items() if text["summary"]}


def glossary(levels: Frame, words: Mapping[str, Mapping[str, str]]) -> str:
    """The branches of a table of levels in words: those that have a summary, and variants of those.

    >>> import pandas as pd
    >>> rows = {"branch": ["dense", "imp", "oneshot", "mine"], "base": ["dense", "imp", "oneshot", "imp"], "level": 1}
    >>> glossary(pd.DataFrame(rows | {"density": [1, 0.8, 0.8, 0.1]}), {"oneshot": {"summary": "pruning at once"}})
    'oneshot: pruning at once; mine: as imp, 90% of the weights at a level'
    """
    known, lines = Branches(levels), []
    for name in known_first(known.variants):
        mine = known.variants[name]
        main = known.variants[known.label(mine.base)]
        text = words.get(mine.base, {}).get("summary", "")
        if name != main.label and main.label != "dense":
            more = [f"{100 * mine.fraction:.3g}% of the weights at a level"] if known.other_fraction(name) else []
            more += ["each level in a data order of its own"] * (mine.order == "independent" != main.order)
            more += [f"by {mine.criterion}"] * (mine.criterion not in ("", main.criterion))
            text = f"as {mine.base}, {', '.join(more)}" if more else ""
        lines += [f"{name}: {text}"] if text else []
    return "; ".join(lines)
