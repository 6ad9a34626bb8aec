"""Curvature and widths along pruned, kept and random weights, before pruning and after retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import pydantic
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.engine.graph import Ref
from sublevel.field import Field
from sublevel.geometry import curvature
from sublevel.geometry.curvature.ranks import rank_correlation, steeper
from sublevel.geometry.planes import profile, random_direction, width
from sublevel.risk import EmpiricalRisk
from sublevel.risk.gauss_newton_diagonal import constant_inputs, ggn_diagonal
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.measurements.prunings import made_from
from sublevel.study.options import Examples
from sublevel.tables import SOLUTION, table

SLICE = 9
"""Points on either side of a slice."""

WIDTHS = 40
"""Estimated evaluations of a search for a width."""


GROUPS = 8
"""Number of independent estimates into which the probes of a diagonal are divided, for the error of its ranks."""

OUTPUTS = 10
"""Estimated backward passes of a Gauss-Newton diagonal: one for each class."""


class CoordinatesSpec(Examples):
    """Curvature and finite-scale widths along pruned, kept and random weights.

    They are measured before pruning (along the weights that the next level would prune) and at the retrained point
    (along those that its own level pruned), with equal counts in every layer. ``probes`` vectors give the mean
    curvature of a set, ``directions`` random unit vectors in it the widths at a rise of ``rise`` nats. Pruned and kept
    weights of a layer are ranked by each ``diagonal``: the Gauss-Newton matrix's, exact where the network allows, or
    the Hessian's from ``probes`` vectors; ``exact`` coordinates are checked against the Hessian's own entries. The
    dense network is always among the solutions.
    """

    probes: int = pydantic.Field(default=16, ge=2)
    directions: int = pydantic.Field(default=4, ge=0)
    rise: float = pydantic.Field(default=0.1, gt=0)
    diagonal: tuple[Literal["ggn", "hessian"], ...] = pydantic.Field(default=("ggn",), min_length=1)
    exact: int = pydantic.Field(default=0, ge=0)


COORDINATES = table(
    "coordinates",
    SOLUTION,
    """
    'when', part, 'buffers', 'set', count
    curvature: the mean of H_ii over the set
    se, rise
    width: the median over directions
    width_low, width_high, directions
    capped: directions along which the loss did not rise that far within the search radius
    curvature_w2: the mean of d_i w_i^2, d the first diagonal of the block: no rescaling of layers changes it
    rank: P(a pruned weight has a larger d_i than a kept one), ties half, mean over layers: 1/2 means no order
    rank_se: of its estimate from probes, by the jackknife; 0 where the diagonal is exact
    rank_hessian: the same by the Hessian's diagonal, where it is not the first; its noise draws it to 1/2
    rank_hessian_se
    excluded: weights that existed before, left out of all sets
    exact: coordinates at which the Hessian's own entry was taken as a check
    exact_rank: Spearman's correlation of d with it there
    exact_z: root mean square of (estimate - entry) / se of the Hessian's diagonal: about 1
    'reason'
    """,
)
"""Curvature along sets of coordinates, of equal count in every layer: pruned, kept, random; and along the steepest
eigenvector. when = before (the weights that the next level will prune, at this solution) | retrained (those that
this level pruned, in the subspace of the level before, at this solution). width = the finite distance, both ways,
at which the loss has risen by ``rise`` along random unit vectors. All sets exclude weights of inputs that are the same
in every example, weights of dead filters, and weights that no output depends on. The ranks of pruned against kept
weights are in the row of the set pruned.
"""

SLICES = table("slices", SOLUTION, "'when', part, 'buffers', 'set', radius, loss, error")
"""The loss along one random unit vector of each of these sets, and along the steepest eigenvector."""


def cells(scene: Scene, block: CoordinatesSpec) -> None:
    """Before pruning: the weights that the criterion would prune next. Retrained: the weights that the own mask pruned.

    The latter are measured in the subspace of the mask from which the own mask was made, if that is known. The dense
    network of a seed, which the first level prunes, is always included.
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
    names = [when] if when != "before" else []
    scene.add("coordinates", s, *names, options=block, inputs={"point": s.end, "own": s.mask, **masks}, when=when)


