"""The largest eigenvalues of a symmetric operator, every copy of them, with residuals that cost no products.

A single start vector sees one copy of a multiple eigenvalue. Whether another is left is asked of the complement of the
pairs that are known, those below the k-th too as far as they are: there a few products show it. If so, `extremes`
starts again in the complement of the pairs among the k, until a run brings nothing that belongs among them. What a
search that ended earlier may have missed is not called converged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.lanczos import Enough, Operator, Ritz, lanczos, whole

MISSED = 1e-4
"""The chance of missing an eigenvalue that a search for copies may end at: a bound, and far from tight."""

KNOWN = 0.03
"""A pair beside the k largest is known where its residual is at most this share of its distance from it."""


@dataclass(frozen=True, eq=False)
class Extremes:
    """The k largest algebraic eigenvalues (descending), with what is needed to trust them."""

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k n"]
    residuals: Float[Tensor, "k"]
    converged: list[bool]
    """The residual is small, and no copy of a larger eigenvalue, which would move the pair down, may be missing."""
    lowest: Float[Tensor, "low"]
    """The lowest Ritz values of the first run, ascending; they are waited for only where they are negative."""
    lowest_residuals: Float[Tensor, "low"]
    first: Ritz
    products: int
    stop: str


def extremes(
    operator: Operator,
    draw: Callable[[int], Float[Tensor, "n"]],
    *,
    k: int,
    tolerance: float,
    steps: int,
    restarts: int = 3,
    negative: int = 0,
) -> Extremes:
    """The k largest algebraic eigenvalues of a symmetric operator on R^n.

    ``draw(i)`` gives the start vector of run i. A residual is small where it is at most ``tolerance`` times the largest
    |Ritz value|. The first run also waits for its ``negative`` lowest values where they are negative. The next looks
    whether there are copies of multiple eigenvalues, which the first cannot see; if so, at most ``restarts`` more
    search for them, and ``stop`` says if the last one still found something (``restarts`` = 0: no look either).
    Searches do not count while fewer than k pairs are known: a Krylov space that is exhausted earlier shows one copy of
    each eigenvalue. Where at least a third of the spectrum is asked for, the whole matrix is formed: n products, no
    more than a search takes.

    Raises FloatingPointError where a product is not finite.
    """
    start = draw(0)
    k = min(k, len(start))
    first = (
        whole(operator, start)
        if 3 * k >= len(start)
        else lanczos(operator, start, steps=steps, enough=_both_ends(k, negative, tolerance))
    )
    search = _Search(operator, draw, k, tolerance, steps, (first,), _Pairs.of(first, first.values > -np.inf, k))
    if not search.complete and restarts:
        search = search.looked()
    searches = 0
    while not search.complete and searches < restarts:
        searches += len(search.found.values) == k
        search = search.continued()
    found = search.found
    low = _Pairs.of(first, np.arange(len(first.values)) < max(negative, 1), len(first.values)).reversed()
    residuals, low_residuals = np.split(checked(operator, found, low), [len(found.values)])
    small, certain = residuals <= search.small, search.certain
    stop = "converged"
    if not small.all():
        stop = f"steps: no convergence within {steps} products"
    elif not certain.all():
        stop = search.doubt(restarts)
    return Extremes(
        values=torch.from_numpy(found.values.copy()),
        vectors=found.vectors,
        residuals=torch.from_numpy(residuals),
        converged=(small & certain).tolist(),
        lowest=torch.from_numpy(low.values.copy()),
        lowest_residuals=torch.from_numpy(low_residuals.copy()),
        first=first,
        products=sum(run.products for run in search.runs) + 1,
        stop=stop,
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """The pairs ``found`` by the ``runs`` so far. Above ``ceiling`` no copy of an eigenvalue is missing."""

    operator: Operator
    draw: Callable[[int], Tensor]
    k: int
    tolerance: float
    steps: int
    runs: tuple[Ritz, ...]
    found: _Pairs
    ceiling: float = np.inf

    @property
    def scale(self) -> float:
        return float(np.abs(self.runs[0].values).max())

    @property
    def small(self) -> float:
        return self.tolerance * max(self.scale, np.finfo(float).tiny)

    @property
    def floor(self) -> float:
        """The value that a copy must exceed to belong among the k."""
        return float(self.found.values[-1]) + self.small if len(self.found.values) == self.k else -np.inf

    @property
    def complete(self) -> bool:
        return self.ceiling == -np.inf or self.runs[0].products == len(self.draw(0))

    @property
    def certain(self) -> np.ndarray:
        """Which pairs no missing copy of a larger eigenvalue can move down."""
        ceiling = -np.inf if self.complete else min(self.ceiling, self.found.values[0])
        return self.found.values >= ceiling - self.small

    def looked(self) -> _Search:
        """After a look at the complement of all that the first run knows, which ends at the first sign of a copy.

        An eigenvector x of the eigenvalue lambda has the component x^T d / (lambda - theta) on a Ritz vector of the
        value theta with the defect d, of norm r. So in the complement of such vectors the largest Rayleigh quotient is
        at least lambda - sum r^2 / (lambda - theta): a copy above the floor shows above the floor less that sum.
        """
        first, floor = self.runs[0], self.floor
        if floor == -np.inf:
            return self
        below = floor - self.small - first.values[: -self.k]
        known = first.residuals[: -self.k] <= KNOWN * below
        lowered = floor - self.small - float((first.residuals[: -self.k][known] ** 2 / below[known]).sum())
        outside = np.append(known, np.ones(self.k, dtype=bool))
        nothing = _nothing_above(lowered, first.basis.shape[1], 0.0)
        more = self._run(
            _orthonormal(first.vectors(outside)),
            lambda values, residuals: bool(values[-1] > lowered) or nothing(values, residuals),
        )
        none = more.enough and not more.values[-1] > lowered
        return replace(self, runs=(*self.runs, more), ceiling=-np.inf if none else np.inf)

    def continued(self) -> _Search:
        """After a run in the complement of what is found.

        It sees one copy of each eigenvalue that is left; above the largest that it brings, none was.
        """
        known = _orthonormal(self.found.vectors)
        more = self._run(known, _nothing_above(self.floor, known.shape[1], self.small))
        new = more.values > self.floor
        found = self.found.joined(_Pairs.of(more, new, self.k), self.k) if new.any() else self.found
        seen = float(more.values[-1]) if new.any() else -np.inf
        return replace(self, runs=(*self.runs, more), found=found, ceiling=seen if more.enough else np.inf)

    def _run(self, against: Tensor, enough: Enough) -> Ritz:
        start = self.draw(len(self.runs))
        return lanczos(self.operator, start, steps=self.steps, against=against, scale=self.scale, enough=enough)

    def doubt(self, restarts: int) -> str:
        """Why a copy may be missing."""
        if not restarts:
            return "restarts: copies of eigenvalues were not searched for"
        if not self.runs[-1].enough:
            return f"steps: a search for copies did not end within {self.runs[-1].products} products"
        return f"restarts: number {restarts} still found a further copy of an eigenvalue"


def checked(operator: Operator, *pairs: _Pairs) -> np.ndarray:
    """|A v - lambda v| of every pair, with what one product shows beyond it.

    The product is that of all vectors' sum, scaled to the norm of one: what it differs by from the sum of what is known
    is an error of the operator itself (its rounding; or it is no symmetric linear map at all), and counts.
    """
    vectors, defects = (torch.cat([getattr(p, name) for p in pairs]) for name in ("vectors", "defects"))
    values = torch.from_numpy(np.concatenate([p.values for p in pairs])).to(vectors)
    known = (values @ vectors + defects.sum(dim=0)) / len(values) ** 0.5
    beyond = float((operator(vectors.sum(dim=0) / len(values) ** 0.5) - known).double().norm())
    return np.hypot(defects.double().norm(dim=1).cpu().numpy(), beyond)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Ritz pairs, largest value first."""

    values: np.ndarray
    vectors: Tensor
    defects: Tensor

    @classmethod
    def of(cls, ritz: Ritz, which: np.ndarray, k: int) -> _Pairs:
        keep = np.flatnonzero(which)[::-1][:k]
        return cls(ritz.values[keep], *ritz.pairs(keep))

    def reversed(self) -> _Pairs:
        return self._ordered(np.arange(len(self.values))[::-1])

    def joined(self, other: _Pairs, k: int) -> _Pairs:
        values = np.concatenate([self.values, other.values])
        both = _Pairs(values, torch.cat([self.vectors, other.vectors]), torch.cat([self.defects, other.defects]))
        return both._ordered(np.argsort(-values, kind="stable")[:k])

    def _ordered(self, order: np.ndarray) -> _Pairs:
        rows = torch.from_numpy(order.copy()).to(self.vectors.device)
        return _Pairs(self.values[order], self.vectors[rows], self.defects[rows])


