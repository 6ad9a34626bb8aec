"""Volumes of two points that may be compared: in R^D, with one method, the same examples and coordinates.

A subspace lowers every eigenvalue (interlacing), a lower train loss flattens the cross-entropy, and the gain of a dead
filter steepens it. So both points are measured in R^D, without the coordinates of filters that are dead at either, and
a solution is compared with the dense one at the same loss. For this the run with the lower final loss is taken at a
point that it stored during training; points between two stored points are never visited by training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Annotated, Any, Literal

import pydantic

from sublevel._types import Bool, Tensor
from sublevel.engine.graph import Ref
from sublevel.field import Field
from sublevel.geometry import curvature
from sublevel.geometry.volume import Volume, ellipsoid, importance
from sublevel.geometry.volume.ellipsoids import Quadrature, logdets
from sublevel.space import Point
from sublevel.study.builder import Solution
from sublevel.study.cells import Context, Output, Row, Rows, cell, used
from sublevel.study.measurements.base import Scene, measurement
from sublevel.study.measurements.spectra import PRODUCTS
from sublevel.study.options import Chooses, Examples, Operator, Policy
from sublevel.tables import SOLUTION, table

SIDES = ("", "_reference")

RAY = 8
"""Estimated evaluations of a ray."""


class PairsSpec(Examples):
    """Volumes of two points in R^D, by the same method and without filters that are dead at either.

    ``kinds``: a solution and the dense one of its seed at matched loss; a point and the same point pruned. These are
    not end points of trainings, so BatchNorm's statistics are recomputed by default. Losses are matched at stored
    points of each run's path (``train.trajectory``; without it there are no matched losses), with a reason if they
    differ by more than the share ``match``. ``methods``: the ellipsoid of the ``k``
    steepest directions, by each of ``operators``; the log-determinant of the Gauss-Newton matrix at each ``damping``,
    from ``probes`` runs of ``quadrature`` steps; ``rays`` in the span of the ``k`` steepest directions, within
    ``radius``. ``tolerance``, ``steps`` and ``restarts`` are those of ``spectra``.
    """

    policy: Policy = "recomputed"
    k: Chooses[int] = pydantic.Field(default=10, ge=1)
    eps: Chooses[float] = pydantic.Field(default=0.1, gt=0)
    methods: Chooses[tuple[Literal["top-k", "logdet", "rays"], ...]] = ("top-k", "logdet", "rays")
    operators: Chooses[tuple[Operator, ...]] = ("hessian", "adaptive")
    kinds: Chooses[tuple[Literal["matched-loss", "prune"], ...]] = ("matched-loss", "prune")
    match: Chooses[float] = pydantic.Field(default=0.1, gt=0)
    damping: Chooses[tuple[Annotated[float, pydantic.Field(gt=0)], ...]] = (1e-1, 1e-2, 1e-3)
    probes: Chooses[int] = pydantic.Field(default=8, ge=2)
    quadrature: Chooses[int] = pydantic.Field(default=60, ge=2)
    rays: Chooses[int] = pydantic.Field(default=64, ge=2)
    radius: Chooses[float] = pydantic.Field(default=100.0, gt=0)
    tolerance: Chooses[float | None] = pydantic.Field(default=None, gt=0)
    steps: Chooses[int] = pydantic.Field(default=200, ge=2)
    restarts: Chooses[int] = pydantic.Field(default=3, ge=0)


VOLUME_PAIRS = table(
    "volume_pairs",
    SOLUTION,
    """
    'pair', 'method', 'operator'
    setting: the damping of logdet, else k
    part, 'buffers'
    k: dimension of the volume
    eps, log_volume, log_volume_reference, se, se_reference
    trace_top: sum of the k eigenvalues (top-k)
    trace_top_reference, loss, loss_reference
    step: the training step of each point (matched-loss)
    step_reference, weight_norm, weight_norm_reference, nonstationarity, nonstationarity_reference
    excluded: coordinates of dead filters left out
    converged, 'reason'
    """,
)
"""Volumes of two points in R^D that may be compared: by the same method, on the same examples, and without the
coordinates of filters that are dead at either. pair = matched-loss (a solution and the dense one of its seed; the one
with the lower final loss is taken at its stored point of nearest loss; no rows without train.trajectory) |
prune (theta, the point from which the mask was made, and mask * theta). ``reference`` is the dense one, or theta.
method = top-k (the ellipsoid of the k steepest directions) | logdet (of the Gauss-Newton matrix, damped) | rays (by
the loss along rays in the span of the k steepest).
"""


def cells(scene: Scene, block: PairsSpec) -> None:
    """One cell for each pair and method; matched losses only if trainings stored points of their paths."""
    ways = list(_ways(block))
    for s in scene.admitted(block, dense=False):
        for pair, points in _points(scene, block, s):
            for method, operator, options in ways:
                inputs = {**points, "method": method, "operator": operator, "options": options}
                inputs |= {"match": block.match} if pair == "matched-loss" else {}
                inputs |= {"eps": block.eps} if method != "top-k" else {}
                names = [pair, operator, *([method] if method != "top-k" else [])]
                about = {"pair": pair, "method": method, "operator": operator}
                scene.add("volume-pair", s, *names, options=block, inputs=inputs, **about)


def _ways(block: PairsSpec) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, operator, and the options of the estimator."""
    if "top-k" in block.methods:
        options = {"k": block.k, "tolerance": block.tolerance, "steps": block.steps, "restarts": block.restarts}
        for operator in block.operators:
            yield "top-k", operator, options
    if "logdet" in block.methods:
        yield "logdet", "ggn", {"dampings": list(block.damping), "probes": block.probes, "steps": block.quadrature}
    if "rays" in block.methods:
        yield "rays", "hessian", {"k": block.k, "samples": block.rays, "radius": block.radius}


