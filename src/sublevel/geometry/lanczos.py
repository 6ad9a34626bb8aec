"""Lanczos with full reorthogonalisation: extreme eigenvalues of a symmetric operator, with residuals.

In float32 the three-term recurrence loses orthogonality within tens of steps and returns copies of lambda_1. Here
every new vector is orthogonalised twice against all earlier ones (Giraud et al. 2005: twice is enough), the
tridiagonal matrix is kept in float64, and a run stops on the residuals |beta_m s_m| (Parlett 1998, section 13.2).
Those underestimate what rounding has done, so the residuals that are returned, and that decide what is converged,
are computed anew as |H v - lambda v|, in one pass.

A single start vector sees one copy of a multiple eigenvalue: `extremes` starts again in the orthogonal complement of
what it has found, until a run brings nothing that belongs among the k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Float, Tensor

Operator = Callable[[Tensor], Tensor]

MISSED = 1e-6
"""The chance of missing an eigenvalue that a search for copies may end at."""


@dataclass(frozen=True, eq=False)
class Ritz:
    """One Krylov space: Ritz ``values`` [m] ascending, their ``residuals`` [m] and ``weights`` [m] (squared first
    components: the share of the start vector on each), the ``basis`` [m, n] and the coefficients ``s`` [m, m].
    """

    values: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray
    basis: Tensor
    s: np.ndarray
    exhausted: bool
    """The Krylov space is invariant: every value in it is an eigenvalue."""

    @property
    def products(self) -> int:
        """How many operator products it took."""
        return len(self.values)

    def vectors(self, which: np.ndarray) -> Float[Tensor, "k n"]:
        """Ritz vectors of the chosen values, as rows of unit norm."""
        coefficients = torch.from_numpy(np.ascontiguousarray(self.s[:, which].T)).to(self.basis)
        return torch.nn.functional.normalize(coefficients @ self.basis, dim=1)


def lanczos(
    operator: Operator,
    start: Float[Tensor, "n"],
    *,
    steps: int,
    enough: Callable[[np.ndarray, np.ndarray], bool] = lambda values, residuals: False,
    against: Float[Tensor, "found n"] | None = None,
    scale: float = 0.0,
) -> Ritz:
    """Run at most ``steps`` products from ``start``, or until ``enough(values, residuals)``.

    ``against`` are orthonormal rows that the whole run keeps orthogonal to (deflation). ``scale`` is a magnitude that
    the operator is known to have: what is below its rounding is zero.

    Raises FloatingPointError where a product is not finite.
    """
    n = len(start)
    steps = min(steps, n - (0 if against is None else len(against)))
    basis = start.new_empty((steps, n))
    alphas, betas = np.zeros(steps), np.zeros(steps)
    v = start if against is None else _orthogonal(start, against)
    v = v / v.norm()
    for m in range(steps):
        basis[m] = v
        w = operator(v)
        alphas[m] = float(w.double() @ v.double())
        for _ in range(2):
            w = _orthogonal(w, basis[: m + 1])
            w = w if against is None else _orthogonal(w, against)
        beta = float(w.double().norm())
        if not np.isfinite(alphas[m] + beta):
            raise FloatingPointError(f"the product of the operator with vector {m + 1} is not finite")
        scale = max(scale, abs(alphas[m]), beta)
        betas[m] = beta
        exhausted = bool(m + 1 == n or beta <= 10 * torch.finfo(v.dtype).eps * scale)
        last = m + 1 == steps or exhausted
        if last or _worth_looking(m):
            values, s, residuals = _ritz(alphas[: m + 1], betas[: m + 1], exhausted)
            if last or enough(values, residuals):
                return Ritz(values, residuals, s[0] ** 2, basis[: m + 1], s, exhausted)
        v = w / beta
    raise AssertionError("unreachable")


@dataclass(frozen=True, eq=False)
class Extremes:
    """The k largest algebraic eigenvalues (descending), with what is needed to trust them."""

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k n"]
    residuals: Float[Tensor, "k"]
    converged: list[bool]
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

    ``draw(i)`` gives the start vector of run i. A pair is converged when its residual is at most ``tolerance`` times
    the largest |Ritz value|. The first run also waits for its ``negative`` lowest values where they are negative.
    Later runs look, in the complement of the pairs found, for copies of multiple eigenvalues that the first cannot
    see; at most ``restarts`` of them, and ``stop`` says if the last one still found something. Runs do not count while
    fewer than k pairs are known: a Krylov space that is exhausted earlier shows one copy of each eigenvalue. Where at
    least a third of the spectrum is asked for, the whole matrix is formed: n products, no more than a search takes.

    Raises FloatingPointError where a product is not finite.
    """
    start = draw(0)
    k = min(k, len(start))
    much = 3 * k >= len(start)
    first = (
        whole(operator, start)
        if much
        else lanczos(operator, start, steps=steps, enough=_both_ends(k, negative, tolerance))
    )
    scale = float(np.abs(first.values).max())
    small = tolerance * max(scale, np.finfo(float).tiny)
    found = _Pairs.of(first, first.values > -np.inf, k)
    products, complete, run, searches = first.products, len(first.values) == len(start), 0, 0
    while not complete and searches < restarts:
        floor = found.values[-1] if len(found.values) == k else -np.inf
        run, searches = run + 1, searches + (floor > -np.inf)
        more = lanczos(
            operator,
            draw(run),
            steps=steps,
            against=_orthonormal(found.vectors),
            scale=scale,
            enough=lambda values, residuals, floor=floor: _nothing_above(floor, len(start), values, residuals, small),
        )
        products += more.products
        new = more.values > floor + small
        found = found.joined(_Pairs.of(more, new, k), k) if new.any() else found
        complete = not new.any() or len(found.values) == len(start)
    low = _Pairs.of(first, np.arange(len(first.values)) < max(negative, 1), len(first.values)).reversed()
    products += len(found.values) + len(low.values)
    residuals, low_residuals = np.split(true_residuals(operator, found, low), [len(found.values)])
    converged = residuals <= small
    stop = "converged" if converged.all() else f"steps: no convergence within {steps} products"
    if stop == "converged" and not complete and restarts:
        stop = f"restarts: number {restarts} still found a further copy of an eigenvalue"
    return Extremes(
        values=torch.from_numpy(found.values.copy()),
        vectors=found.vectors,
        residuals=torch.from_numpy(residuals),
        converged=converged.tolist(),
        lowest=torch.from_numpy(low.values.copy()),
        lowest_residuals=torch.from_numpy(low_residuals.copy()),
        first=first,
        products=products,
        stop=stop,
    )


