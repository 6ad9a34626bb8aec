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
from functools import cached_property

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.lanczos import Enough, LinearMap, Normalised, Progress, Ritz, lanczos, whole
from sublevel.geometry.curvature.missed import (
    LOOKS,
    MISSED,
    RESOLVED,
    ROUNDING,
    ComplementRun,
    Exclusion,
    allowed,
    lowered,
)
from sublevel.geometry.curvature.operators import unsymmetric
from sublevel.geometry.curvature.ritz_pairs import Pairs, checked, orthonormal

KNOWN = 0.03
"""A pair below the k largest counts as known if its residual is at most this share of its distance from them."""


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
    first: Ritz
    """The first run, in units of ``unit``."""
    unit: float
    products: int
    stop: str

    @property
    def negative(self) -> np.ndarray:
        """The Ritz values of the first run that are negative beyond rounding; at least as many eigenvalues are."""
        return self.first.values * self.unit < -self.rounding


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
    search = _Search(scaled, draw, k, tolerance, eps, chance, steps, (ComplementRun(first),), pool)
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
        first=first,
        unit=unit,
        products=sum(run.ritz.products for run in search.runs) + 1,
        stop=stop,
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """The pairs that the ``runs`` so far have found, in ``pool``; the k largest of them are the result."""

    operator: LinearMap
    draw: Callable[[int], Tensor]
    k: int
    tolerance: float
    eps: float
    chance: Exclusion
    steps: int
    runs: tuple[ComplementRun, ...]
    pool: Pairs

    @property
    def found(self) -> Pairs:
        return self.pool.first(self.k)

    @property
    def scale(self) -> float:
        return float(np.abs(self.runs[0].ritz.values).max())

    @property
    def full(self) -> bool:
        return len(self.pool.values) >= self.k

    @property
    def bounds(self) -> np.ndarray:
        """The largest allowed residuals of the pairs found."""
        return allowed(self.found.values, self.tolerance, self.rounding)

    @property
    def edges(self) -> np.ndarray:
        """The values that a missing eigenvalue would exceed: those of pairs with small residuals, plus their bounds."""
        return (self.found.values + self.bounds)[self.found.sizes <= self.bounds]

    @property
    def rounding(self) -> float:
        return max(ROUNDING * self.eps * self.scale, float(np.finfo(float).tiny))

    @cached_property
    def slack(self) -> np.ndarray:
        """How far above each pair a missing eigenvalue may lie, at most; inf if no bound is known.

        It is within the pair's bound. If rounding ended the last look without a sign of another eigenvalue, it may be
        larger: up to `RESOLVED` of the value, or ``tolerance`` of the largest value for a value that may be 0.
        """
        first, values, bounds = self.runs[0].ritz, self.found.values, self.bounds
        if first.products == first.progress.dimension:
            return np.zeros(len(values))
        most, last = bounds, self.runs[-1]
        if len(self.runs) > 1 and last.ritz.exhausted and self.edges.size and not self.sign:
            own = RESOLVED * np.abs(values)
            most = np.maximum(bounds, np.where(own <= RESOLVED * self.rounding, np.inf, own))
            most = np.maximum(bounds, np.minimum(most, self.tolerance * self.scale))

        def slack(value: float, bound: float, most: float) -> float:
            while True:
                if self.chance.excluded([run.chance_of_more(value + bound) for run in self.runs]):
                    return bound
                if bound >= most:
                    return np.inf
                bound = min(2 * bound, most)

        return np.array([slack(*one) for one in zip(values, bounds, most, strict=True)])

    @property
    def certain(self) -> np.ndarray:
        """The pairs above which no eigenvalue is missing."""
        return np.isfinite(self.slack)

    @property
    def complete(self) -> bool:
        return self.full and bool(self.certain.all())

    @property
    def steps_were_enough(self) -> bool:
        return all(run.ritz.enough for run in self.runs)

    def finished(self, restarts: int) -> _Search:
        """Look and search until nothing is missing, or ``restarts`` searches have been made."""
        search, searches, looks = self, 0, 0
        while not search.complete:
            if search.full:
                if not restarts or not search.edges.size:
                    break
                search, looks = search.looked(), looks + 1
                if search.sign and searches < restarts:
                    searches, looks = searches + 1, 0
                elif not search.sign and search.runs[-1].ritz.exhausted and looks < LOOKS:
                    continue
                else:
                    break
            known = len(search.pool.values)
            search = search.continued()
            if len(search.pool.values) == known and not search.full:
                break
        return search

    @property
    def sign(self) -> bool:
        """Whether the last look saw a value that may belong among the k."""
        return bool(self.runs[-1].ritz.values[-1] > self.least(self.runs[-1]))

    def least(self, run: ComplementRun) -> float:
        """The least image of a missing eigenvalue in the complement of the pairs that a run knows."""
        return min(lowered(t, run.values, run.residuals) for t in self.edges)

    def looked(self) -> _Search:
        """Look at the complement of all known pairs, up to the first sign of a missing eigenvalue."""
        first, edge = self.runs[0].ritz, self.edges.min()
        others = first.residuals <= KNOWN * (edge - first.values)
        others &= np.arange(len(others)) < len(others) - self.k
        known = self.pool.joined(Pairs.of(first, others, len(others)).apart(self.pool))
        look = ComplementRun(first, known.values, known.sizes)
        least = self.least(look)

        def enough(progress: Progress) -> bool:
            return bool(progress.values[-1] > least) or self.chance.excluded([progress.chance_of_more(least)])

        return replace(self, runs=(*self.runs, replace(look, ritz=self._run(known, enough))))

    def continued(self) -> _Search:
        """Search the complement of the pool until the values that belong among the k have converged."""
        pool = self.pool
        floor = float(self.edges.min()) if self.full else -np.inf

        def new(values: np.ndarray) -> np.ndarray:
            every = np.sort(np.concatenate([pool.values, values]))
            return (values > floor) & (values >= every[-self.k :][0])

        def enough(progress: Progress) -> bool:
            if len(pool.values) + len(progress.values) < self.k:
                return False
            belongs = new(progress.values)
            if belongs.any():
                small = allowed(progress.values, self.tolerance, self.rounding) / 2
                return bool((progress.residuals <= small)[belongs].all())
            least = min(lowered(t, pool.values, pool.sizes) for t in self.edges)
            return self.chance.excluded([progress.chance_of_more(least)])

        more = self._run(pool, enough)
        brought = pool.joined(Pairs.of(more, new(more.values), self.k))
        return replace(self, runs=(*self.runs, ComplementRun(more, pool.values, pool.sizes)), pool=brought)

    def _run(self, known: Pairs, enough: Enough) -> Ritz:
        start, against = self.draw(len(self.runs)), orthonormal(known.vectors)
        return lanczos(self.operator, start, steps=self.steps, against=against, scale=self.scale, enough=enough)

    def doubt(self, restarts: int) -> str:
        """Why an eigenvalue may be missing."""
        if not restarts:
            return "restarts: no search for copies of eigenvalues was made"
        if not self.runs[-1].ritz.enough:
            return f"steps: a search for copies did not end within {self.runs[-1].ritz.products} products"
        if not self.sign:
            return "rounding: it hides whether another copy of an eigenvalue is missing"
        return f"restarts: after {restarts} searches there is still a sign of another copy of an eigenvalue"


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