def _points(scene: Scene, block: PairsSpec, s: Solution) -> Iterator[tuple[str, dict[str, Any]]]:
    dense = scene.builders[s.seed].dense()
    if "matched-loss" in block.kinds and s.base != "given" and scene.spec.train.trajectory:
        paths = {"path": _path(scene, s), "reference_path": _path(scene, dense)}
        yield "matched-loss", {"point": s.end, "mask": s.mask, "reference": dense.end, **paths}
    if "prune" in block.kinds and s.pruned is not None and s.mask is not None:
        yield "prune", {"point": s.pruned, "mask": s.mask, "reference": s.pruned}


def _path(scene: Scene, s: Solution) -> list[list[Any]]:
    """The steps and points that a run stored of its path, with its end last."""
    stored = [[step, Ref(s.train.id, f"step-{step}")] for step in s.train.inputs["checkpoints"]]
    return [*stored, [scene.builders[s.seed].steps, s.end]]


def compute(
    c: Context,
    block: PairsSpec,
    *,
    point: str,
    mask: str | None,
    reference: str,
    method: str,
    operator: str,
    options: Mapping[str, Any],
    eps: float | None = None,
    match: float | None = None,
    path: Sequence[Sequence[Any]] = (),
    reference_path: Sequence[Sequence[Any]] = (),
    part: int = 0,
) -> Output:
    """The data for the volumes at mask * point and at the reference; ``match`` matches their losses first."""
    field = c.field(block, part)
    pair = Matched((c.point(point, mask), c.point(reference)), (None, None), "")
    if match is not None:
        stored = [
            [(step, c.point(name, kept)) for step, name in steps]
            for steps, kept in ((path, mask), (reference_path, None))
        ]
        pair = matched(field, stored, match)
    own = c.mask(mask)
    dead = None if own is None else c.problem.space.dead(own)
    alive = None if dead is None or not bool(dead.any()) else ~dead
    if eps is None:
        sides = [_spectrum(c, field, at, alive, operator, options) for at in pair.points]
    else:
        measure = _determinants if method == "logdet" else _rays
        sides = [
            _about(field, at) | {"volumes": [_plain(v) for v in measure(field, at, alive, eps, options)]}
            for at in pair.points
        ]
    about = {"excluded": 0 if dead is None else int(dead.sum()), "reason": pair.reason}
    return Output({"buffers": field.policy, "steps": list(pair.steps), "sides": sides, **about})


