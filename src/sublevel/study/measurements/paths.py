"""Segments between solutions, and the barriers on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sublevel.geometry import paths
from sublevel.geometry.distance import displacement
from sublevel.prune.scores import DRAWS
from sublevel.study.blocks import PathsSpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.graph import Node
from sublevel.study.measurements.base import End, Scene, ends, measurement, name, used

Found = tuple[str, int, End, End, Any]
"""Kind of path, the level it begins at, its ends, and the level whose mask contains it ("all": R^D)."""


@measurement("paths")
def segments(scene: Scene, block: PathsSpec) -> None:
    """From one level to the next, to the dense solution, from the rewound start, between data orders."""
    for s in scene.solutions:
        for kind, level_from, start, end, subspace in _of(scene, block, s) if s.level else ():
            labels = {
                "path": kind,
                "branch": s.branch,
                "level_from": level_from,
                "level_to": s.level,
                "seed": s.seed,
                "order": s.order,
                "subspace": "all" if subspace == 0 else subspace,
            }
            _add(scene, block, f"segment/{kind}/{{}}{name('', s)}", ends(start, end), labels)
    _instability(scene, block)


def _of(scene: Scene, block: PathsSpec, s: Solution) -> Iterator[Found]:
    b = scene.builders[s.seed]
    dense = b.dense()
    before = dense if s.level == 1 else b.memo.get((s.branch, s.order, s.level - 1))
    if before is not None and scene.admits(block.successive, s):
        drawn = s.base == "oneshot" and scene.spec.criterion in DRAWS
        nested = s.base not in ("random-prune", "given") and not drawn
        yield "successive", s.level - 1, (before.end, None), (s.end, None), s.level - 1 if nested else "all"
    if scene.admits(block.to_dense, s):
        yield "to-dense", 0, (dense.end, None), (s.end, None), "all"
    if scene.admits(block.from_start, s):
        yield "from-start", s.level, (s.start, s.mask), (s.end, None), s.level
    if scene.admits(block.orders, s):
        yield "orders", s.level, (s.end, None), (b.sibling(s).end, None), s.level


def _instability(scene: Scene, block: PathsSpec) -> None:
    """The dense run's end against one that leaves it at step k for another data order."""
    wanted = block.instability
    for seed in scene.seeds(wanted.seeds) if wanted else ():
        b = scene.builders[seed]
        for step in sorted({d.steps(b.per_epoch) for d in wanted.steps} if wanted else ()):
            other = b.reordered(step)
            labels = {
                "path": "instability",
                "branch": "dense",
                "level_from": 0,
                "level_to": 0,
                "seed": seed,
                "order": b.order,
                "subspace": "all",
                "step": step,
            }
            both = ends((b.dense().end, None), (other.end, None))
            _add(scene, block, f"segment/instability/{{}}/step-{step}/s{seed}", both, labels)


def _add(scene: Scene, block: PathsSpec, called: str, both: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    for policy in scene.policies(block.buffers):
        inputs = {**both, "points": block.points, "refine": block.refine, "size": block.size, "policy": policy}
        scene.graph.add(Node(called.format(policy), "segment", inputs, labels))


@kernel("segment", 2)
def segment_cell(
    c: Context,
    *,
    a: str,
    a_mask: str | None,
    b: str,
    b_mask: str | None,
    points: int,
    refine: int,
    size: int | None,
    policy: str,
) -> Output:
    """The profile of a segment and its barriers, on the training and the test set."""
    distance = displacement(c.point(a, a_mask).theta, c.point(b, b_mask).theta).distance
    out = []
    for split in ("train", "test"):
        profile = measured_segment(
            c, (a, a_mask), (b, b_mask), points=points, refine=refine, size=size, policy=policy, split=split
        )
        out.append(
            {
                "split": split,
                "buffers": profile.policy,
                "distance": distance,
                "alphas": profile.alphas.tolist(),
                "profile_loss": profile.loss.tolist(),
                "profile_error": profile.error.tolist(),
                "loss": asdict(profile.barrier("loss")),
                "error": asdict(profile.barrier("error")),
            }
        )
    return Output({"segments": out})


def measured_segment(
    c: Context,
    a: tuple[str, str | None],
    b: tuple[str, str | None],
    *,
    points: int,
    refine: int,
    size: int | None,
    policy: str,
    split: str = "train",
) -> paths.Profile:
    """The profile of a segment between two stored points, each projected with its mask."""
    field = c.problem.field(split, size=size, policy="stored" if policy == "averaged" else policy)
    return paths.segment(field, c.point(*a), c.point(*b), points=points, refine=refine, buffers="averaged")


@rows("segment")
def segment_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``paths`` and ``profiles``."""
    for s in entry["values"]["segments"]:
        path = {**labels, "split": s["split"], "buffers": s["buffers"]}
        barriers = {
            f"{of}_{name}": s[of][key]
            for of in ("loss", "error")
            for name, key in (
                ("from", "start"),
                ("to", "end"),
                ("max", "maximum"),
                *((k, k) for k in ("alpha", "height", "barrier", "rise", "margin", "barrier_alpha", "barrier_margin")),
            )
        }
        yield "paths", {**path, **barriers, "points": len(s["alphas"]), "distance": s["distance"]}
        for alpha, loss, error in zip(s["alphas"], s["profile_loss"], s["profile_error"], strict=True):
            yield "profiles", {**path, "alpha": alpha, "loss": loss, "error": error}


@cost("segment")
def segment_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """An evaluation of both splits at every point, twice where statistics are computed anew."""
    again = 2 if inputs["policy"] == "recomputed" else 1
    both = used(inputs, sizes) + used(inputs, sizes, "test")
    return again * both * (inputs["points"] + 6 * inputs["refine"]) / 3