def _orthonormal(rows: Tensor) -> Tensor:
    """Rows that are orthonormal but for rounding, made so again: QR by Cholesky's factor of their small Gram matrix."""
    lower = torch.linalg.cholesky((rows @ rows.T).double())
    return torch.linalg.inv(lower).to(rows) @ rows


def _both_ends(k: int, negative: int, tolerance: float) -> Enough:
    def enough(values: np.ndarray, residuals: np.ndarray) -> bool:
        if len(values) < k + negative:
            return False
        small = tolerance * np.abs(values).max()
        low = residuals[:negative][values[:negative] < -small]
        return bool((residuals[-k:] <= small).all() and (low <= small).all())

    return enough


def _nothing_above(floor: float, n: int, small: float) -> Enough:
    """Everything above the floor has converged, and the top either has too or lies too far below for more to be there.

    A small residual below the floor excludes nothing above it. From a random start the chance that m products miss an
    eigenvalue above the floor is at most 1.648 sqrt(n) exp(-(2m - 1) sqrt(gap)), gap = (floor - top) / (floor - lowest)
    (Kuczynski and Wozniakowski 1992, theorem 4.2).
    """

    def enough(values: np.ndarray, residuals: np.ndarray) -> bool:
        if not (residuals[values > floor] <= small).all():
            return False
        if residuals[-1] <= small or values[-1] >= floor:
            return bool(residuals[-1] <= small)
        gap = (floor - values[-1]) / (floor - values[0] + residuals[0])
        return bool(1.648 * np.sqrt(n) * np.exp(-(2 * len(values) - 1) * np.sqrt(gap)) <= MISSED)

    return enough
