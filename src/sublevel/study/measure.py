"""Measurements: for every solution of a study, the cells that dissect it.

A label of a measuring node holds the columns that identify its rows in the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublevel.prune.select import counts
from sublevel.space import Space
from sublevel.study.builder import Builder, Solution
from sublevel.study.graph import Graph, Node, Ref
from sublevel.study.spec import LegsSpec, PathsSpec, SpectraSpec, StudySpec, Where

End = tuple[Ref, Ref | None]
"""A point and the mask to project it with."""


def add(
    spec: StudySpec, space: Space, graph: Graph, solutions: list[Solution], builders: Mapping[int, Builder]
) -> None:
    """Add every measuring node that the study asks for."""
    for s in solutions:
        _solution(graph, s, builders[s.seed])
    for s in solutions:
        if s.level:
            _legs(spec, space, graph, s)
            _paths(spec, space, graph, s, builders[s.seed])
        _spectra(spec, space, graph, s, builders[s.seed])


def _admits(spec: StudySpec, where: Where | None, s: Solution) -> bool:
    return where is not None and where.admits(s.branch, s.level, spec.seeds.index(s.seed))


def _name(kind: str, s: Solution, *rest: str) -> str:
    return "/".join([kind, *rest, s.branch, f"L{s.level}", f"s{s.seed}"])


def _solution(graph: Graph, s: Solution, b: Builder) -> None:
    graph.add(Node(_name("solution", s), "solution", {"point": s.end, "mask": s.mask}, s.labels))
    reference = b.memo.get(("imp", b.spec.order, s.level))
    if s.level and reference is not None:
        inputs = {"mask": s.mask, "reference": reference.mask}
        graph.add(Node(_name("overlap", s), "overlap", inputs, s.labels))


def _legs(spec: StudySpec, space: Space, graph: Graph, s: Solution) -> None:
    where: LegsSpec | None = spec.measure.legs
    if where is None or not _admits(spec, where, s):
        return
    legs: dict[str, tuple[End, End]] = {"retrain": ((s.start, s.mask), (s.end, None))}
    if s.pruned is not None:
        legs["prune"] = ((s.pruned, None), (s.pruned, s.mask))
    for leg, (a, b) in legs.items():
        for policy in _policies(space, where.buffers):
            inputs = {**_ends(a, b), "size": where.size, "policy": policy}
            graph.add(Node(_name("leg", s, leg, policy), "leg", inputs, {**s.labels, "leg": leg}))


def _policies(space: Space, asked: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without statistics all buffer policies are one."""
    return asked if space.statistics else asked[:1]


def _ends(a: End, b: End) -> dict[str, Any]:
    return {"a": a[0], "a_mask": a[1], "b": b[0], "b_mask": b[1]}


def _paths(
    spec: StudySpec,
    space: Space,
    graph: Graph,
    s: Solution,
    b: Builder,
) -> None:
    paths: PathsSpec | None = spec.measure.paths
    if paths is None:
        return
    dense = b.dense()
    before = dense if s.level == 1 else b.memo.get((s.branch, s.order, s.level - 1))
    kinds: list[tuple[str, int, End, End, Any]] = []
    if before is not None and _admits(spec, paths.successive, s):
        nested = s.base != "random-prune"
        kinds.append(("successive", s.level - 1, (before.end, None), (s.end, None), s.level - 1 if nested else "all"))
    if _admits(spec, paths.to_dense, s):
        kinds.append(("to-dense", 0, (dense.end, None), (s.end, None), "all"))
    if _admits(spec, paths.from_start, s):
        kinds.append(("from-start", s.level, (s.start, s.mask), (s.end, None), s.level))
    if _admits(spec, paths.orders, s):
        kinds.append(("orders", s.level, (s.end, None), (b.sibling(s).end, None), s.level))
    for kind, level_from, start, end, subspace in kinds:
        labels = {
            "path": kind,
            "branch": s.branch,
            "level_from": level_from,
            "level_to": s.level,
            "seed": s.seed,
            "order": s.order,
            "subspace": "all" if subspace == 0 else subspace,
        }
        for policy in _policies(space, paths.buffers):
            inputs = {
                **_ends(start, end),
                "points": paths.points,
                "refine": paths.refine,
                "size": paths.size,
                "policy": policy,
            }
            graph.add(Node(_name("segment", s, kind, policy), "segment", inputs, labels))


def _spectra(spec: StudySpec, space: Space, graph: Graph, s: Solution, b: Builder) -> None:
    wanted: SpectraSpec | None = spec.measure.spectra
    if wanted is None or not _admits(spec, wanted, s):
        return
    can_go_on = sum(counts(space, spec.fraction, s.level + 1, spec.scope)) > 0
    for name in wanted.spaces:
        if name == "next" and not can_go_on:
            continue
        masks = {
            "own": lambda: s.mask,
            "all": lambda: None,
            "next": lambda: b.prune(s.end, s.mask, s.level + 1, f"next/{s.branch}"),
        }
        inputs = {
            "point": s.end,
            "mask": masks[name](),
            "alive": s.mask if wanted.exclude_dead else None,
            "k": wanted.k,
            "size": wanted.size,
            "policy": wanted.policy,
            "tolerance": wanted.tolerance,
            "steps": wanted.steps,
            "restarts": wanted.restarts,
            "negative": wanted.negative,
        }
        graph.add(Node(_name("spectrum", s, name), "spectrum", inputs, {**s.labels, "space": name}))
