"""The steep directions of a solution: their pruned and kept weights, magnitudes, and distances moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from sublevel._types import Bool, Float, Tensor
from sublevel.engine.graph import Ref
from sublevel.geometry import curvature
from sublevel.geometry.curvature.ranks import rank_correlation
from sublevel.risk.gauss_newton_diagonal import ggn_diagonal
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.measurements.overlaps import OverlapsSpec
from sublevel.study.options import Examples
from sublevel.tables import SOLUTION, table


class AnatomySpec(Examples):
    """The ``k`` steepest directions of R^D and the diagonal of the curvature, by what pruning keeps and removes.

    The diagonal is that of the GGN, or the Hessian's from ``probes`` products where the GGN has no exact one.
    """

    k: int = Field(default=10, ge=1)
    probes: int = Field(default=32, ge=1)


ANATOMY = table(
    "anatomy",
    SOLUTION,
    """
    part, 'buffers', k
    'set': kept: by the own mask | next: what the next level would prune
    count: prunable weights in the set
    share: of the prunable weights that the own mask keeps (kept: of all prunable weights); what a random set has
    eigenspace: mean share of the squared entries of the k steepest directions, over the prunable weights
    trace: share of the curvature's diagonal
    trace_matched: share expected of a random set with as many weights in every layer
    overlap_before: share of the k steepest directions in common with those of the level before
    overlap_chance: the same by chance
    'reason'
    """,
)
"""The share of a solution's curvature on kept and on pruned weights, and on random sets for comparison."""

LAYER_RANKS = table(
    "layer_ranks",
    SOLUTION,
    """
    part, 'layer', index, count
    rank_magnitude: rank correlation of the curvature's diagonal with |theta|, over the weights that the mask keeps
    rank_moved: the same with the distance that training moved each weight, of the dense network from step k
    """,
)
"""Per layer, whether large and far-moved weights are the steep ones (Spearman's rank correlation)."""


def cells(scene: Scene, block: AnatomySpec) -> None:
    """The eigenvectors of R^D at every solution and the one before, then one cell for each solution."""
    vectors = OverlapsSpec(**{name: getattr(block, name) for name in OverlapsSpec.model_fields})
    for s in scene.admitted(block):
        before = _before(scene, s)
        for part in range(block.parts):
            both = [
                None
                if each is None
                else scene.cell(part, "eigenvectors", each, options=vectors, inputs={"point": each.end})
                for each in (s, before)
            ]
            own, last = (None if node is None else Ref(node.id, "vectors") for node in both)
            start = scene.builders[s.seed].rewound if s.base == "dense" else s.start
            inputs = {"point": s.end, "start": start, "mask": s.mask, "next": scene.next_mask(s)}
            scene.cell(part, "anatomy", s, options=block, inputs={**inputs, "vectors": own, "before": last})


def _before(scene: Scene, s: Solution) -> Solution | None:
    """The solution of the level before, in the same branch and order; the dense one below level 1."""
    b = scene.builders[s.seed]
    return (b.dense() if s.level == 1 else b.memo.get((s.branch, s.order, s.level - 1))) if s.level else None


def compute(
    c: Context,
    options: AnatomySpec,
    *,
    point: str,
    start: str,
    mask: str | None,
    next: str | None,
    vectors: str,
    before: str | None,
    part: int = 0,
) -> Output:
    """Shares of the eigenspace and of the diagonal, and rank correlations per layer."""
    space, at = c.problem.space, c.point(point)
    field, prunable = c.field(options, part), space.prunable.to(at.theta.device)
    own, coming = c.mask(mask), c.mask(next)
    own = space.full_mask().to(prunable.device) if own is None else own
    steep = c.store.get_tensors(vectors)["vectors"].to(prunable.device)
    exact = ggn_diagonal(field, at)
    diagonal = curvature.diagonal(field, at, probes=options.probes).values if exact is None else exact
    sets = {"kept": (own & prunable, prunable)}
    if coming is not None:
        sets["next"] = (own & ~coming & prunable, own & prunable)
    found = []
    for name, (chosen, among) in sets.items():
        row = {"set": name, "count": int(chosen.sum()), "share": int(chosen.sum()) / int(among.sum())}
        row["eigenspace"] = float((steep[:, chosen].square().sum(1) / steep[:, among].square().sum(1)).mean())
        row["trace"] = float(diagonal[chosen].sum() / diagonal[among].sum())
        row["trace_matched"] = _matched(c, diagonal, chosen, among)
        found.append(row)
    common: dict[str, Any] = {}
    if before is not None:
        shared = curvature.eigenspace_overlap(steep, c.store.get_tensors(before)["vectors"].to(steep))
        common = {"overlap_before": shared.overlap, "overlap_chance": shared.chance}
    moved = (at.theta - c.point(start).theta).abs()
    layers = []
    for i, layer in enumerate(space.prunable_layers):
        inside = torch.arange(layer.start, layer.start + layer.size, device=own.device)
        inside = inside[own[inside]]
        ranks = {
            name: rank_correlation(diagonal[inside].cpu().numpy(), by[inside].cpu().numpy())
            if len(inside) > 2
            else None
            for name, by in (("rank_magnitude", at.theta.abs()), ("rank_moved", moved))
        }
        layers.append({"layer": layer.name, "index": i, "count": len(inside), **ranks})
    return Output({"buffers": field.policy, "k": len(steep), "rows": found, "common": common, "layers": layers})


def _matched(c: Context, diagonal: Float[Tensor, "D"], chosen: Bool[Tensor, "D"], among: Bool[Tensor, "D"]) -> float:
    """The share of the diagonal that a random set has on average, with as many weights in every layer."""
    expected = 0.0
    for layer in c.problem.space.prunable_layers:
        inside = among[layer.coordinates]
        if bool(inside.any()):
            share = int(chosen[layer.coordinates].sum()) / int(inside.sum())
            expected += share * float(diagonal[layer.coordinates][inside].sum())
    return expected / float(diagonal[among].sum())


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``anatomy`` and ``layer_ranks``."""
    values = entry["values"]
    for row in values["rows"]:
        common = values["common"] if row["set"] == "kept" else {}
        yield "anatomy", {**labels, "buffers": values["buffers"], "k": values["k"], "reason": "", **row, **common}
    for row in values["layers"]:
        yield "layer_ranks", {**labels, **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The diagonal."""
    return 3 * inputs["probes"] * used(inputs, sizes)


cell("anatomy", 1, compute, options=AnatomySpec, rows=rows, cost=cost)
measurement("anatomy", AnatomySpec, cells)
