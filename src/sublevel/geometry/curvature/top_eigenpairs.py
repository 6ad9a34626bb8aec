"""The largest eigenvalues of a symmetric operator, every copy of them, with residuals that cost no products.

A single start vector sees one copy of a multiple eigenvalue. Whether another is left is asked of the complement of the
pairs that are known, those below the k-th too as far as they are: a run from a new random start either shows a value
that belongs among the k, or has excluded one (`lanczos.Seen.chance_of_more`). If one shows, a search in the complement
of the pairs among the k brings it, and the next look asks again.

The look is exact about pairs that are known inexactly. Let W be the known pairs, with values theta_i and residuals r_i,
and B the operator's compression to their complement. By Schur's complement, A has no more eigenvalues above t than W
has, if the largest eigenvalue of B is below t - sum_i r_i^2 / (t - theta_i), over the theta_i below t. So pair j is
where it stands if that holds for t = theta_j + bound_j and every value of B above it was missed by chance alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import comb

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.lanczos import Enough, LinearMap, Normalised, Ritz, Seen, lanczos, whole
from sublevel.geometry.curvature.operators import unsymmetric
from sublevel.geometry.curvature.ritz_pairs import Pairs, checked, orthonormal

MISSED = 1e-3
"""The chance, at most, over random starts, that an eigenvalue is missing from among pairs called converged."""

KNOWN = 0.03
"""A pair beside the k largest is known where its residual is at most this share of its distance from it."""

LOOKS = 3
"""Looks that may be made at the same pairs, each from a start of its own, where rounding ends one early."""

ROUNDING = 10
"""Units in the last place of the largest |Ritz value| that a value of 0 may be off by: less is not looked for."""

RESOLVED = 0.01
"""The share of its own size that rounding may leave of a value that is called converged."""


@dataclass(frozen=True, eq=False)
class TopEigenpairs:
    """The k largest algebraic eigenvalues (descending), with what is needed to trust them."""

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k n"]
    residuals: Float[Tensor, "k"]
    bounds: Float[Tensor, "k"]
    """The residual that a pair may have, and how far above it a missing eigenvalue may lie (see `allowed`)."""
    converged: list[bool]
    """The residual is within its bound, and no eigenvalue that would move the pair down is missing (`MISSED`)."""
    lowest: Float[Tensor, "low"]
    """The lowest Ritz values of the first run, ascending; they are waited for only where they are negative."""
    lowest_residuals: Float[Tensor, "low"]
    scale: float
    """The largest |Ritz value|."""
    rounding: float
    """What rounding leaves of a value: `ROUNDING` units in the last place, or what the operator itself was off by."""
    asymmetry: float
    """|C - C^T| / |C| of the operator's compression C to the first run."""
    first: Ritz
    """The first run, in units of ``unit``."""
    unit: float
    products: int
    stop: str

    @property
    def negative(self) -> np.ndarray:
        """Which Ritz values of the first run are negative beyond rounding: so many eigenvalues are, at least."""
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

    ``draw(i)`` gives the start vector of run i. A residual is small where `allowed` says so: relative to the value. The
    first run also waits for its ``negative`` lowest values where they are negative (residuals relative to the largest
    |Ritz value|). Then it is looked whether an eigenvalue is missing: copies of multiple ones the first run cannot see.
    At most ``restarts`` searches bring them, each followed by another look; ``restarts`` = 0: no look, and only the
    first pair can be converged. Searches do not count while fewer than k pairs are known: a Krylov space that is
    exhausted earlier shows one copy of each eigenvalue. Where at least a third of the spectrum is asked for, the whole
    matrix is formed: n products, no more than a search takes.

    Raises FloatingPointError where a product is not finite.
    """
    start, scaled = draw(0), Normalised(operator)
    k = min(k, len(start))
    eps = torch.finfo(start.dtype).eps
    chance = _Chance(MISSED, restarts + 3)
    first = (
        whole(scaled, start)
        if 3 * k >= len(start)
        else lanczos(scaled, start, steps=steps, enough=_first(k, negative, tolerance, eps, chance, restarts))
    )
    search = _Search.of(scaled, draw, k, tolerance, eps, chance, steps, first)
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
            stop = "rounding: it leaves more of a residual than its bound"
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


def allowed(values: np.ndarray, tolerance: float, rounding: float) -> np.ndarray:
    """The residuals that pairs of these values may have: ``tolerance`` times the value's own size.

    Where ``rounding`` leaves more, that, up to `RESOLVED` times the value; a value within it may be 0.

    >>> allowed(np.array([1.0, 1e-3, 1e-9]), 1e-4, 1e-6).tolist()
    [0.0001, 1e-06, 1e-06]
    """
    own = np.abs(values)
    return np.maximum(tolerance * own, np.where(own <= rounding, rounding, np.minimum(rounding, RESOLVED * own)))


@dataclass(frozen=True, eq=False)
class _Run:
    """A run in the complement of pairs of these ``values`` and ``residuals``."""

    ritz: Ritz
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    residuals: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def chance_of_more(self, t: float) -> float:
        """The chance that the operator has more eigenvalues above t than the known pairs have."""
        return self.ritz.seen.chance_of_more(lowered(t, self.values, self.residuals))


def lowered(t: float, values: np.ndarray, residuals: np.ndarray) -> float:
    """What an eigenvalue above t leaves at least in the complement of pairs that are known inexactly.

    >>> lowered(1.0, np.array([2.0, 0.5, 1.0]), np.array([0.1, 0.1, 0.0]))
    0.98
    """
    below = values < t
    return t - float((residuals[below] ** 2 / (t - values[below])).sum())


@dataclass(frozen=True)
class _Chance:
    """When ``runs`` runs from independent starts have excluded something, but for a chance of ``missed`` in all.

    Of independent starts j all miss what each of them misses with a chance of at most p with one of C(runs, j) p^j. A
    third of ``missed`` goes to j = 1, 2 and 3 each: where rounding ends a run early, several of them exclude what one
    does not.

    >>> few = _Chance(1e-3, 4)
    >>> few.excluded([1e-5]), few.excluded([5e-3]), few.excluded([5e-3, 5e-3])
    (True, False, True)
    """

    missed: float
    runs: int

    def excluded(self, chances: Sequence[float]) -> bool:
        each = self.missed / LOOKS
        ordered = sorted(chances)[:LOOKS]
        return any(comb(self.runs, j) * p**j <= each for j, p in enumerate(ordered, start=1))


@dataclass(frozen=True, eq=False)
class _Search:
    """The pairs that the ``runs`` so far have brought, in ``pool``; the k largest of them are what is found."""

    operator: LinearMap
    draw: Callable[[int], Tensor]
    k: int
    tolerance: float
    eps: float
    chance: _Chance
    steps: int
    runs: tuple[_Run, ...]
    pool: Pairs

    @classmethod
    def of(
        cls,
        operator: LinearMap,
        draw: Callable[[int], Tensor],
        k: int,
        tolerance: float,
        eps: float,
        chance: _Chance,
        steps: int,
        first: Ritz,
    ) -> _Search:
        """After the first run. A copy that rounding has half brought is no pair of it: it is searched for."""
        pool = Pairs.of(first, np.ones(len(first.values), dtype=bool), k)
        search = cls(operator, draw, k, tolerance, eps, chance, steps, (_Run(first),), pool)
        right = pool.sizes <= search.bounds
        return replace(search, pool=pool.where(right)) if first.enough and right.any() else search

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
        """The residuals that the pairs found may have."""
        return allowed(self.found.values, self.tolerance, self.rounding)

    @property
    def edges(self) -> np.ndarray:
        """The values that an eigenvalue which is missing would exceed: of the pairs that have converged otherwise."""
        return (self.found.values + self.bounds)[self.found.sizes <= self.bounds]

    @property
    def rounding(self) -> float:
        return max(ROUNDING * self.eps * self.scale, float(np.finfo(float).tiny))

    @cached_property
    def slack(self) -> np.ndarray:
        """How far above each pair a missing eigenvalue that moves it down may lie, at most; inf where that is open.

        It is within the pair's bound. Where rounding has ended the last look, with no sign of anything, it may be more:
        up to `RESOLVED` of the value, or ``tolerance`` of the largest for a value that may be 0.
        """
        first, values, bounds = self.runs[0].ritz, self.found.values, self.bounds
        if first.products == first.seen.dimension:
            return np.zeros(len(values))
        most, last = bounds, self.runs[-1]
        if len(self.runs) > 1 and last.ritz.exhausted and self.edges.size and not self.sign:
            own = RESOLVED * np.abs(values)
            most = np.maximum(bounds, np.where(own <= RESOLVED * self.rounding, np.inf, own))
            most = np.maximum(bounds, np.minimum(most, self.tolerance * self.scale))
        return np.array([self._slack(*one) for one in zip(values, bounds, most, strict=True)])

    def _slack(self, value: float, bound: float, most: float) -> float:
        while True:
            if self.chance.excluded([run.chance_of_more(value + bound) for run in self.runs]):
                return bound
            if bound >= most:
                return np.inf
            bound = min(2 * bound, most)

    @property
    def certain(self) -> np.ndarray:
        """Which pairs no eigenvalue that is missing can move down."""
        return np.isfinite(self.slack)

    @property
    def complete(self) -> bool:
        return self.full and bool(self.certain.all())

    @property
    def steps_were_enough(self) -> bool:
        return all(run.ritz.enough for run in self.runs)

    def finished(self, restarts: int) -> _Search:
        """After looks and searches, until nothing is missing, or ``restarts`` searches have been made."""
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
        """Whether the last look has seen what may belong among the k."""
        return bool(self.runs[-1].ritz.values[-1] > self.least(self.runs[-1]))

    def least(self, run: _Run) -> float:
        """The least that an eigenvalue which is missing leaves in the complement of what a run knows."""
        return min(lowered(t, run.values, run.residuals) for t in self.edges)

    def looked(self) -> _Search:
        """After a look at the complement of all that is known, which ends at the first sign of what is missing."""
        first, edge = self.runs[0].ritz, self.edges.min()
        others = first.residuals <= KNOWN * (edge - first.values)
        others &= np.arange(len(others)) < len(others) - self.k
        known = self.pool.joined(Pairs.of(first, others, len(others)).apart(self.pool))
        look = _Run(first, known.values, known.sizes)
        least = self.least(look)

        def enough(seen: Seen) -> bool:
            return bool(seen.values[-1] > least) or self.chance.excluded([seen.chance_of_more(least)])

        return replace(self, runs=(*self.runs, replace(look, ritz=self._run(known, enough))))

    def continued(self) -> _Search:
        """After a run in the complement of the pool, which ends once what belongs among the k has converged."""
        pool = self.pool
        floor = float(self.edges.min()) if self.full else -np.inf

        def new(values: np.ndarray) -> np.ndarray:
            every = np.sort(np.concatenate([pool.values, values]))
            return (values > floor) & (values >= every[-self.k :][0])

        def enough(seen: Seen) -> bool:
            if len(pool.values) + len(seen.values) < self.k:
                return False
            belongs = new(seen.values)
            if belongs.any():
                small = allowed(seen.values, self.tolerance, self.rounding) / 2
                return bool((seen.residuals <= small)[belongs].all())
            least = min(lowered(t, pool.values, pool.sizes) for t in self.edges)
            return self.chance.excluded([seen.chance_of_more(least)])

        more = self._run(pool, enough)
        brought = pool.joined(Pairs.of(more, new(more.values), self.k))
        return replace(self, runs=(*self.runs, _Run(more, pool.values, pool.sizes)), pool=brought)

    def _run(self, known: Pairs, enough: Enough) -> Ritz:
        start, against = self.draw(len(self.runs)), orthonormal(known.vectors)
        return lanczos(self.operator, start, steps=self.steps, against=against, scale=self.scale, enough=enough)

    def doubt(self, restarts: int) -> str:
        """Why an eigenvalue may be missing."""
        if not restarts:
            return "restarts: copies of eigenvalues were not searched for"
        if not self.runs[-1].ritz.enough:
            return f"steps: a search for copies did not end within {self.runs[-1].ritz.products} products"
        if not self.sign:
            return "rounding: it hides whether a further copy of an eigenvalue is left"
        return f"restarts: after {restarts} there is still a sign of a further copy of an eigenvalue"


def _first(k: int, negative: int, tolerance: float, eps: float, chance: _Chance, restarts: int) -> Enough:
    """Both ends have converged, with residuals of half what they may be, as the look at what is missing needs.

    Where no look follows, no eigenvalue above the largest value is missing.
    """

    def enough(seen: Seen) -> bool:
        values, residuals = seen.values, seen.residuals
        if len(values) < k + negative:
            return False
        scale = float(np.abs(values).max())
        small = allowed(values, tolerance, max(ROUNDING * eps * scale, np.finfo(float).tiny))
        low = residuals[:negative][values[:negative] < -tolerance * scale]
        if not ((residuals <= (small / 2 if restarts else small))[-k:].all() and (low <= tolerance * scale).all()):
            return False
        return (k > 1 and restarts > 0) or chance.excluded([seen.chance_of_more(float(values[-1] + small[-1]))])

    return enough
