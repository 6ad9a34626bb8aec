"""Top-k volumes of two points that may be compared: in R^D, with one k, one operator, the same examples.

A subspace lowers every eigenvalue (interlacing), a lower train loss flattens the cross-entropy, and a dead filter's
gain steepens it: so both points are taken in R^D without the coordinates of filters that are dead at either, and a
solution meets the dense one at the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sublevel._types import Bool, Tensor
from sublevel.field import Field
from sublevel.geometry import curvature
from sublevel.geometry.volume import Volume, ellipsoid
from sublevel.space import Point, lerp
from sublevel.study.blocks import PairsSpec
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import KEEP, Scene, examples, measurement, used
from sublevel.study.measurements.spectra import PRODUCTS

GRID = 32
"""Even steps in which a segment is searched for the last crossing of a loss: one in between is not seen."""

HALVINGS = 40
AGREE, CLOSE = 1e-6, 1e-3
"""Relative differences of two losses: where the bisection stops, and beyond which they are said to differ."""

SIDES = ("", "_reference")
UNKNOWN = {"start": None, "reference_start": None, "reference_init": None}


@measurement("pairs")
def pairs(scene: Scene, block: PairsSpec) -> None:
    """One cell for each pair and operator."""
    for s in scene.admitted(block, dense=False):
        for pair, points in _points(scene, block, s):
            for operator in block.operators:
                for part, which in examples(block):
                    inputs = {**points, "k": block.k, "operator": operator, **which}
                    inputs |= {"tolerance": block.tolerance, "steps": block.steps, "restarts": block.restarts}
                    names = [pair, operator, *([f"part-{part}"] if part else [])]
                    scene.add("volume-pair", s, *names, inputs=inputs, pair=pair, operator=operator, part=part)


def _points(scene: Scene, block: PairsSpec, s: Solution) -> Iterator[tuple[str, dict[str, Any]]]:
    if "matched-loss" in block.kinds:
        b = scene.builders[s.seed]
        starts = UNKNOWN
        if s.base != "given":
            starts = {"start": s.start, "reference_start": b.rewound, "reference_init": s.seed}
        yield "matched-loss", {"point": s.end, "mask": s.mask, "reference": b.dense().end, "match": True, **starts}
    if "prune" in block.kinds and s.pruned is not None and s.mask is not None:
        same = {"point": s.pruned, "mask": s.mask, "reference": s.pruned, "match": False}
        yield "prune", {**same, **UNKNOWN}


@kernel("volume-pair", 3)
def pair_cell(
    c: Context,
    *,
    point: str,
    mask: str | None,
    reference: str,
    match: bool,
    start: str | None,
    reference_start: str | None,
    reference_init: int | None,
    k: int,
    operator: str,
    tolerance: float | None,
    steps: int,
    restarts: int,
    size: int | None,
    policy: str,
    part: int = 0,
) -> Output:
    """Eigenvalues, and the gradient along their vectors, at mask * point and at the reference.

    A solution is moved back to its rewound start at most, the dense one to step k or else to its initialisation.
    """
    field = c.problem.field("train", size=size, policy=policy, part=part, keep_bytes=KEEP)
    ends = [c.point(point, mask), c.point(reference)]
    back = Moved(tuple(ends), 0.0, "")
    if match:
        own_start = [] if start is None else [c.point(start, mask)]
        dense_starts = [] if reference_start is None else [c.point(reference_start)]
        dense_starts += [] if reference_init is None else [c.problem.init(reference_init)]
        back = matched(field, ends, (own_start, dense_starts))
    own = c.mask(mask)
    dead = None if own is None else c.problem.space.dead(own)
    alive = None if dead is None or not bool(dead.any()) else ~dead
    options = {"k": k, "operator": operator, "tolerance": tolerance, "steps": steps, "restarts": restarts}
    sides = [_side(c, field, at, alive, options) for at in back.points]
    excluded = 0 if dead is None else int(dead.sum())
    values = {"buffers": field.policy, "moved": back.moved, "excluded": excluded, "reason": back.reason}
    return Output({**values, "sides": sides})


def _side(
    c: Context, field: Field, at: Point, alive: Bool[Tensor, "D"] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What the volume of one point is made from. Eigenvectors of ``adaptive`` lie in scaled coordinates."""
    scale = curvature.filter_norms(c.problem.space, at.theta) if options["operator"] == "adaptive" else None
    chosen = {**options, "operator": "hessian" if scale is not None else options["operator"]}
    chosen["k"] = min(options["k"], curvature.subspace_dimension(at, alive))
    found = curvature.top_eigenvalues(field, at, mask=alive, scale=scale, negative=0, **chosen)
    gradient = field.grad(at).double()
    slopes = found.vectors.double() @ (gradient if scale is None else gradient * scale.double())
    return {
        "loss": field.loss(at),
        "weight_norm": float(at.theta.double().norm()),
        "values": found.values.tolist(),
        "slopes": slopes.tolist(),
        "error": float(found.residuals.max()),
        "negative": found.negative_count,
        "lowest": float(found.smallest[0]),
        "converged": found.converged,
    }


