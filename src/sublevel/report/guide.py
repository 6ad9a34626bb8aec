"""The box for a reader who knows only what a ticket is called: what was found, how surely, and what to run next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sublevel.report.branches import described, glossary
from sublevel.report.findings import counted, nested
from sublevel.report.frame import Frame
from sublevel.report.numbers import estimate, in_points, percent, plain
from sublevel.report.verdicts import Verdicts

PRESETS = ("demo", "geometry-demo", "criteria", "rewind-sweep", "mini", "paper", "paper-vgg16")
MARGIN = 0.005
"""C1's margin where no verdict states one: half a point of test error, as a fraction."""
TICKET = (
    "A ticket is a sparse part of a network (a mask) with the weights that it had early in training. It wins if, "
    "trained from there, it does as well as the whole network. imp finds tickets by pruning the smallest weights, "
    "rewinding the rest, training again, and so on, level by level."
)


@dataclass(frozen=True)
class Guide:
    """Paragraphs with their titles, and the commands to run next with what each does."""

    paragraphs: list[tuple[str, str]]
    commands: list[tuple[str, str]]


def guide(tables: dict[str, Frame], summary: dict[str, Any], found: Verdicts) -> Guide:
    """The box: what a ticket is, where accuracy breaks, what holds and how surely, and what to run next."""
    paragraphs = [
        ("What is a ticket?", TICKET),
        ("What are the other branches?", glossary(tables["levels"], described(summary))),
        ("Where does accuracy break?", breaking_point(tables)),
        ("What holds?", holding(found)),
        ("How sure is this?", certainty(tables["levels"], found)),
    ]
    return Guide([(title, text) for title, text in paragraphs if text], commands(summary, tables["levels"]))


def breaking_point(tables: dict[str, Frame]) -> str:
    """The density down to which imp stays within C1's margin of dense, and where it no longer does, from C1's rows.

    At a level imp matches if the whole interval of its excess error lies below the margin, and no longer matches if the
    whole interval lies above it.
    """
    rows = tables["claims"]
    rows = rows[(rows["claim"] == "C1") & rows["comparison"].str.startswith("imp - dense")]
    rows = rows[rows["density"].notna()].sort_values("density", ascending=False)
    if rows.empty:
        return "This study does not say: it has no comparison of imp with the dense network."
    if not rows["high"].notna().any():
        return "One seed cannot say: its excess error over the dense network has no interval."
    unit = str(rows["unit"].iloc[0])
    scale = in_points(unit)[0]
    stated = tables["verdicts"]
    stated = stated[(stated["claim"] == "C1") & (stated["unit"] == unit)]["margin"].dropna()
    margin = float(stated.iloc[0]) if len(stated) else 100 * MARGIN / scale
    sentences = (
        _matching(rows, margin),
        _left(rows, margin, scale),
        f"The margin is {plain(margin * scale, 3)} points, and each level is read alone.",
    )
    return " ".join(filter(None, sentences))


def _matching(rows: Frame, margin: float) -> str:
    """Down to which density every level matches."""
    leading = rows["high"].lt(margin).cumprod().astype(bool)
    if not leading.any():
        return "Not even the first level is shown to match the dense network within the margin."
    last = rows[leading].iloc[-1]
    every = " (every level of this study)" if leading.all() else ""
    return f"imp is within the margin of the dense network down to {_at(last)}{every}."


def _left(rows: Frame, margin: float, scale: float) -> str:
    """The first density at which it has left the dense network, and what lies between."""
    gone = rows[rows["low"] > margin]
    if gone.empty:
        return "" if rows["high"].lt(margin).all() else "At no level is it shown to be worse by more than the margin."
    first = gone.iloc[0]
    more = estimate(float(first["effect"]), float(first["low"]), float(first["high"]), scale)
    between = rows[(rows["density"] > first["density"]) & (rows["high"] >= margin)]
    open_ = f" The {len(between)} levels before it are not decided." if len(between) > 1 else ""
    open_ = " The level before it is not decided." if len(between) == 1 else open_
    return f"At {_at(first)} imp no longer matches: its test error is {more} points higher.{open_}"


def _at(row: Any) -> str:
    level = f" (level {row['level']:g})" if math.isfinite(row["level"]) else ""
    return f"{percent(float(row['density']))} of the weights{level}"


def holding(found: Verdicts) -> str:
    """Which claims have which verdict, by name."""
    if not found.cards:
        return ""
    parts = [f"{name}: {', '.join(c.claim for c in found.cards if c.verdict == name)}" for name, _ in found.counts]
    if found.unmeasured:
        parts.append(f"not measured: {', '.join(claim for claim, _, _ in found.unmeasured)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def certainty(levels: Frame, found: Verdicts) -> str:
    """What the number of seeds allows, and that it is one network on one data set."""
    if levels.empty:
        return ""
    n = int(levels["seed"].nunique())
    smallest = (
        f" With {n} seeds no exact sign-flip test can go below p = {plain(2.0**-n, 3)} (one-sided)." if n > 1 else ""
    )
    holm = " C1 is tested by itself; the other primary claims are corrected by Holm's method." if found.cards else ""
    few = " That is too few to decide anything." if n < 3 else ""
    return (
        f"{counted(n, 'seed')} of one network on one data set: every interval is over seeds, and none speaks of other "
        f"networks.{few}{smallest}{holm}"
    )


def commands(summary: dict[str, Any], levels: Frame) -> list[tuple[str, str]]:
    """The next commands: more seeds of this study, then the same study of the user's network and images."""
    name = str(summary.get("name") or "")
    study = name if name in PRESETS else "my.toml"
    own = f"sublevel run {study} --set model.name=my_nets:build --set data.name=folder --set data.root=my-images"
    n = int(levels["seed"].nunique()) if len(levels) else 0
    more = [
        ("More seeds; nothing that is there is computed again:", f"sublevel run {study} --set seeds={max(5, n + 2)}")
    ]
    asked = nested(summary, "study", "given")
    return [
        *(more if 0 < n < 5 and not asked else []),
        ("This study on your own network (a function that builds it) and images (a folder per class):", own),
    ]
