"""What to run next, from what a study has and lacks, and the words that a reader may not know."""

from __future__ import annotations

from typing import Any

from sublevel.presets import MINUTES
from sublevel.report.branches import described, glossary
from sublevel.report.findings import nested
from sublevel.report.frame import Frame, Tables
from sublevel.report.prepare import only_measured

TICKET = (
    "A sparse part of a network (a mask) with the weights that it had early in training. It wins if, trained from "
    "there, it does as well as the whole network."
)
IMP = (
    "Iterative magnitude pruning: prune the smallest weights, rewind the others to an early step, train again, and so "
    "on, level by level."
)
THRESHOLD = (
    "The set of points with a loss of at most a threshold. The dense network's threshold is the loss that a new dense "
    "network stays below with a probability of 95%. Two solutions lie in one basin if a path in the set joins them."
)


def terms(levels: Frame, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Words with their meaning: ticket, IMP, sublevel set, and the branches of the study."""
    if only_measured(levels):
        return []
    branches = glossary(levels, described(summary))
    words = [("Ticket", TICKET), ("IMP", IMP), ("Sublevel set, basin", THRESHOLD), ("Branches", branches)]
    return [(word, text) for word, text in words if text]


def next_steps(tables: Tables, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(what for, command): more seeds below five, a plane where there is none, then a network of your own."""
    name, levels = str(summary.get("name") or ""), tables["levels"]
    if only_measured(levels) or levels.empty:
        return []
    n, last = int(levels["seed"].nunique()), int(levels["level"].max())
    more, plane = max(5, n + 2), f'[["dense","imp/{max(1, last // 3)}","imp/{last}"]]'
    python = nested(summary, "study", "data", "name") == "own"
    study = name if name in MINUTES else "my.toml"
    steps = []
    if n < 5:
        command = f"sl.Study(..., seeds={more})" if python else f"sublevel run {study} --set seeds={more}"
        steps.append(("More seeds (finished cells are kept)", command))
    if tables["planes"].empty and last > 1 and (levels["branch"] == "imp").any():
        through = f"--set 'geometry.planes.through={plane}'"
        key = f'sl.Study(..., geometry={{"planes": {{"through": {plane}}}}})'
        steps.append(("A plane through three solutions", key if python else f"sublevel run {study} {through}"))
    if python:
        return steps
    data = "--set data.name=folder --set data.root=my-images"
    own = f"sublevel run {study} --set model.name=my_nets:build {data}"
    return [*steps, ("Your own network and images (one folder for each class)", own)]