def compute(
    c: Context,
    options: CoordinatesSpec,
    *,
    point: str,
    own: str | None,
    before: str | None,
    after: str,
    part: int = 0,
    within: str | None = None,
) -> Output:
    """Ranks over all weights of a layer; means and widths over sets of equal count in every layer.

    All sets exclude weights whose input does not vary over the examples, weights of filters that are dead in ``own``,
    and weights that no output depends on at any example (units that never fire): their diagonal entry is exactly 0.
    The steepest direction is that of the subspace ``within`` (None: R^D).
    """
    at, space, new = c.point(point), c.problem.space, c.mask(after)
    assert new is not None
    field = c.problem.field("train", size=options.size, policy=options.policy, part=part)
    full = space.full_mask().to(new.device)
    old, alive = c.mask(before) if before else full, c.mask(own) if own else full
    assert old is not None
    assert alive is not None
    seen = {operator: _diagonals(field, at, operator, options.probes) for operator in options.diagonal}
    entries = {operator: torch.stack(found).mean(dim=0) for operator, found in seen.items()}
    main = entries[options.diagonal[0]]
    out = space.dead(alive) | constant_inputs(field, at) | (main == 0)
    excluded = int((out & old & space.prunable.to(out.device)).sum())
    old, new = old & ~out, new & ~out
    try:
        sets = curvature.matched_sets(space, old, new)
    except ValueError as error:  # too few weights are left, or have a curvature
        nothing = {"set": "pruned", "count": 0, "excluded": excluded, "reason": str(error)}
        return Output({"buffers": field.policy, "rows": [nothing], "slices": []})
    ranks: dict[str, Any] = {"excluded": excluded}
    for operator, found in seen.items():
        rank = steeper(space, found, old & ~new, new)
        suffix = "" if operator == options.diagonal[0] else f"_{operator}"
        ranks |= {f"rank{suffix}": rank.value, f"rank{suffix}_se": rank.se}
    ranks |= _checked(field, at, old & space.prunable.to(old.device), entries, seen, options.exact)
    found = curvature.along(field, at, sets, probes=options.probes)
    out_rows, lines = [], []
    for name, index in sets.items():
        along = [random_direction(index, len(at.theta), draw=i) for i in range(options.directions)]
        chosen = index.to(main.device)
        scaled = float((main[chosen] * at.theta[chosen].double().square()).mean())
        each = Seen(name, len(index), found[name].value, found[name].se, found[name].reason)
        more = {"curvature_w2": scaled} | (ranks if name == "pruned" else {})
        out_rows.append(each.row(field, at, along, options.rise) | more)
        lines += _slice(field, at, name, along[:1], options.rise)
    top = curvature.top_eigenvalues(field, at, k=1, mask=c.mask(within), restarts=0)
    doubt = "" if top.converged else f"eigenvalue not converged ({top.stop})"
    steepest = Seen("steepest", 1, float(top.values[0]), 0.0, doubt)
    out_rows.append(steepest.row(field, at, [top.vectors[0]], options.rise))
    lines += _slice(field, at, "steepest", [top.vectors[0]], options.rise)
    return Output({"buffers": field.policy, "rows": out_rows, "slices": lines})


def _diagonals(field: EmpiricalRisk, at: Point, operator: str, probes: int) -> list[Float[Tensor, "D"]]:
    """The exact diagonal, or independent estimates of about equal weight by random signs."""
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
    """Compare the diagonals with the Hessian's own entries at some coordinates, by products with unit vectors."""
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
    """The loss along a direction, up to a rise of four times ``rise`` on either side, or up to the search radius."""
    out = []
    for direction in along:
        ends = width(field, at, direction, 4 * rise, tolerance=1e-1)
        radii = np.concatenate([np.linspace(-ends.left, 0, SLICE)[:-1], np.linspace(0, ends.right, SLICE)])
        seen = profile(field, at, direction, radii)
        for radius, loss, error in zip(radii.tolist(), seen.loss.tolist(), seen.error.tolist(), strict=True):
            out.append({"set": name, "radius": radius, "loss": loss, "error": error})
    return out


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``coordinates``: one row for each set; and ``slices``."""
    labels = {"when": "before", **labels}
    for name, found in (("coordinates", "rows"), ("slices", "slices")):
        for row in entry["values"][found]:
            yield name, {**labels, "buffers": entry["values"]["buffers"], **row}


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Three sets with a product for each probe and a search for each direction, the diagonals, and their check."""
    hessian = inputs["probes"] if "hessian" in inputs["diagonal"] else 0
    diagonals = 3 * (hessian + inputs["exact"]) + OUTPUTS * ("ggn" in inputs["diagonal"])
    sets = 3 * (3 * inputs["probes"] + WIDTHS * inputs["directions"] / 3)
    return (sets + diagonals) * used(inputs, sizes)


cell("coordinates", 3, compute, options=CoordinatesSpec, rows=rows, cost=cost)
measurement("coordinates", CoordinatesSpec, cells)
