"""The largest eigenvalues in a fixed number of vectors: Lanczos with thick restarts.

A run with full reorthogonalisation holds a vector for every step, which does not fit in memory for large networks. Here
the basis has ``rows`` vectors. When it is full, it is replaced by the wanted Ritz vectors and some more, and the run
continues from the same remainder (thick restart, Wu and Simon 2000; it is the implicit restart of Sorensen 1992 with
exact shifts). The compression of the operator to the basis is kept in float64 throughout.

Afterwards one product for each pair gives its residual |A v - theta v| without estimates. Looks for missing
eigenvalues, as `sublevel.geometry.curvature.search` describes them, take three vectors: a Lanczos run in the complement
of the pairs by its three-term recurrence. Its vectors may lose their orthogonality. So the bound on the chance that a
random start misses an eigenvalue is taken times the square root of the number of its vectors, a bound on their norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.lanczos import LinearMap, Normalised, Progress
from sublevel.geometry.curvature.missed import MISSED, RESOLVED, ROUNDING, Exclusion, allowed, lowered
from sublevel.geometry.curvature.operators import unsymmetric
from sublevel.geometry.curvature.top_eigenpairs import TopEigenpairs

SPARE = 3
"""Fewest vectors beside those of the wanted pairs; looks and the last products use them too."""

AROUND = 10
"""Products of all cycles together, as a multiple of the steps of one run without restarts."""

COLUMNS = 2**20
"""Columns of the basis that are combined at a time, so that the combination takes no second basis."""


def fewest_rows(k: int, negative: int = 0) -> int:
    """The fewest vectors for k eigenvalues and the ``negative`` lowest ones.

    >>> fewest_rows(20), fewest_rows(20, 3)
    (23, 26)
    """
    return k + negative + SPARE


def restarted_eigenpairs(
    operator: LinearMap,
    draw: Callable[[int], Float[Tensor, "n"]],
    *,
    k: int,
    tolerance: float,
    rows: int,
    steps: int,
    restarts: int = 3,
    negative: int = 0,
) -> TopEigenpairs:
    """`top_eigenpairs` in a basis of ``rows`` vectors, with at most `AROUND` times ``steps`` products for the pairs.

    Raises ValueError for fewer rows than `fewest_rows`, FloatingPointError for a product that is not finite.
    """
    if rows < fewest_rows(k, negative):
        raise ValueError(f"{k} eigenvalues need at least {fewest_rows(k, negative)} vectors in memory, got {rows}")
    window = Window(Normalised(operator), draw(0), rows)
    chance = Exclusion(MISSED, restarts + 3)
    limit = AROUND * steps
    fresh = map(draw, count(restarts + 2))
    found = window.run(k, negative, tolerance, steps, limit, fresh)
    first = window.first
    asymmetric = unsymmetric(first.asymmetry, window.basis.dtype)
    looks: list[_Look] = []
    while not asymmetric and found.enough and restarts:
        look = window.look(found, draw(len(looks) + 1), tolerance, chance, steps)
        looks.append(look)
        if not look.sign or len(looks) > restarts:
            break
        window.turn(next(fresh))
        found = window.run(k, negative, tolerance, steps, window.products + steps, fresh, above=look.least)
    residuals, off = window.residuals()
    lowest, low_residuals = (found.values[k:], residuals[k:]) if negative else (found.every[:1], found.low_residual)
    scale = found.scale
    rounding = max(ROUNDING * window.eps * scale, min(2 * off, tolerance * scale))
    values = found.values[:k]
    bounds = allowed(values, tolerance, rounding)
    slack = _slack(values, residuals[:k], bounds, looks, chance, rounding, tolerance * scale)
    certain = np.isfinite(slack) & (not asymmetric)
    bounds = np.maximum(bounds, np.where(certain, slack, 0.0))
    small = residuals[:k] <= bounds
    if asymmetric:
        stop = asymmetric
    elif not small.all():
        stop = f"steps: no convergence within {window.products} products"
        stop = "rounding: a residual is larger than its bound" if found.enough else stop
    elif certain.all():
        stop = "converged"
    elif not restarts:
        stop = "restarts: no search for copies of eigenvalues was made"
    elif looks and looks[-1].sign:
        stop = f"restarts: after {len(looks) - 1} searches there is still a sign of another copy of an eigenvalue"
    else:
        stop = "steps: a search for copies did not end"
    unit = window.operator.unit
    return TopEigenpairs(
        values=torch.from_numpy(values * unit),
        vectors=window.basis[:k],
        residuals=torch.from_numpy(residuals[:k] * unit),
        bounds=torch.from_numpy(bounds * unit),
        converged=(small & certain).tolist(),
        lowest=torch.from_numpy(lowest * unit),
        lowest_residuals=torch.from_numpy(low_residuals * unit),
        scale=scale * unit,
        rounding=rounding * unit,
        asymmetry=first.asymmetry,
        ritz_values=found.every * unit,
        negative_mass=float(first.weights[first.values * unit < -rounding * unit].sum()),
        pair_products=found.products,
        products=window.products,
        stop=stop,
    )


def _slack(
    values: np.ndarray, residuals: np.ndarray, bounds: np.ndarray, looks: Sequence[_Look], chance: Exclusion,
    rounding: float, largest: float,
) -> np.ndarray:  # fmt: skip
    """How far above each pair a missing eigenvalue may lie, at most; inf if no bound is known (see `Search.slack`)."""
    if not looks or looks[-1].sign:
        return np.full(len(values), np.inf)
    most = bounds
    if looks[-1].exhausted:  # rounding ended the look
        own = RESOLVED * np.abs(values)
        wider = np.where(own <= RESOLVED * rounding, np.inf, own)
        most = np.maximum(bounds, np.minimum(np.maximum(bounds, wider), largest))

    def slack(value: float, bound: float, most: float) -> float:
        while True:
            t = value + bound
            if chance.excluded([looks[-1].chance_of_more(min(lowered(t, values, residuals), t))]):
                return bound
            if bound >= most:
                return np.inf
            bound = min(2 * bound, most)

    return np.array([slack(*one) for one in zip(values, bounds, most, strict=True)])


@dataclass(frozen=True, eq=False)
class _Found:
    """The ends of a run: the k largest ``values`` and the lowest ones, ``every`` Ritz value.

    ``enough`` says whether the k largest have converged.
    """

    values: np.ndarray
    every: np.ndarray
    low_residual: np.ndarray
    scale: float
    enough: bool
    products: int


@dataclass(frozen=True, eq=False)
class _First:
    """What the first cycle tells of the spectrum: the Gauss rule of its start, and the operator's asymmetry."""

    values: np.ndarray
    weights: np.ndarray
    asymmetry: float


