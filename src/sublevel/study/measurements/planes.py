"""Planes through solutions: loss and error, the places of solutions and checkpoints, and persistence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import zip_longest
from math import isfinite
from typing import Any

import numpy as np
from pydantic import Field

from sublevel.engine.graph import Node, Ref
from sublevel.errors import ConfigError, nearest
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.planes import Mesh, adaptive_scan, eigen_plane, plane_through, random_plane
from sublevel.geometry.topology import persistence
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.options import Chooses, Options, Policy
from sublevel.tables import table

SEAM = "may be made by the seam where BatchNorm's statistics change from one solution's to the next's"
"""The reason why a feature of a plane may be an artifact."""


class PlanesSpec(Options):
    """Planes: through three solutions of one seed, along two random filter-normalised directions, or two eigenvectors.

    A solution is written ``dense`` or ``branch/level``. Cells whose corners differ by more than ``tolerance`` nats are
    refined ``refine`` times. Under the policy ``stored`` BatchNorm's statistics are those of the nearest solution, so
    the loss jumps half-way between two solutions, where the figure draws a line.
    """

    through: Chooses[tuple[tuple[str, str, str], ...]] = ()
    random: Chooses[tuple[str, ...]] = ()
    eigen: Chooses[tuple[str, ...]] = ()
    seeds: Chooses[int | None] = Field(default=1, ge=0)
    size: int | None = Field(default=None, ge=1)
    policy: Policy = "recomputed"
    points: int = Field(default=15, ge=3)
    refine: int = Field(default=1, ge=0)
    radius: float = Field(default=1.0, gt=0)
    tolerance: float = Field(default=0.5, gt=0)


PLANES = table("planes", (), "'plane', 'kind', seed, 'buffers', x, y, loss, error, level, 'reason'")
"""Train loss and error on planes; level = how often the grid was refined there."""

LANDMARKS = table("landmarks", (), "'plane', seed, 'name', 'branch', level, step, x, y, residual")
"""The places of solutions and checkpoints on a plane, and their distances from it."""

PERSISTENCE = table("persistence", (), "'plane', seed, dimension, birth, death, x, y, 'reason'")
"""Sublevel persistence on a plane's grid: dimension 0 = basins, 1 = rings around peaks."""

SEAMS = table("seams", (), "'plane', seed, x0, y0, x1, y1, jump")
"""Lines on a plane where BatchNorm's statistics change from one solution's to another's, and the jump of the loss there
in nats. None if the statistics are recomputed.
"""


def cells(scene: Scene, block: PlanesSpec) -> None:
    """One cell for each plane and seed."""
    for seed in scene.seeds(block.seeds):
        for kind, wanted in (("through", block.through), ("random", block.random), ("eigen", block.eigen)):
            for names in wanted:
                chosen = [_named(scene, name, seed) for name in ([names] if isinstance(names, str) else names)]
                _add(scene, block, kind, names if isinstance(names, str) else ", ".join(names), chosen)


def _named(scene: Scene, name: str, seed: int) -> Solution:
    branch, _, level = name.partition("/")
    wanted = (branch, int(level) if level.isdecimal() else 0, seed)
    for s in scene.solutions:
        if (s.branch, s.level, s.seed) == wanted:
            return s
    known = [f"{s.branch}/{s.level}" if s.level else s.branch for s in scene.solutions if s.seed == seed]
    raise ConfigError(f"geometry.planes: the study has no solution {name!r}{nearest(name, known)}")


def _add(scene: Scene, block: PlanesSpec, kind: str, names: str, chosen: list[Solution]) -> None:
    dense = scene.builders[chosen[0].seed].dense().train
    kept = {f"dense at step {n}": Ref(dense.id, f"step-{n}") for n in dense.inputs.get("checkpoints", ())}
    inputs = {
        **block.document(),
        "kind": kind,
        "anchors": [s.end for s in chosen],
        "names": [f"{s.branch} L{s.level}" if s.level else s.branch for s in chosen],
        "mask": chosen[0].mask if kind != "through" else None,
        "trajectory": list(kept.values()),
        "steps": list(kept),
    } | ({} if scene.space.statistics else {"policy": "stored"})
    labels = {
        "plane": f"{kind}: {names}",
        "kind": kind,
        "seed": chosen[0].seed,
        "landmarks": json.dumps(
            [{"branch": s.branch, "level": s.level} for s in chosen]
            + [{"branch": "dense", "step": n} for n in dense.inputs.get("checkpoints", ())]
        ),
    }
    scene.graph.add(Node(f"plane/{kind}/{names}/s{chosen[0].seed}", "plane", inputs, labels))