def whole(operator: Operator, start: Float[Tensor, "n"]) -> Ritz:
    """Every eigenvalue of a small operator, from its matrix; ``start`` is what the weights are shares of."""
    basis = torch.eye(len(start), dtype=start.dtype, device=start.device)
    matrix = operator(basis).double().cpu().numpy()
    if not np.isfinite(matrix).all():
        raise FloatingPointError("the product of the operator with a unit vector is not finite")
    values, s = np.linalg.eigh((matrix + matrix.T) / 2)
    shares = s.T @ (start / start.norm()).double().cpu().numpy()
    return Ritz(values, np.zeros(len(values)), shares**2, basis, s, exhausted=True)


def true_residuals(operator: Operator, *pairs: _Pairs) -> np.ndarray:
    """|H v - lambda v| of every pair, from one product with all vectors."""
    vectors = torch.cat([p.vectors for p in pairs])
    values = torch.from_numpy(np.concatenate([p.values for p in pairs])).to(vectors)
    difference = operator(vectors) - values[:, None] * vectors
    return difference.double().norm(dim=1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Ritz pairs, largest value first."""

    values: np.ndarray
    residuals: np.ndarray
    vectors: Tensor

    @classmethod
    def of(cls, ritz: Ritz, which: np.ndarray, k: int) -> _Pairs:
        keep = np.flatnonzero(which)[::-1][:k]
        return cls(ritz.values[keep], ritz.residuals[keep], ritz.vectors(keep))

    def reversed(self) -> _Pairs:
        backwards = torch.arange(len(self.values) - 1, -1, -1, device=self.vectors.device)
        return _Pairs(self.values[::-1], self.residuals[::-1], self.vectors[backwards])

    def joined(self, other: _Pairs, k: int) -> _Pairs:
        values = np.concatenate([self.values, other.values])
        order = np.argsort(-values, kind="stable")[:k]
        residuals = np.concatenate([self.residuals, other.residuals])
        vectors = torch.cat([self.vectors, other.vectors])
        return _Pairs(values[order], residuals[order], vectors[torch.from_numpy(order).to(vectors.device)])


def _orthogonal(w: Tensor, rows: Tensor) -> Tensor:
    return w - (rows @ w) @ rows


def _orthonormal(rows: Tensor) -> Tensor:
    q, _ = torch.linalg.qr(rows.T)
    return q.T.contiguous()


def _worth_looking(m: int) -> bool:
    """Solving the small problem at every step would cost more than it saves."""
    return m % 4 == 3


def _ritz(alphas: np.ndarray, betas: np.ndarray, exhausted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    t = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    values, s = np.linalg.eigh(t)
    return values, s, np.abs(betas[-1] * s[-1])


def _both_ends(k: int, negative: int, tolerance: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    def enough(values: np.ndarray, residuals: np.ndarray) -> bool:
        if len(values) < k + negative:
            return False
        small = tolerance * np.abs(values).max()
        low = residuals[:negative][values[:negative] < -small]
        return bool((residuals[-k:] <= small).all() and (low <= small).all())

    return enough


def _nothing_above(floor: float, n: int, values: np.ndarray, residuals: np.ndarray, small: float) -> bool:
    """Everything above the floor has converged, and the top either has too or lies too far below for more to be there.

    A small residual below the floor excludes nothing above it. From a random start the chance that m products miss an
    eigenvalue above the floor is at most 1.648 sqrt(n) exp(-(2m - 1) sqrt(gap)), gap = (floor - top) / (floor - lowest)
    (Kuczynski and Wozniakowski 1992, theorem 4.2).
    """
    if not (residuals[values > floor] <= small).all():
        return False
    if residuals[-1] <= small or values[-1] >= floor:
        return bool(residuals[-1] <= small)
    gap = (floor - values[-1]) / (floor - values[0] + residuals[0])
    return bool(1.648 * np.sqrt(n) * np.exp(-(2 * len(values) - 1) * np.sqrt(gap)) <= MISSED)