@dataclass(frozen=True, eq=False)
class _Look:
    """A run in the complement of known pairs, and whether it saw a value that belongs among them."""

    progress: Progress
    sign: bool
    least: float
    exhausted: bool

    def chance_of_more(self, t: float) -> float:
        """The chance that the complement has an eigenvalue above t."""
        return min(1.0, self.progress.chance_of_more(t) * len(self.progress.diagonal) ** 0.5)


class Window:
    """An orthonormal basis of at most ``rows`` vectors, and the compression of an operator to it.

    Besides the basis, a product and the vectors that it takes there are at most two vectors [n] in memory.
    """

    def __init__(self, operator: Normalised, start: Float[Tensor, "n"], rows: int) -> None:
        self.operator, self.n, self.products = operator, len(start), 0
        self.rows = min(rows, self.n)
        self.basis = start.new_empty((self.rows, self.n))
        self.basis[0] = start.div_(norm(start))
        self.h = np.zeros((self.rows, self.rows))
        self.eps, self.size, self._wanted = torch.finfo(start.dtype).eps, 0, 0
        self._first: _First | None = None
        self._off = self._all = self._beta = 0.0

    @property
    def first(self) -> _First:
        """The first cycle."""
        assert self._first is not None
        return self._first

    def turn(self, start: Float[Tensor, "n"]) -> None:
        """Continue from another start; the vectors of the basis stay."""
        w, _ = self._orthogonal(start, self.size)
        self.basis[self.size] = w.div_(norm(w))

    def run(
        self,
        k: int,
        negative: int,
        tolerance: float,
        steps: int,
        limit: int,
        fresh: Iterator[Tensor],
        above: float | None = None,
    ) -> _Found:
        """Extend and restart until both ends have converged; then the basis holds their Ritz vectors.

        An exhausted Krylov space continues from a ``fresh`` start while pairs are missing. If more than k values belong
        ``above`` a value, the run waits for one more of them. The number of products is at most ``limit``, and at most
        ``steps`` more than the k largest values take.
        """
        ends = False
        while True:
            rest = self._extend()
            values, s = np.linalg.eigh(self.h[: self.size, : self.size])
            residuals, scale = np.abs(self._beta * s[-1]), float(np.abs(values).max())
            exhausted = self._beta <= 10 * self.eps * scale or self.size == self.n
            if exhausted and self.size < min(k + negative, self.n):
                self.turn(next(fresh))
                continue
            there = above is None or int((values > above).sum()) > k
            good, low = self._converged(values, residuals, k, negative, tolerance, scale)
            if good and there and not ends:  # the lowest values may be a dense cluster: they get no more than a run
                ends, limit = True, min(limit, self.products + steps)
            enough = exhausted or (there and good and low)
            full = self.size == self.rows
            if self._first is None and (full or enough or self.products >= limit):
                self._first = _First(values, s[0] ** 2, (2 * self._off / max(self._all, 1e-300)) ** 0.5)
            if enough or self.products >= limit:
                last = len(values)
                self._wanted = min(k, last)
                chosen = [*range(last - 1, last - 1 - self._wanted, -1), *range(min(negative, last - self._wanted))]
                self._keep(values, s, np.array(chosen))
                return _Found(values[chosen], values, residuals[:1], scale, enough or (good and there), self.products)
            if full:
                self._restart(values, s, k, negative)
            self.basis[self.size] = rest.div_(self._beta)

    def look(self, found: _Found, start: Float[Tensor, "n"], tolerance: float, chance: Exclusion, steps: int) -> _Look:
        """A run in the complement of the k largest pairs until it excludes another value among them, or sees one."""
        k = self._wanted
        known, values, (v, before) = self.basis[:k], found.values[:k], self.basis[self.size : self.size + 2]
        bounds = allowed(values, tolerance, ROUNDING * self.eps * found.scale)
        least = min(lowered(t, values, bounds / 2) for t in values + bounds)
        w, _ = self._orthogonal(start, k)
        v[:] = w.div_(norm(w))
        del start, w
        diagonal: list[float] = []
        side: list[float] = []
        while True:
            w = self._product(v)
            diagonal.append(dot(w, v))
            w.add_(v, alpha=-diagonal[-1])
            if side:
                w.add_(before, alpha=-side[-1])
            for _ in range(2):
                w.addmv_(known.t(), known @ w, alpha=-1)
            beta = norm(w)
            side.append(beta)
            m = len(diagonal)
            exhausted = beta <= 10 * self.eps * found.scale or m + k >= self.n
            if exhausted or m >= steps or m < 16 or m % 4 == 0:
                a, b = np.array(diagonal), np.array(side)
                ritz = np.linalg.eigvalsh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
                seen = _Look(Progress(ritz, np.zeros(m), a, b, self.n - k), bool(ritz[-1] > least), least, exhausted)
                if seen.sign or exhausted or m >= steps or chance.excluded([seen.chance_of_more(least)]):
                    return seen
            before[:] = v
            v[:] = w.div_(beta)

    def residuals(self) -> tuple[np.ndarray, float]:
        """|A v - theta v| of the vectors of the basis, from one product each, and the error of the operator itself.

        The error is the difference between the product of the vectors' sum and the sum of their products.
        """
        sums, products = self.basis[self.size : self.size + 2].zero_()
        found = []
        for i in range(self.size):
            product = self._product(self.basis[i])
            sums += self.basis[i]
            products += product
            found.append(norm(product.add_(self.basis[i], alpha=-float(self.h[i, i]))))
        both = self.size**0.5
        off = norm(self._product(sums.div_(both)).sub_(products.div_(both)))
        return np.array(found), off

    def _product(self, v: Tensor) -> Tensor:
        self.products += 1
        w = self.operator(v)
        if not bool(torch.isfinite(w.sum())) and not bool(torch.isfinite(w).all()):
            raise FloatingPointError(f"the product of the operator with vector {self.products} is not finite")
        return w

    def _extend(self) -> Tensor:
        """Add the vector after the basis to it, with its product; return the remainder."""
        m = self.size
        w, taken = self._orthogonal(self._product(self.basis[m]), m + 1)
        if self._first is None and m:  # a run without restarts has a tridiagonal matrix
            self._off += float((taken[: m - 1] ** 2).sum()) + (taken[m - 1] - self._beta) ** 2
        self.h[: m + 1, m] = self.h[m, : m + 1] = taken
        self._beta = norm(w)
        self._all += taken[m] ** 2 + 2 * self._beta**2
        self.size += 1
        return w

    def _orthogonal(self, w: Tensor, size: int) -> tuple[Tensor, np.ndarray]:
        """W made orthogonal to the first rows in two passes, in place, and the coefficients that were removed."""
        rows, taken = self.basis[:size], np.zeros(size)
        for _ in range(2):
            shares = rows @ w
            w.addmv_(rows.t(), shares, alpha=-1)
            taken += shares.double().cpu().numpy()
        return w, taken

    def _restart(self, values: np.ndarray, s: np.ndarray, k: int, negative: int) -> None:
        """Keep the wanted pairs and half of the room beside them, from the upper end."""
        kept = min(k + (self.rows - k - negative) // 2, self.rows - negative - 2)
        last = len(values)
        self._keep(values, s, np.array([*range(last - 1, last - 1 - kept, -1), *range(negative)]))

    def _keep(self, values: np.ndarray, s: np.ndarray, chosen: np.ndarray) -> None:
        """Replace the basis by these Ritz vectors."""
        mix = torch.from_numpy(np.ascontiguousarray(s[:, chosen].T)).to(self.basis)
        for begin in range(0, self.n, COLUMNS):
            part = self.basis[: self.size, begin : begin + COLUMNS]
            self.basis[: len(chosen), begin : begin + COLUMNS] = mix @ part
        self.size = len(chosen)
        self.h[:] = 0
        self.h[range(self.size), range(self.size)] = values[chosen]

    def _converged(
        self, values: np.ndarray, residuals: np.ndarray, k: int, negative: int, tolerance: float, scale: float
    ) -> tuple[bool, bool]:
        """Whether the k largest have converged, with residuals of half their bounds, and whether the lowest have."""
        if len(values) < k + negative:
            return False, False
        small = allowed(values, tolerance, max(ROUNDING * self.eps * scale, np.finfo(float).tiny))
        low = residuals[:negative][values[:negative] < -tolerance * scale]
        return bool((residuals <= small / 2)[-k:].all()), bool((low <= tolerance * scale).all())


def dot(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> float:
    """The inner product in float64, without a copy in float64."""
    parts = zip(a.split(COLUMNS), b.split(COLUMNS), strict=True)
    return float(sum((x.double() @ y.double() for x, y in parts), start=torch.zeros((), dtype=torch.float64)))


def norm(a: Float[Tensor, "n"]) -> float:
    """The Euclidean norm in float64, without a copy in float64."""
    return dot(a, a) ** 0.5
