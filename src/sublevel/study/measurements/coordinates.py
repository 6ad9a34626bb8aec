"""Curvature and widths along the weights that a level prunes, keeps, and random ones: before pruning and retrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.engine.graph import Ref
from sublevel.field import Field
from sublevel.geometry import curvature
from sublevel.geometry.profiles import profile, random_direction, width
from sublevel.geometry.ranks import rank_correlation, steeper
from sublevel.risk import EmpiricalRisk
from sublevel.risk.diagonal import constant_inputs, ggn_diagonal
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.blocks import CoordinatesSpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import Scene, examples, measurement, used
from sublevel.study.measurements.prunings import made_from

SLICE = 9
"""Points on either side of a slice."""

WIDTHS = 40
"""Evaluations that the search for a width takes, as a guess."""


GROUPS = 8
"""Independent estimates that the probes of a diagonal are divided into, for the error of its ranks."""

OUTPUTS = 10
"""Backward passes that a Gauss-Newton diagonal takes, as a guess: one for each class."""


@measurement("coordinates")
def coordinates(scene: Scene, block: CoordinatesSpec) -> None:
    """Before pruning: along what the study's criterion would take next. Retrained: along what the own mask took.

    The latter in the subspace of the mask that the own one was made from, where that is known. The dense network of a
    seed, which the first level prunes, is always beside its solutions.
    """
    chosen = list(scene.admitted(block))
    seeds = {s.seed for s in chosen}
    dense = [s for s in scene.solutions if s.base == "dense" and s.seed in seeds and s not in chosen]
    for s in [*dense, *chosen]:
        after = scene.next_mask(s)
        if after is not None:
            _add(scene, block, s, "before", {"before": s.mask, "after": after})
        known, parent = made_from(scene, s)
        if known:
            _add(scene, block, s, "retrained", {"before": parent, "after": s.mask, "within": parent})


def _add(scene: Scene, block: CoordinatesSpec, s: Solution, when: str, masks: Mapping[str, Ref | None]) -> None:
    for part, which in examples(block):
        inputs = {"point": s.end, "own": s.mask, **masks, "probes": block.probes, "directions": block.directions}
        inputs |= {"rise": block.rise, "diagonal": list(block.diagonal), "exact": block.exact, **which}
        names = [*([when] if when != "before" else []), *([f"part-{part}"] if part else [])]
        scene.add("coordinates", s, *names, inputs=inputs, part=part, when=when)


@kernel("coordinates", 3)
def coordinates_cell(
    c: Context,
    *,
    point: str,
    own: str | None,
    before: str | None,
    after: str,
    probes: int,
    directions: int,
    rise: float,
    diagonal: Sequence[str],
    exact: int,
    size: int | None,
    policy: str,
    part: int = 0,
    within: str | None = None,
) -> Output:
    """Ranks over all weights of a layer; means and widths over sets of equal count in every layer.

    Out of all sets: weights whose input does not vary over the examples, those of filters that are dead in ``own``, and
    those on which no output depends at any example (units that never fire), whose diagonal entry is exactly 0. The
    steepest direction is that of the subspace ``within`` (None: R^D).
    """
    at, space, new = c.point(point), c.problem.space, c.mask(after)
    assert new is not None
    field = c.problem.field("train", size=size, policy=policy, part=part)
    full = space.full_mask().to(new.device)
    old, alive = c.mask(before) if before else full, c.mask(own) if own else full
    assert old is not None
    assert alive is not None
    seen = {operator: _diagonals(field, at, operator, probes) for operator in diagonal}
    entries = {operator: torch.stack(found).mean(dim=0) for operator, found in seen.items()}
    main = entries[diagonal[0]]
    out = space.dead(alive) | constant_inputs(field, at) | (main == 0)
    excluded = int((out & old & space.prunable.to(out.device)).sum())
    old, new = old & ~out, new & ~out
    try:
        sets = curvature.matched_sets(space, old, new)
    except ValueError as error:  # where few weights are left, or few of them say anything
        nothing = {"set": "pruned", "count": 0, "excluded": excluded, "reason": str(error)}
        return Output({"buffers": field.policy, "rows": [nothing], "slices": []})
    ranks: dict[str, Any] = {"excluded": excluded}
    for operator, found in seen.items():
        rank = steeper(space, found, old & ~new, new)
        suffix = "" if operator == diagonal[0] else f"_{operator}"
        ranks |= {f"rank{suffix}": rank.value, f"rank{suffix}_se": rank.se}
    ranks |= _checked(field, at, old & space.prunable.to(old.device), entries, seen, exact)
    found = curvature.along(field, at, sets, probes=probes)
    out_rows, lines = [], []
    for name, index in sets.items():
        along = [random_direction(index, len(at.theta), draw=i) for i in range(directions)]
        chosen = index.to(main.device)
        scaled = float((main[chosen] * at.theta[chosen].double().square()).mean())
        each = Seen(name, len(index), found[name].value, found[name].se, found[name].reason)
        more = {"curvature_w2": scaled} | (ranks if name == "pruned" else {})
        out_rows.append(each.row(field, at, along, rise) | more)
        lines += _slice(field, at, name, along[:1], rise)
    top = curvature.top_eigenvalues(field, at, k=1, mask=c.mask(within), restarts=0)
    doubt = "" if top.converged else f"eigenvalue not converged ({top.stop})"
    steepest = Seen("steepest", 1, float(top.values[0]), 0.0, doubt)
    out_rows.append(steepest.row(field, at, [top.vectors[0]], rise))
    lines += _slice(field, at, "steepest", [top.vectors[0]], rise)
    return Output({"buffers": field.policy, "rows": out_rows, "slices": lines})


def _diagonals(field: EmpiricalRisk, at: Point, operator: str, probes: int) -> list[Float[Tensor, "D"]]:
    """The diagonal: one that is exact, or independent estimates of about equal weight by random signs."""
    exact = ggn_diagonal(field, at) if operator == "ggn" else None
    if exact is not None:
        return [exact]
    groups = min(GROUPS, probes)
    counts = [probes // groups + (i < probes % groups) for i in range(groups)]
    return [curvature.diagonal(field, at, probes=n, operator=operator, seed=i).values for i, n in enumerate(counts)]


def _checked(
    field: EmpiricalRisk,
    at: Point,
    where: Bool[Tensor, "D"],
    entries: Mapping[str, Tensor],
    seen: Mapping[str, Sequence[Tensor]],
    exact: int,
) -> dict[str, Any]:
    """The diagonals against the Hessian's own at some coordinates, each by a product with its unit vector."""
    places = where.nonzero().squeeze(1).cpu()
    if not exact or not len(places):
        return {}
    order = torch.randperm(len(places), generator=generator(0, "probe:exact"))
    index = places[order[:exact]].sort().values
    true = curvature.diagonal_entries(field, at, index).cpu().numpy()
    said = {operator: values[index.to(values.device)].cpu().numpy() for operator, values in entries.items()}
    out: dict[str, Any] = {"exact": len(index), "exact_rank": rank_correlation(next(iter(said.values())), true)}
    if len(seen.get("hessian", ())) > 1:
        draws = torch.stack(list(seen["hessian"]))[:, index.to(at.theta.device)].cpu().numpy()
        se = draws.std(axis=0, ddof=1) / len(draws) ** 0.5
        out["exact_z"] = float(np.sqrt(np.mean(((said["hessian"] - true)[se > 0] / se[se > 0]) ** 2)))
    return out


