"""The search for missing copies of eigenvalues, in the complement of the pairs that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sublevel._types import Tensor
from sublevel.geometry.curvature.lanczos import Enough, LinearMap, Progress, Ritz, lanczos
from sublevel.geometry.curvature.missed import LOOKS, RESOLVED, ROUNDING, ComplementRun, Exclusion, allowed, lowered
from sublevel.geometry.curvature.ritz_pairs import Pairs, orthonormal

KNOWN = 0.03
"""A pair below the k largest counts as known if its residual is at most this share of its distance from them."""


@dataclass(frozen=True, eq=False)
class Search:
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
        """The k largest pairs."""
        return self.pool.first(self.k)

    @property
    def scale(self) -> float:
        """The largest |Ritz value|."""
        return float(np.abs(self.runs[0].ritz.values).max())

    @property
    def full(self) -> bool:
        """Whether k pairs are known."""
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
        """The rounding of a value of 0."""
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
        """Whether k pairs are known and none above them is missing."""
        return self.full and bool(self.certain.all())

    @property
    def steps_were_enough(self) -> bool:
        """Whether no run stopped at the limit of its steps."""
        return all(run.ritz.enough for run in self.runs)

    def finished(self, restarts: int) -> Search:
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

    def looked(self) -> Search:
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

    def continued(self) -> Search:
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