@dataclass(frozen=True, eq=False)
class Moved:
    """Two points whose losses agree, how far one of them was moved (1 - alpha), and why they do not if so."""

    points: tuple[Point, ...]
    moved: float
    reason: str


def matched(field: Field, ends: Sequence[Point], starts: Sequence[Sequence[Point]]) -> Moved:
    """Two points with the lower one moved back, along the segment from its start, to the loss of the other.

    ``starts`` are those of either, the first that is high enough counts. The point is (1 - alpha) start + alpha end at
    the largest alpha at which the loss crosses the other's, by bisection within the first of `GRID` even steps back
    from the end at which it has. Statistics are averaged along with the weights, unless the field computes its own.
    Where the losses cannot be matched the ends stay as they are.
    """
    losses = [seen.loss for seen in field.evaluations(ends)]
    if not all(map(isfinite, losses)):
        return Moved(tuple(ends), 0.0, f"the losses are {losses[0]:.6g} and {losses[1]:.6g}: none can be matched")
    low = min((0, 1), key=losses.__getitem__)
    target, name = losses[1 - low], ("the solution", "the dense one")[low]
    apart = f"the losses differ: {losses[0]:.6g} and {losses[1]:.6g} of the dense one"
    if target - losses[low] <= AGREE * target:
        return Moved(tuple(ends), 0.0, "")
    if not starts[low]:
        return Moved(tuple(ends), 0.0, f"{apart}; {name} has no start to be moved back to")
    for start in starts[low]:
        back = last_crossing(lambda alpha, start=start: field.loss(lerp(start, ends[low], alpha)), target)
        if back is not None:
            alpha, loss = back
            points = [lerp(start, at, alpha) if i == low else at for i, at in enumerate(ends)]
            jump = f"the losses differ: the nearest to {target:.6g} that {name} comes is {loss:.6g}"
            return Moved(tuple(points), 1 - alpha, jump if abs(loss - target) > CLOSE * target else "")
    return Moved(tuple(ends), 0.0, f"{apart}; {name} stays below on the segment from its start")


def last_crossing(loss: Callable[[float], float], target: float) -> tuple[float, float] | None:
    """The largest alpha in [0, 1] at which ``loss(alpha)``, below ``target`` at 1, reaches it, and the loss there.

    None where it stays below at all of `GRID` even steps.

    >>> alpha, height = last_crossing(lambda alpha: (1 - alpha) ** 2, 0.25)
    >>> round(alpha, 6), round(height, 6)
    (0.5, 0.25)
    """
    seen: dict[float, float] = {}
    for step in reversed(range(GRID)):
        seen[step / GRID] = loss(step / GRID)
        if not seen[step / GRID] < target:
            break
    else:
        return None
    above, below = step / GRID, (step + 1) / GRID
    for _ in range(HALVINGS):
        middle = (above + below) / 2
        seen[middle] = height = loss(middle)
        if abs(height - target) <= AGREE * target:
            break
        above, below = (above, middle) if height < target else (middle, below)
    best = min(reversed(seen), key=lambda alpha: abs(seen[alpha] - target) if isfinite(seen[alpha]) else float("inf"))
    return best, seen[best]


@rows("volume-pair")
def pair_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``volume_pairs``."""
    values, eps = entry["values"], (study["geometry"].get("pairs") or {}).get("eps", 0.1)
    found = [_volume(side, eps) for side in values["sides"]]
    names = ("solution", "dense") if labels["pair"] == "matched-loss" else ("pruned", "theta")
    doubts = [f"{n}: {v.reason}" for n, v in zip(names, found, strict=True) if v.reason]
    row = {n: values[n] for n in ("buffers", "moved", "excluded")}
    row |= {"k": found[0].n, "eps": eps, "converged": all(side["converged"] for side in values["sides"])}
    for suffix, side, v in zip(SIDES, values["sides"], found, strict=True):
        row |= {f"log_volume{suffix}": v.log_volume, f"trace_top{suffix}": sum(side["values"])}
        row |= {f"{n}{suffix}": side[n] for n in ("loss", "weight_norm")}
        row[f"nonstationarity{suffix}"] = v.diagnostics.get("nonstationarity")
    yield "volume_pairs", {**labels, **row, "reason": "; ".join(filter(None, (values["reason"], *doubts)))}


def _volume(side: Mapping[str, Any], eps: float) -> Volume:
    seen = {n: side[n] for n in ("negative", "lowest") if n in side}  # entries of version 2 do not hold them
    return ellipsoid(side["values"], side["slopes"], eps=eps, converged=side["converged"], error=side["error"], **seen)


@cost("volume-pair")
def pair_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Two spectra in products of three passes, and the search for a crossing."""
    search = (GRID + HALVINGS) / 3 if inputs["match"] else 0
    return (2 * 3 * PRODUCTS * inputs["k"] / 10 + search) * used(inputs, sizes)