@dataclass(frozen=True)
class Seen:
    """A set of coordinates with its mean curvature."""

    name: str
    count: int
    curvature: float
    se: float
    reason: str

    def row(self, field: Field, at: Point, along: list[Tensor], rise: float) -> dict[str, Any]:
        """The set with the spread of its finite-scale widths along some directions."""
        about = {"set": self.name, "count": self.count, "curvature": self.curvature, "se": self.se}
        about |= {"reason": self.reason, "rise": rise, "directions": len(along)}
        if not along:
            return about | {"capped": 0}
        seen = [width(field, at, direction, rise, tolerance=1e-2) for direction in along]
        whole = [w.total for w in seen]
        spread = {"width_low": min(whole), "width": median(whole), "width_high": max(whole)}
        return about | spread | {"capped": sum(w.left_capped or w.right_capped for w in seen)}


def _slice(field: Field, at: Point, name: str, along: list[Tensor], rise: float) -> list[dict[str, Any]]:
    """The loss along a direction, to where it has risen four times as far on either side, or as far as was looked."""
    out = []
    for direction in along:
        ends = width(field, at, direction, 4 * rise, tolerance=1e-1)
        radii = np.concatenate([np.linspace(-ends.left, 0, SLICE)[:-1], np.linspace(0, ends.right, SLICE)])
        seen = profile(field, at, direction, radii)
        for radius, loss, error in zip(radii.tolist(), seen.loss.tolist(), seen.error.tolist(), strict=True):
            out.append({"set": name, "radius": radius, "loss": loss, "error": error})
    return out


@rows("coordinates")
def coordinates_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``coordinates``: one row for each set; and ``slices``."""
    labels = {"when": "before", **labels}
    for table, found in (("coordinates", "rows"), ("slices", "slices")):
        for row in entry["values"][found]:
            yield table, {**labels, "buffers": entry["values"]["buffers"], **row}


@cost("coordinates")
def coordinates_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Three sets: a product for each probe, a search for each direction; the diagonals, and their check."""
    hessian = inputs["probes"] if "hessian" in inputs["diagonal"] else 0
    diagonals = 3 * (hessian + inputs["exact"]) + OUTPUTS * ("ggn" in inputs["diagonal"])
    sets = 3 * (3 * inputs["probes"] + WIDTHS * inputs["directions"] / 3)
    return (sets + diagonals) * used(inputs, sizes)
