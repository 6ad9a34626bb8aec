"""From what the library returns to the tables that the report's figures are made of, by type.

Geometry knows nothing of this: `rows` is a registry of types. To add one, register a function that returns the rows of
each table, and name the plot that draws it in `PLOTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from math import nan
from typing import Any

import numpy as np

from sublevel.errors import ConfigError
from sublevel.geometry.curvature import SpectralDensity, Spectrum
from sublevel.geometry.curvature.density import Smoothed
from sublevel.geometry.paths import Connection, Profile
from sublevel.geometry.planes import Line, Mesh, Plane
from sublevel.geometry.topology import MergeTree, Persistence
from sublevel.geometry.volume import Volume
from sublevel.tickets import Ticket

Row = dict[str, Any]
Rows = Mapping[str, Iterable[Row]]

KINDS = {"points": "through", "directions": "eigen", "filter-normalised": "random"}
"""What a frame is called in a table."""

PLOTS: dict[type, str] = {
    Plane: "plane",
    Mesh: "plane",
    SpectralDensity: "spectrum",
    Smoothed: "spectrum",
    Spectrum: "eigenvalues",
    Profile: "path",
    Connection: "path",
    MergeTree: "tree",
    Persistence: "persistence",
    Line: "profile",
    Volume: "volumes",
    Ticket: "masks",
}
"""Type -> the function of `sublevel.plot` that draws it."""


@singledispatch
def rows(of: object, name: str, number: int) -> Rows:
    """The rows of every table that a figure of the object needs. ``number`` tells several objects apart."""
    known = ", ".join(sorted(kind.__name__ for kind in PLOTS))
    raise ConfigError(f"there is no figure of a {type(of).__name__}; there are figures of {known} and Result")


@rows.register
def _(of: Plane, name: str, number: int) -> Rows:
    x, y = np.meshgrid(of.xs, of.ys)
    return _plane(of, name, zip(x.ravel(), y.ravel(), of.loss.ravel(), of.error.ravel(), strict=True))


@rows.register
def _(of: Mesh, name: str, number: int) -> Rows:
    return _plane(of, name, zip(of.x, of.y, of.loss, of.error, strict=True))


def _plane(of: Plane | Mesh, name: str, points: Iterable[tuple[float, float, float, float]]) -> Rows:
    about = {"plane": name or f"{KINDS[of.frame.kind]} plane", "kind": KINDS[of.frame.kind], "seed": 0.0}
    return {
        "planes": [
            about | {"buffers": of.policy, "reason": of.reason, "x": x, "y": y, "loss": loss, "error": error}
            for x, y, loss, error in points
        ],
        "landmarks": [
            about | {"name": n, "branch": n, "level": nan, "step": nan, "x": x, "y": y, "residual": r}
            for n, (x, y, r) in of.points.items()
        ],
        "seams": [about | {"x0": s.x0, "y0": s.y0, "x1": s.x1, "y1": s.y1, "jump": s.jump} for s in of.seams],
    }


@rows.register
def _(of: SpectralDensity, name: str, number: int) -> Rows:
    about = _spectrum(name)
    rules = enumerate(zip(of.nodes, of.weights, strict=True))
    return {
        "densities": [
            about | {"probe": float(probe), "node": float(node), "weight": float(weight)}
            for probe, (nodes, weights) in rules
            for node, weight in zip(nodes, weights, strict=True)
        ]
    }


@rows.register
def _(of: Smoothed, name: str, number: int) -> Rows:
    columns = zip(of.grid, of.density, of.se, strict=True)
    about = {"branch": name or "density"}
    return {"smoothed": [about | {"eigenvalue": float(x), "density": float(y), "se": float(e)} for x, y, e in columns]}


@rows.register
def _(of: Spectrum, name: str, number: int) -> Rows:
    ends = {
        "largest": (of.values, of.residuals, of.pair_converged),
        "smallest": (of.smallest, of.smallest_residuals, (of.smallest_residuals <= of.bound).tolist()),
    }
    return {
        "spectra": [
            _spectrum(name) | {"end": end, "index": i + 1.0, "eigenvalue": float(values[i]),
                               "residual": float(residuals[i]), "converged": float(converged[i])}
            for end, (values, residuals, converged) in ends.items()
            for i in range(len(values))
        ]
    }  # fmt: skip


def _spectrum(name: str) -> Row:
    return {"branch": name or "spectrum", "level": 0.0, "seed": 0.0, "space": "all", "operator": "", "part": 0.0,
            "buffers": ""}  # fmt: skip


@rows.register
def _(of: Profile, name: str, number: int) -> Rows:
    about = {
        "path": "given", "branch": name or "path", "level_from": nan, "level_to": float(number), "seed": 0.0,
        "order": "", "split": "", "buffers": "",
    }  # fmt: skip
    columns = zip(of.alphas, of.loss, of.error, strict=True)
    return {"profiles": [about | {"alpha": float(a), "loss": float(v), "error": float(e)} for a, v, e in columns]}


@rows.register
def _(of: Connection, name: str, number: int) -> Rows:
    return rows(of.profile, name or of.found, number)


@rows.register
def _(of: Line, name: str, number: int) -> Rows:
    about = {"branch": "", "level": 0.0, "seed": 0.0, "set": name or "direction", "part": 0.0, "buffers": "",
             "when": ""}  # fmt: skip
    columns = zip(of.radii, of.loss, of.error, strict=True)
    return {"slices": [about | {"radius": float(r), "loss": float(v), "error": float(e)} for r, v, e in columns]}


@rows.register
def _(of: MergeTree, name: str, number: int) -> Rows:
    places, lines = of.layout()
    about = {"of": "loss", "x1": nan, "y1": nan}
    leaves = [about | {"part": "leaf", "name": n, "x0": x, "y0": of.minimax(n, n)} for n, x in places.items()]
    across = [{"of": "loss", "part": "line", "name": "", "x0": s.x0, "y0": s.y0, "x1": s.x1, "y1": s.y1} for s in lines]
    return {"tree": [*leaves, *across], "joins": []}


@rows.register
def _(of: Persistence, name: str, number: int) -> Rows:
    columns = zip(of.dimension, of.birth, of.death, of.column, of.row, strict=True)
    about = {"plane": name, "seed": 0.0, "reason": ""}
    return {
        "persistence": [
            about | {"dimension": float(d), "birth": float(b), "death": float(e) if np.isfinite(e) else nan,
                     "x": float(x), "y": float(y)}
            for d, b, e, x, y in columns
        ]
    }  # fmt: skip


@rows.register
def _(of: Volume, name: str, number: int) -> Rows:
    about = {"branch": "", "level": 0.0, "seed": 0.0, "space": "all", "operator": "", "part": 0.0, "buffers": ""}
    return {
        "volumes": [
            about | {"method": name or "volume", "k": float(of.n), "dimension": float(of.n), "eps": of.eps,
                     "log_volume": of.log_volume, "effective_radius": of.effective_radius, "se": of.se or nan,
                     "nonstationarity": nan, "stationary": nan, "reason": of.reason}
        ]
    }  # fmt: skip


@rows.register
def _(of: Ticket, name: str, number: int) -> Rows:
    about, layers = {"branch": "ticket", "level": float(number), "seed": 0.0}, list(of.space.prunable_layers)
    left = [int(of.mask[layer.coordinates].sum()) for layer in layers]
    sizes = [int(of.mask[layer.coordinates].numel()) for layer in layers]
    return {
        "layers": [
            about | {"layer": layer.name, "index": float(i), "prunable": float(n), "remaining": float(m),
                     "density": m / n}
            for i, (layer, m, n) in enumerate(zip(layers, left, sizes, strict=True))
        ]
    }  # fmt: skip


def named(of: object) -> dict[str, object]:
    """One object or several, by name: a mapping, a sequence, or a single one, whose name is empty."""
    if isinstance(of, Mapping):
        return {str(name): each for name, each in of.items()}
    if isinstance(of, Sequence) and not isinstance(of, str):
        return {str(i): each for i, each in enumerate(of)}
    return {"": of}
