"""The whole spectrum by stochastic Lanczos quadrature: density, trace, log-determinant, negative mass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sublevel.geometry import curvature
from sublevel.geometry.estimate import Estimate
from sublevel.geometry.quadrature import log_determinant_of
from sublevel.study.blocks import DensitySpec
from sublevel.study.cells import Context, Output, Row, Rows, cost, kernel, rows
from sublevel.study.measurements.base import KEEP, Scene, examples, measurement, used
from sublevel.study.measurements.spectra import living


@measurement("density")
def density(scene: Scene, block: DensitySpec) -> None:
    """One quadrature in every space; everything else is read off it."""
    for s in scene.admitted(block):
        for space, mask in scene.masks(s, block.spaces):
            for part, which in examples(block):
                inputs = {"point": s.end, "mask": mask, "probes": block.probes, "steps": block.steps}
                inputs |= {**which, "operator": block.operator, "damping": list(block.damping)}
                inputs |= {"alive": s.mask} if block.exclude_dead else {}
                names = [space, *([f"part-{part}"] if part else [])]
                scene.add("density", s, *names, inputs=inputs, space=space, operator=block.operator, part=part)


@kernel("density", 3)
def density_cell(
    c: Context,
    *,
    point: str,
    mask: str | None,
    probes: int,
    steps: int,
    size: int | None,
    policy: str,
    operator: str,
    damping: Sequence[float],
    alive: str | None = None,
    part: int = 0,
) -> Output:
    """Nodes and weights of every probe, and what they integrate to; without the filters that are dead in ``alive``."""
    at, (space, _) = c.point(point), living(c, c.mask(mask), c.mask(alive))
    field = c.problem.field("train", size=size, policy=policy, part=part, keep_bytes=KEEP)
    found = curvature.spectral_density(field, at, probes=probes, steps=steps, mask=space, operator=operator)
    quantities = [
        ("trace", None, found.integrate(lambda x: x)),
        ("negative mass", None, found.negative_mass),
        *(("log-determinant", delta, log_determinant_of(found, delta)) for delta in damping),
    ]
    return Output(
        {
            "buffers": field.policy,
            "nodes": [nodes.tolist() for nodes in found.nodes],
            "weights": [weights.tolist() for weights in found.weights],
            "estimates": [estimate_row(q, setting, e) for q, setting, e in quantities],
        }
    )


def estimate_row(quantity: str, setting: float | None, e: Estimate) -> Row:
    """A row of ``estimates``."""
    return {
        "quantity": quantity,
        "setting": setting,
        "value": e.value,
        "se": e.se,
        "draws": e.draws,
        "reason": e.reason,
    }


@rows("density")
def density_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """``densities`` and ``estimates``."""
    values = entry["values"]
    spectrum = {**labels, "buffers": values["buffers"]}
    for probe, (nodes, weights) in enumerate(zip(values["nodes"], values["weights"], strict=True)):
        for node, weight in zip(nodes, weights, strict=True):
            yield "densities", {**spectrum, "probe": probe, "node": node, "weight": weight}
    for row in values["estimates"]:
        yield "estimates", {**spectrum, **row}


@cost("density")
def density_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """A product for every step of every probe."""
    return 3 * inputs["probes"] * inputs["steps"] * used(inputs, sizes)
