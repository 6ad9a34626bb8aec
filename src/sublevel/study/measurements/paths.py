"""Segments between solutions, and the barriers on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any, Literal

from pydantic import Field

from sublevel.engine.graph import Node
from sublevel.errors import ConfigError, ModelError
from sublevel.geometry import paths
from sublevel.geometry.distance import displacement
from sublevel.geometry.paths import infer_spec, weight_matching
from sublevel.prune import score_function
from sublevel.space import Point, lerp
from sublevel.strict import Strict
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import End, Marks, Scene, ends, measurement, name
from sublevel.study.measurements.prunings import made_from
from sublevel.study.options import Chooses, Options, Where
from sublevel.tables import PATH, table
from sublevel.train.recipe import Duration

Found = tuple[str, int, End, End, Any]
"""Kind of path, the level of its start, its ends, and the level whose mask contains it ("all": R^D)."""


class SegmentOptions(Options):
    """The number of points of a segment, of refinements of the grid at its maxima, and of examples."""

    points: int = Field(default=21, ge=3)
    refine: int = Field(default=2, ge=0)
    size: int | None = Field(default=None, ge=1)


class InstabilitySpec(Strict):
    """Other data orders from ``steps`` of the dense run on, for the first ``seeds`` seeds (Frankle et al. 1912.05671).

    ``orders`` runs are trained in addition to the dense run, and a segment joins every two of the ``orders + 1`` ends.
    """

    steps: tuple[Duration, ...] = Field(min_length=1)
    orders: int = Field(default=1, ge=1)
    seeds: int | None = Field(default=None, ge=0)


class PathsSpec(SegmentOptions):
    """Segments: from one level to the next, to the dense solution, from the rewound start, between data orders.

    ``start_to_dense`` goes from the rewound start m * theta_k to the dense solution, ``aligned`` from the dense
    solution to one whose hidden units are permuted to match it. ``orders`` trains each solution again from its start
    under another data order; ``instability`` does so from the dense run's ``steps``.
    """

    buffers: Chooses[tuple[Literal["averaged", "recomputed", "batch"], ...]] = ("averaged", "recomputed")
    successive: Chooses[Where | None] = Where()
    to_dense: Chooses[Where | None] = Where()
    from_start: Chooses[Where | None] = None
    start_to_dense: Chooses[Where | None] = None
    aligned: Chooses[Where | None] = None
    orders: Chooses[Where | None] = None
    instability: Chooses[InstabilitySpec | None] = None


PATHS = table(
    "paths",
    PATH,
    """
    step: where a second data order began, for the instability of the dense run
    'pair': which two of its data orders: 0 is the dense run's own
    points, loss_from, loss_to, loss_max
    loss_alpha: where the maximum is
    loss_height: max - max(L0, L1)
    loss_barrier: max over alpha of L(alpha) - (1 - alpha) L0 - alpha L1
    loss_barrier_alpha: where that is
    loss_barrier_margin: what refining the grid added to it
    loss_rise: max - (L0 + L1) / 2
    loss_margin: what refining the grid added to the maximum
    error_from, error_to, error_max, error_alpha, error_height, error_barrier, error_barrier_alpha,
    error_barrier_margin, error_rise, error_margin, distance
    'subspace': the level whose mask contains the whole segment, "all" for R^D
    """,
)
"""One row per path: its ends, its maximum, and the barrier in every definition in use."""

PROFILES = table("profiles", PATH, "step, 'pair', alpha, loss, error")
"""The profile of each path."""


def cells(scene: Scene, block: PathsSpec) -> None:
    """Add the segments of every solution, the aligned ones, and those of the instability analysis."""
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
            _add(scene, block, (f"segment/{kind}/", name("", s)), ends(start, end), labels)
    _aligned(scene, block)
    _instability(scene, block)


def _of(scene: Scene, block: PathsSpec, s: Solution) -> Iterator[Found]:
    b = scene.builders[s.seed]
    dense = b.dense()
    before = dense if s.level == 1 else b.memo.get((s.branch, s.order, s.level - 1))
    if before is not None and scene.admits(block.successive, s):
        known, parent = made_from(scene, s)
        nested = known and (parent == before.mask or _of_one_point(scene, before, s))
        yield "successive", s.level - 1, (before.end, None), (s.end, None), s.level - 1 if nested else "all"
    if scene.admits(block.to_dense, s):
        yield "to-dense", 0, (dense.end, None), (s.end, None), "all"
    if scene.admits(block.from_start, s):
        yield "from-start", s.level, (s.start, s.mask), (s.end, None), s.level
    if scene.admits(block.start_to_dense, s) and s.base != "given":
        yield "start-to-dense", 0, (s.start, s.mask), (dense.end, None), "all"
    if scene.admits(block.orders, s):
        yield "orders", s.level, (s.end, None), (b.sibling(s).end, None), s.level


def _of_one_point(scene: Scene, before: Solution, s: Solution) -> bool:
    """Whether one criterion made both masks from one point, and its masks of one point are nested."""
    if before.mask is None or s.mask is None:
        return False
    made = [dict(scene.graph.nodes[mask.node].inputs) for mask in (before.mask, s.mask)]
    same = [{name: v for name, v in inputs.items() if name != "keep"} for inputs in made]
    ranked = same[0].get("point") is not None and "like" not in same[0] and same[0] == same[1]
    return ranked and score_function(same[0]["criterion"]).nests


def _aligned(scene: Scene, block: PathsSpec) -> None:
    """Segments to the dense solution after weight matching. Raises ConfigError if the hidden units are not known."""
    chosen = list(scene.admitted(block.aligned, dense=False))
    if chosen:
        try:
            infer_spec(scene.space)
        except ModelError as error:
            raise ConfigError(
                f"geometry.paths.aligned: the hidden units of this network are not known: {error}"
            ) from error
    for s in chosen:
        both = {"dense": scene.builders[s.seed].dense().end, "point": s.end}
        labels = {"path": "to-dense-aligned", "branch": s.branch, "level_from": 0, "level_to": s.level}
        labels |= {"seed": s.seed, "order": s.order, "subspace": "all"}
        _add(scene, block, ("segment/to-dense-aligned/", name("", s)), both, labels, kind="aligned-segment")


def _instability(scene: Scene, block: PathsSpec) -> None:
    """Segments between every two ends of the dense run and the runs that leave it for other data orders."""
    wanted = block.instability
    if wanted is None:
        return
    for seed in scene.seeds(wanted.seeds):
        b = scene.builders[seed]
        for step in sorted({d.steps(b.per_epoch) for d in wanted.steps}):
            runs = [b.dense(), *(b.reordered(step, n) for n in range(1, wanted.orders + 1))]
            for (i, one), (j, other) in combinations(enumerate(runs), 2):
                labels = {
                    "path": "instability",
                    "branch": "dense",
                    "level_from": 0,
                    "level_to": 0,
                    "seed": seed,
                    "order": b.order,
                    "subspace": "all",
                    "step": step,
                    "pair": f"{i}-{j}",
                }
                nth = "" if (i, j) == (0, 1) else f"-{i}-{j}"
                called = f"segment/instability{nth}/", f"/step-{step}/s{seed}"
                _add(scene, block, called, ends((one.end, None), (other.end, None)), labels)


def _add(
    scene: Scene,
    block: PathsSpec,
    called: tuple[str, str],
    both: Mapping[str, Any],
    labels: Mapping[str, Any],
    kind: str = "segment",
) -> None:
    for policy in scene.policies(block.buffers):
        inputs = {**block.document(), **both, "policy": policy}
        scene.graph.add(Node(policy.join(called), kind, inputs, labels))


def segment(
    c: Context, options: PathsSpec, *, a: str, a_mask: str | None, b: str, b_mask: str | None, policy: str
) -> Output:
    """The profile of a segment and its barriers, on the training and the test set."""
    start, end = c.point(a, a_mask), c.point(b, b_mask)
    return Output({"segments": _both_splits(c, start, end, options, policy)})


def aligned_segment(c: Context, options: PathsSpec, *, dense: str, point: str, policy: str) -> Output:
    """The same from the dense solution to a solution whose hidden units are permuted to match it."""
    start = c.point(dense)
    found = weight_matching(c.problem.space, start, c.point(point))
    matched = {"distance_before": found.distance_before, "rounds": found.rounds, "converged": found.converged}
    return Output({"segments": _both_splits(c, start, found.point, options, policy), "alignment": matched})


def _both_splits(c: Context, start: Point, end: Point, options: PathsSpec, policy: str) -> list[dict[str, Any]]:
    distance = displacement(start.theta, end.theta).distance
    out = []
    for split in ("train", "test"):
        profile = profile_between(c, start, end, options, policy, split=split)
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
    return out


def profile_between(
    c: Context,
    start: Point,
    end: Point,
    options: SegmentOptions,
    policy: str,
    *,
    split: str = "train",
    chord: bool = True,
) -> paths.Profile:
    """The profile of the segment between two points under a policy of the block; ``chord`` as in `paths.along`.

    Statistics that are averaged along a path are stored in its points.
    """
    field = c.problem.field(split, size=options.size, policy="stored" if policy == "averaged" else policy)
    grid = {"points": options.points, "refine": options.refine, "chord": chord}
    return paths.along(field, lambda alpha: lerp(start, end, alpha), **grid)


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
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


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """An evaluation of both splits at every point, twice where statistics are computed anew."""
    again = 2 if inputs["policy"] == "recomputed" else 1
    both = used(inputs, sizes) + used(inputs, sizes, "test")
    return again * both * (inputs["points"] + 6 * inputs["refine"]) / 3


def marks(block: PathsSpec) -> Marks:
    """The steps at which other data orders leave the dense run."""
    return {"geometry.paths.instability.steps": block.instability.steps} if block.instability else {}


cell("segment", 3, segment, options=PathsSpec, rows=rows, cost=cost)
cell("aligned-segment", 2, aligned_segment, options=PathsSpec, rows=rows, cost=cost)
measurement("paths", PathsSpec, cells, marks)