def _spectrum(
    c: Context, field: Field, at: Point, alive: Bool[Tensor, "D"] | None, operator: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The data for the ellipsoid of one point. Eigenvectors of ``adaptive`` are in scaled coordinates."""
    scale = curvature.filter_norms(c.problem.space, at.theta) if operator == "adaptive" else None
    chosen = {**options, "operator": "hessian" if scale is not None else operator}
    chosen["k"] = min(options["k"], curvature.subspace_dimension(at, alive))
    found = curvature.top_eigenvalues(field, at, mask=alive, scale=scale, negative=0, **chosen)
    gradient = field.grad(at).double()
    slopes = found.vectors.double() @ (gradient if scale is None else gradient * scale.double())
    values = {"values": found.values.tolist(), "slopes": slopes.tolist(), "error": float(found.residuals.max())}
    below = {"negative": found.negative_count, "lowest": float(found.smallest[0])}
    return {**_about(field, at), **values, **below, "converged": found.converged}


def _determinants(
    field: Field, at: Point, alive: Bool[Tensor, "D"] | None, eps: float, options: Mapping[str, Any]
) -> list[tuple[float, Volume]]:
    """The damped Gauss-Newton ellipsoids; from the whole matrix if that takes no more products."""
    enough = options["probes"] * options["steps"]
    how = Quadrature(operator="ggn", exact=enough, probes=options["probes"], steps=options["steps"])
    found = logdets(field, at, dampings=options["dampings"], mask=alive, how=how)
    return [(damping, volume(eps)) for damping, volume in zip(options["dampings"], found, strict=True)]


def _rays(
    field: Field, at: Point, alive: Bool[Tensor, "D"] | None, eps: float, options: Mapping[str, Any]
) -> list[tuple[float, Volume]]:
    """By the loss along rays in the span of the k steepest directions."""
    k = min(options["k"], curvature.subspace_dimension(at, alive))
    return [(k, importance(field, at, mask=alive, span=True, **{**options, "k": k})(eps))]


def _plain(found: tuple[float, Volume]) -> dict[str, Any]:
    setting, v = found
    told = {"n": v.n, "eps": v.eps, "log_volume": v.log_volume, "se": v.se, "reason": v.reason}
    return {"setting": setting, **told, "nonstationarity": v.diagnostics.get("nonstationarity")}


def _about(field: Field, at: Point) -> dict[str, float]:
    return {"loss": field.loss(at), "weight_norm": float(at.theta.double().norm())}


@dataclass(frozen=True, eq=False)
class Matched:
    """Two points of about equal loss, their training steps, and the reason if the losses differ."""

    points: tuple[Point, Point]
    steps: tuple[int | None, int | None]
    reason: str


def matched(field: Field, paths: Sequence[Sequence[tuple[int, Point]]], tolerance: float) -> Matched:
    """Two points of about equal loss, each on its own run's path: one end, and one stored point.

    ``paths`` hold the steps and points of each run in order, its end last. The run whose end has the lower loss is
    taken at its stored point whose loss is nearest to that of the other end; of several, the last. A difference of more
    than ``tolerance`` times the other's loss is a reason.
    """
    losses = [[seen.loss for seen in field.evaluations(at for _, at in path)] for path in paths]
    ends = [path[-1] for path in losses]
    at = [len(path) - 1 for path in paths]
    reason = ""
    if all(map(isfinite, ends)):
        low = min((0, 1), key=ends.__getitem__)
        target = ends[1 - low]
        near = {i: abs(loss - target) for i, loss in enumerate(losses[low]) if isfinite(loss)}
        at[low] = min(sorted(near, reverse=True), key=near.__getitem__)
        if near[at[low]] > tolerance * target:
            who, other = ("the solution", "the dense one")[low], ("the dense one", "the solution")[low]
            reason = (
                f"the losses differ: {who} stored no point nearer to {target:.4g}, where {other} ends, than "
                f"{losses[low][at[low]]:.4g} at step {paths[low][at[low]][0]}"
            )
    else:
        reason = f"the losses are {ends[0]:.6g} and {ends[1]:.6g}: none can be matched"
    (step, point), (other_step, other_point) = (path[i] for path, i in zip(paths, at, strict=True))
    return Matched((point, other_point), (step, other_step), reason)


def rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``volume_pairs``; older results, whose points lie on a segment, have no matched losses."""
    values = entry["values"]
    if "steps" not in values and labels["pair"] == "matched-loss":
        return
    sides = values["sides"]
    names = ("solution", "dense") if labels["pair"] == "matched-loss" else ("pruned", "theta")
    eps = (study["geometry"].get("pairs") or {}).get("eps", 0.1)
    for setting, found in _settings(sides, eps):
        doubts = [f"{n}: {v.reason}" for n, v in zip(names, found, strict=True) if v.reason]
        row = {"method": "top-k", **labels, "setting": setting, "k": found[0].n, "eps": found[0].eps}
        row |= {n: values[n] for n in ("buffers", "excluded")}
        row["converged"] = all(side.get("converged", True) for side in sides)
        for suffix, side, v, step in zip(SIDES, sides, found, values.get("steps", (None, None)), strict=True):
            row |= {f"step{suffix}": step, f"log_volume{suffix}": v.log_volume, f"se{suffix}": v.se}
            row |= {f"trace_top{suffix}": sum(side["values"]) if "values" in side else None}
            row |= {f"{n}{suffix}": side[n] for n in ("loss", "weight_norm")}
            row[f"nonstationarity{suffix}"] = v.diagnostics.get("nonstationarity")
        yield "volume_pairs", {**row, "reason": "; ".join(filter(None, (values["reason"], *doubts)))}


def _settings(sides: Sequence[Mapping[str, Any]], eps: float) -> Iterator[tuple[float, list[Volume]]]:
    """The volumes of both points, for every setting of the method."""
    if "volumes" not in sides[0]:
        known = ("converged", "error", "negative", "lowest")  # entries of version 2 do not hold the last two
        kept = [{n: side[n] for n in known if n in side} for side in sides]
        found = [ellipsoid(s["values"], s["slopes"], eps=eps, **more) for s, more in zip(sides, kept, strict=True)]
        yield found[0].n, found
        return
    for pair in zip(*(side["volumes"] for side in sides), strict=True):
        same = [{n: v[n] for n in ("log_volume", "n", "eps", "se", "reason")} for v in pair]
        seen = [{"nonstationarity": v["nonstationarity"]} for v in pair]
        yield (
            pair[0]["setting"],
            [Volume(effective_radius=nan, diagnostics=d, **v) for v, d in zip(same, seen, strict=True)],
        )


def cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """Products of three passes or evaluations along rays, at both points; and the losses along both paths."""
    o = inputs["options"]
    passes = 3 * PRODUCTS * o.get("k", 0) / 10
    if inputs["method"] == "logdet":
        passes = 3 * (o["probes"] + 1) * o["steps"]
    if inputs["method"] == "rays":
        passes += o["samples"] * RAY / 3
    again = 2 if inputs["policy"] == "recomputed" else 1
    stored = len(inputs.get("path", ())) + len(inputs.get("reference_path", ()))
    return (2 * passes + again * stored / 3) * used(inputs, sizes)


cell("volume-pair", 4, compute, options=PairsSpec, rows=rows, cost=cost, products=True)
measurement("pairs", PairsSpec, cells)
