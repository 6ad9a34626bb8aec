"""The sublevel sets of a grid of values: persistent homology, and the merge tree of the basins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from sublevel.display import Shown
from sublevel.geometry.topology.merge_tree import MergeTree, disconnectivity

Values = np.ndarray | Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False, repr=False)
class Persistence(Shown):
    """Features of the sublevel sets of a grid [ny, nx], the most persistent first: arrays [features].

    ``dimension`` 0 is a component, 1 a ring around a hill. ``birth`` and ``death`` are values of the grid (inf: never).
    ``row`` and ``column`` locate the birth, the minimum of a component or the point that closes a ring; ``death_row``
    and ``death_column`` locate the death (-1: never).
    """

    dimension: np.ndarray
    birth: np.ndarray
    death: np.ndarray
    row: np.ndarray
    column: np.ndarray
    death_row: np.ndarray
    death_column: np.ndarray

    @property
    def persistence(self) -> np.ndarray:
        """Death - birth."""
        return self.death - self.birth

    def _facts(self) -> dict[str, object]:
        finite = self.persistence[np.isfinite(self.persistence)]
        return {
            "basins:": int((self.dimension == 0).sum()),
            "rings:": int((self.dimension == 1).sum()),
            "most persistent that ends:": float(finite.max()) if len(finite) else None,
        }


def persistence(values: Values) -> Persistence:
    """Persistent homology of the sublevel sets of a plane's values [ny, nx] (Edelsbrunner et al. 2002), by GUDHI.

    The points of the grid are the vertices of a cubical complex; an edge or square appears with its highest corner.
    Neighbours are the four along the axes, as on a path from point to point. Features without persistence are omitted.
    A value of inf lies in no sublevel set.

    Raises ImportError without gudhi, ValueError for a grid that is not two-dimensional, has fewer than 2 points per
    side, or contains nan or -inf.
    """
    grid = _grid(values)
    try:
        import gudhi
    except ImportError as e:
        raise ImportError("persistence of sublevel sets needs the package gudhi: pip install gudhi") from e
    complex_ = gudhi.CubicalComplex(vertices=grid)
    complex_.compute_persistence()
    finite, essential = complex_.vertices_of_persistence_pairs()
    flat = grid.ravel(order="F")
    found = [(d, flat[b], flat[e], b, e) for d, pairs in enumerate(finite) for b, e in np.reshape(pairs, (-1, 2))]
    found += [(d, flat[b], inf, b, -1) for d, births in enumerate(essential) for b in np.ravel(births)]
    found = sorted((f for f in found if f[1] < f[2]), key=lambda f: (f[1] - f[2], f[0], f[1]))
    columns = list(zip(*found, strict=True)) or [()] * 5
    born, died = (np.array(columns[i], dtype=int) for i in (3, 4))
    row, column = np.unravel_index(born, grid.shape, order="F")
    last = np.unravel_index(np.maximum(died, 0), grid.shape, order="F")
    return Persistence(
        np.array(columns[0], dtype=int),
        np.array(columns[1], dtype=float),
        np.array(columns[2], dtype=float),
        row,
        column,
        *(np.where(died < 0, -1, index) for index in last),
    )


def merge_tree(values: Values) -> MergeTree:
    """The merge tree of the basins of a plane's values [ny, nx]: its joins are the lowest passes between minima.

    A leaf is a minimum of the grid, "(row, column)". Points are added in ascending order, and basins that meet at a
    point are joined at its value (union-find; Carr et al. 2003). Neighbours are the four along the axes. Basins without
    persistence are omitted: what is left are the components of `persistence`. A value of inf lies in no basin.

    Raises ValueError as `persistence` does, and for a grid without a finite value.

    >>> merge_tree([[0.0, 2.0, 1.0], [4.0, 5.0, 3.0]]).pairs()
    [Pair(name='(0, 0)', birth=0.0, death=inf), Pair(name='(0, 2)', birth=1.0, death=2.0)]
    """
    grid = _grid(values)
    basin: dict[tuple[int, int], str] = {}
    parent: dict[str, str] = {}
    leaves: dict[str, float] = {}
    joins: dict[tuple[str, str], float] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for i, j in zip(*np.unravel_index(np.argsort(grid, axis=None, kind="stable"), grid.shape), strict=True):
        value, beside = float(grid[i, j]), ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
        if value == inf:
            break
        met = sorted({root(basin[at]) for at in beside if at in basin}, key=lambda name: (leaves[name], name))
        name = met[0] if met else f"({i}, {j})"
        basin[i, j] = name
        if not met:
            leaves[name], parent[name] = value, name
        for other in met[1:]:
            parent[other] = name
            joins[name, other] = value
    flat = {other for (_, other), value in joins.items() if leaves[other] == value}
    return disconnectivity(
        {name: value for name, value in leaves.items() if name not in flat},
        {pair: value for pair, value in joins.items() if pair[1] not in flat},
    )


def _grid(values: Values) -> np.ndarray:
    grid = np.asarray(values, dtype=float)
    if grid.ndim != 2 or min(grid.shape) < 2:
        raise ValueError(f"sublevel sets need a grid [ny, nx] of at least 2 x 2 values, got the shape {grid.shape}")
    bad = int((np.isnan(grid) | np.isneginf(grid)).sum())
    if bad:
        raise ValueError(f"{bad} of {grid.size} values are nan or -inf: they lie in no sublevel set")
    return grid