def compute(
    c: Context,
    options: PlanesSpec,
    *,
    kind: str,
    anchors: list[str],
    names: list[str],
    mask: str | None,
    trajectory: list[str],
    steps: list[str],
) -> Output:
    """The frame, the mesh on it, the places of the named points, and the persistence of the mesh's grid.

    Random directions and eigenvectors lie in the subspace of ``mask``, the solution's own.
    """
    at = [c.point(name) for name in anchors]
    field = c.problem.field("train", size=options.size, policy=options.policy)
    if kind == "through":
        frame = plane_through(*at)
    elif kind == "random":
        frame = random_plane(c.problem.space, at[0], mask=c.mask(mask))
    else:
        frame = eigen_plane(at[0], top_eigenvalues(field, at[0], k=2, mask=c.mask(mask)).vectors)
    if field.policy == "stored":
        frame = replace(frame, buffers="nearest")
    places = dict(zip(names, at, strict=True)) | dict(zip(steps, map(c.point, trajectory), strict=True))
    xs, ys = frame.window(options.points, 0.25)
    grow = 1.0 if kind == "through" else options.radius
    finely = {"tolerance": options.tolerance, "levels": options.refine}
    mesh = adaptive_scan(field, frame, xs * grow, ys * grow, points=places, **finely)
    landmarks = [{"name": n, "x": x, "y": y, "residual": r} for n, (x, y, r) in mesh.points.items()]
    features = {"persistence": _persistence(mesh), "seams": [asdict(seam) for seam in mesh.seams]}
    about = {"buffers": mesh.policy, "reason": mesh.reason}
    return Output({**about, "rows": mesh.rows(), "landmarks": landmarks, **features})


def _persistence(mesh: Mesh) -> list[dict[str, float | str | None]]:
    """Features of the mesh's grid. A feature that begins or ends next to a seam of the statistics, or whose persistence
    is at most the jump there, may come from the seam and not from the landscape; it has a ``reason``.
    """
    plane = mesh.plane(mesh.xs, mesh.ys)
    found = persistence(np.where(np.isfinite(plane.loss), plane.loss, np.inf))
    beside = np.zeros(plane.loss.shape, dtype=bool)  # points with a neighbour that has another solution's statistics
    if mesh.seams:
        owner = np.array([[plane.frame.nearest(float(x), float(y)) for x in plane.xs] for y in plane.ys])
        around = np.lib.stride_tricks.sliding_window_view(np.pad(owner, 1, mode="edge"), (3, 3))
        beside = around.min(axis=(2, 3)) != around.max(axis=(2, 3))
    jump = max((seam.jump for seam in mesh.seams), default=0.0)
    doubtful = beside[found.row, found.column] | (beside[found.death_row, found.death_column] & (found.death_row >= 0))
    doubtful |= found.persistence <= jump
    features = {
        "dimension": found.dimension.tolist(),
        "birth": found.birth.tolist(),
        "death": [death if isfinite(death) else None for death in found.death.tolist()],
        "x": plane.xs[found.column].tolist(),
        "y": plane.ys[found.row].tolist(),
        "reason": [SEAM if doubt else "" for doubt in doubtful],
    }
    return [dict(zip(features, row, strict=True)) for row in zip(*features.values(), strict=True)]


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``planes``, ``landmarks``, ``persistence`` and ``seams``."""
    values = entry["values"]
    labels = dict(labels)
    solutions = json.loads(labels.pop("landmarks", "[]"))
    about = {**labels, "buffers": values["buffers"], "reason": values["reason"]}
    for x, y, loss, error, level in values["rows"]:
        yield "planes", {**about, "x": x, "y": y, "loss": loss, "error": error, "level": level}
    for row, solution in zip_longest(values["landmarks"], solutions, fillvalue={}):
        yield "landmarks", {**labels, **solution, **row}
    for row in values["persistence"]:
        yield "persistence", {**labels, "reason": "", **row}
    for row in values.get("seams", ()):
        yield "seams", {**labels, **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The base grid, and a share of each refinement."""
    return inputs["points"] ** 2 * (1 + inputs["refine"]) * used(inputs, sizes) / 3


cell("plane", 3, compute, options=PlanesSpec, rows=rows, cost=cost)
measurement("planes", PlanesSpec, cells)
