"""The largest eigenvalues of a symmetric operator with all their copies; residuals take no further products.

A single start vector sees one copy of a multiple eigenvalue. Another copy can only lie in the complement of the known
pairs, which include known pairs below the k-th. A look at the complement, a Lanczos run from a new random start, either
shows a value that belongs among the k largest, or excludes one (`Progress.chance_of_more`). If one shows, a search in
the complement of the k pairs finds it, and the next look follows.

Known pairs are inexact, and the look accounts for that (`sublevel.geometry.curvature.missed`): pair j keeps its place
if no eigenvalue above t = theta_j + bound_j is missing, except by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.lanczos import Enough, LinearMap, Normalised, Progress, lanczos, whole
from sublevel.geometry.curvature.missed import MISSED, ROUNDING, ComplementRun, Exclusion, allowed
from sublevel.geometry.curvature.operators import unsymmetric
from sublevel.geometry.curvature.ritz_pairs import Pairs, checked
from sublevel.geometry.curvature.search import Search


@dataclass(frozen=True, eq=False)
class TopEigenpairs:
    """The k largest algebraic eigenvalues (descending) with their diagnostics."""

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k n"]
    residuals: Float[Tensor, "k"]
    bounds: Float[Tensor, "k"]
    """The largest allowed residual of each pair, and how far above it a missing eigenvalue may lie (see `allowed`)."""
    converged: list[bool]
    """The residual is within its bound, and no eigenvalue above the pair is missing (but for a chance of `MISSED`)."""
    lowest: Float[Tensor, "low"]
    """The lowest Ritz values of the first run, ascending; the run waits only for negative ones."""
    lowest_residuals: Float[Tensor, "low"]
    scale: float
    """The largest |Ritz value|."""
    rounding: float
    """The rounding of a value: `ROUNDING` units in the last place, or the error of the operator itself."""
    asymmetry: float
    """|C - C^T| / |C| of the operator's compression C to the first run."""
    ritz_values: np.ndarray
    """All Ritz values of the first run."""
    negative_mass: float
    """The share of a random vector's squared norm on Ritz values that are negative beyond rounding."""
    pair_products: int
    """The products that the first run took."""
    products: int
    stop: str

    @property
    def negative_count(self) -> int:
        """The number of Ritz values that are negative beyond rounding; at least as many eigenvalues are."""
        return int((self.ritz_values < -self.rounding).sum())


def top_eigenpairs(
    operator: LinearMap,
    draw: Callable[[int], Float[Tensor, "n"]],
    *,
    k: int,
    tolerance: float,
    steps: int,
    restarts: int = 3,
    negative: int = 0,
) -> TopEigenpairs:
    """The k largest algebraic eigenvalues of a symmetric operator on R^n.

    ``draw(i)`` gives the start vector of run i. `allowed` bounds the residuals, relative to the value. The first run
    also waits for its ``negative`` lowest values if they are negative (residuals relative to the largest |Ritz value|).
    Looks then check for missing eigenvalues: copies of multiple ones, which the first run cannot see. At most
    ``restarts`` searches find them, each followed by another look. With ``restarts`` = 0 there is no look, and only the
    first pair can converge. Searches do not count while fewer than k pairs are known, since an exhausted Krylov space
    shows one copy of each eigenvalue. If k is at least a third of the spectrum, the whole matrix is formed: n products,
    no more than a search takes.

    Raises FloatingPointError for a product that is not finite.
    """
    start, scaled = draw(0), Normalised(operator)
    k = min(k, len(start))
    eps = torch.finfo(start.dtype).eps
    chance = Exclusion(MISSED, restarts + 3)
    first = (
        whole(scaled, start)
        if 3 * k >= len(start)
        else lanczos(scaled, start, steps=steps, enough=_first(k, negative, tolerance, eps, chance, restarts))
    )
    pool = Pairs.of(first, np.ones(len(first.values), dtype=bool), k)
    search = Search(scaled, draw, k, tolerance, eps, chance, steps, (ComplementRun(first),), pool)
    good = pool.sizes <= search.bounds
    if first.enough and good.any():  # a copy that rounding has half brought is left to the searches
        search = replace(search, pool=pool.where(good))
    reason = unsymmetric(first.asymmetry, start.dtype)
    search = search if reason else search.finished(restarts)
    found, scale = search.found, search.scale
    low = Pairs.of(first, np.arange(len(first.values)) < max(negative, 1), len(first.values)).reversed()
    residuals, low_residuals, off = checked(scaled, found, low)
    rounding = max(ROUNDING * eps * scale, min(2 * off, tolerance * scale))
    bounds, certain = allowed(found.values, tolerance, rounding), search.certain
    bounds = np.maximum(bounds, np.where(certain, search.slack, 0.0))
    small = residuals <= bounds
    if reason:
        stop, certain = reason, certain & False
    elif not small.all():
        stop = f"steps: no convergence within {steps} products"
        if search.steps_were_enough:
            stop = "rounding: a residual is larger than its bound"
    else:
        stop = "converged" if certain.all() else search.doubt(restarts)
    unit = scaled.unit
    return TopEigenpairs(
        values=torch.from_numpy(found.values * unit),
        vectors=found.vectors,
        residuals=torch.from_numpy(residuals * unit),
        bounds=torch.from_numpy(bounds * unit),
        converged=(small & certain).tolist(),
        lowest=torch.from_numpy(low.values * unit),
        lowest_residuals=torch.from_numpy(low_residuals * unit),
        scale=scale * unit,
        rounding=rounding * unit,
        asymmetry=first.asymmetry,
        ritz_values=first.values * unit,
        negative_mass=float(first.weights[first.values * unit < -rounding * unit].sum()),
        pair_products=first.products,
        products=sum(run.ritz.products for run in search.runs) + 1,
        stop=stop,
    )


def _first(k: int, negative: int, tolerance: float, eps: float, chance: Exclusion, restarts: int) -> Enough:
    """Stop the first run once both ends have converged, with residuals of half their bounds if a look follows.

    If no look follows, the run must also exclude an eigenvalue above the largest value.
    """

    def enough(progress: Progress) -> bool:
        values, residuals = progress.values, progress.residuals
        if len(values) < k + negative:
            return False
        scale = float(np.abs(values).max())
        small = allowed(values, tolerance, max(ROUNDING * eps * scale, np.finfo(float).tiny))
        low = residuals[:negative][values[:negative] < -tolerance * scale]
        if not ((residuals <= (small / 2 if restarts else small))[-k:].all() and (low <= tolerance * scale).all()):
            return False
        return (k > 1 and restarts > 0) or chance.excluded([progress.chance_of_more(float(values[-1] + small[-1]))])

    return enough
