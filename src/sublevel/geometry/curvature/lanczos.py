"""Lanczos with full reorthogonalisation: one Krylov space of a symmetric operator, its Ritz pairs and their residuals.

In float32 the three-term recurrence loses orthogonality within tens of steps and returns copies of lambda_1. Here each
new vector is orthogonalised twice against all earlier ones (Giraud et al. 2005: twice is enough), the tridiagonal
matrix is kept in float64, and a run stops on the residuals |beta_m s_m| (Parlett 1998, section 13.2). These residuals
underestimate rounding. The run therefore keeps every coefficient that the orthogonalisation removes. They give every
product A q_j in the basis, and with it A v - lambda v of every Ritz vector, without another product.

A run also bounds the eigenvalues that it may have missed. Let x be an eigenvector with the eigenvalue t, and q_j the
orthonormal Lanczos vectors. Then x^T q_j = p_j(t) x^T q_0 with the polynomials p_j of the three-term recurrence, and
the squares of x^T q_j sum to at most 1. So |x^T q_0| <= (sum_j p_j(t)^2)^(-1/2). A run misses an eigenvalue above all
Ritz values only if its start is this nearly orthogonal to x, which is rare for a random start
(`Progress.chance_of_more`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp, inf, pi, sqrt

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.tridiagonal import eigenpairs

LinearMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Progress:
    """A run so far: Ritz ``values`` [m] ascending, their ``residuals`` [m], and the tridiagonal matrix.

    ``side`` [m] ends with the entry that leads out of the matrix; ``dimension`` is that of the space of the run.
    """

    values: np.ndarray
    residuals: np.ndarray
    diagonal: np.ndarray
    side: np.ndarray
    dimension: int

    def chance_of_more(self, t: float) -> float:
        """An upper bound on the chance that a random start missed an eigenvalue of at least ``t``.

        For t above all Ritz values every p_j is positive and increasing from t on, so the bound at t holds for all
        larger eigenvalues. A component of a random unit vector of R^n lies within c of 0 with a chance of at most
        c sqrt(2 (n - 1) / pi). For t at or below the largest Ritz value the bound is 1. It assumes exact arithmetic.

        >>> run = Progress(np.array([0.0]), np.array([1e-3]), np.array([0.0]), np.array([1e-3]), dimension=101)
        >>> round(run.chance_of_more(1.0), 4)
        0.008
        """
        if not t > self.values[-1]:
            return 1.0
        before, p, total = 0.0, 1.0, 1.0
        for j, (a, b) in enumerate(zip(self.diagonal, self.side, strict=True)):
            step = (t - a) * p - (self.side[j - 1] * before if j else 0.0)
            before, p = p, step / b if b > 0 else inf
            total += p * p if p < 1e100 else inf
            if total == inf:
                return 0.0
        return min(1.0, sqrt(2 * (self.dimension - 1) / pi / total))


Enough = Callable[[Progress], bool]
"""Decides whether a run may stop."""


class Normalised:
    """An operator divided by a power of two near its first product, so that products neither overflow nor vanish.

    The division is exact. Eigenvalues times ``unit``, the power of two, are those of the operator.

    >>> tiny = Normalised(lambda v: 1e-200 * v)
    >>> float(tiny(torch.ones(2, dtype=torch.float64))[0]) * tiny.unit
    1e-200
    """

    def __init__(self, operator: LinearMap) -> None:
        self.operator = operator
        self.exponent: int | None = None

    def __call__(self, v: Tensor) -> Tensor:
        """The product over ``unit``."""
        w = self.operator(v)
        if self.exponent is None:
            largest = float(w.abs().max())
            if not 0 < largest < inf:
                return w
            limit = 120 if w.dtype == torch.float32 else 1000
            self.exponent = max(-limit, min(limit, frexp(largest)[1]))
        return w * 2.0**-self.exponent

    @property
    def unit(self) -> float:
        """The power of two."""
        return 2.0 ** (self.exponent or 0)


@dataclass(frozen=True, eq=False)
class Ritz:
    """One Krylov space: Ritz ``values`` [m] ascending, their ``residuals`` [m] and ``weights`` [m] (squared first
    components: the share of the start vector on each), the ``basis`` [m, n] and the coefficients ``s`` [m, m].

    ``columns`` [a + m, m] are the coefficients of the products A q_j: first in the a rows ``against`` that the run
    stays orthogonal to, then in its own basis. ``rest`` [n] is the remainder of the last product.
    """

    values: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray
    basis: Tensor
    s: np.ndarray
    exhausted: bool
    """The Krylov space is invariant: every Ritz value is an eigenvalue."""
    enough: bool
    """The run stopped by ``enough`` or exhaustion, not at the limit of its steps."""
    columns: np.ndarray
    rest: Tensor
    progress: Progress
    against: Float[Tensor, "a n"] | None = None

    @property
    def products(self) -> int:
        """Number of operator products."""
        return len(self.values)

    @property
    def asymmetry(self) -> float:
        """|C - C^T| / |C| of the compression C to the basis, in Frobenius norms: compares q_i^T A q_j and q_j^T A
        q_i.
        """
        inside = self.columns[-len(self.values) :]
        size = float(np.linalg.norm(inside))
        return float(np.linalg.norm(inside - inside.T)) / size if size else 0.0

    def vectors(self, which: np.ndarray) -> Float[Tensor, "k n"]:
        """Ritz vectors of the chosen values, as rows of unit norm."""
        return torch.nn.functional.normalize(combined(self.s[:, which], self.basis), dim=1)

    def pairs(self, which: np.ndarray) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
        """The chosen Ritz vectors and their ``A v - lambda v``, from products already made."""
        s = self.s[:, which]
        rows = self.columns @ s
        rows[-len(s) :] -= s * self.values[which]
        both = combined(np.hstack([s, rows[-len(s) :]]), self.basis)
        vectors, defects = both[: s.shape[1]], both[s.shape[1] :]
        defects += combined(s[-1:], self.rest[None])
        if self.against is not None:
            defects += combined(rows[: -len(s)], self.against)
        norms = vectors.norm(dim=1, keepdim=True)
        return vectors / norms, defects / norms


def lanczos(
    operator: LinearMap,
    start: Float[Tensor, "n"],
    *,
    steps: int,
    enough: Enough = lambda progress: False,
    against: Float[Tensor, "a n"] | None = None,
    scale: float = 0.0,
) -> Ritz:
    """Run at most ``steps`` products from ``start``, or until ``enough(progress)``.

    The run stays orthogonal to the orthonormal rows ``against``: it sees the operator's compression to their
    complement. ``scale`` is a known magnitude of the operator; anything below its rounding counts as zero.

    Raises FloatingPointError for a product that is not finite.
    """
    n, outside = len(start), 0 if against is None else len(against)
    blocks = () if against is None else (against,)
    steps = min(steps, n - outside)
    basis = start.new_empty((steps, n))
    alphas, betas, columns = np.zeros(steps), np.zeros(steps), np.zeros((outside + steps, steps))
    v = _orthogonal(start, blocks)[0]
    v = v / v.norm()
    for m in range(steps):
        basis[m] = v
        w = operator(v)
        alphas[m] = float(w.double() @ v.double())
        w, columns[: outside + m + 1, m] = _orthogonal(w, (*blocks, basis[: m + 1]))
        beta = float(w.double().norm())
        if not np.isfinite(alphas[m] + beta):
            raise FloatingPointError(f"the product of the operator with vector {m + 1} is not finite")
        scale = max(scale, abs(alphas[m]), beta)
        betas[m] = beta
        if m:
            columns[outside + m, m - 1] = betas[m - 1]
        exhausted = bool(m + 1 + outside == n or beta <= 10 * torch.finfo(v.dtype).eps * scale)
        last = m + 1 == steps or exhausted
        if last or m < 32 or m % 4 == 3:  # the small eigenproblem costs more than a step once it is no longer small
            values, s = eigenpairs(alphas[: m + 1], betas[: m + 1])
            residuals = np.abs(beta * s[-1])
            progress = Progress(values, residuals, alphas[: m + 1], betas[: m + 1], n - outside)
            ready = exhausted or enough(progress)
            if last or ready:
                known, rows = columns[: outside + m + 1, : m + 1], basis[: m + 1]
                return Ritz(values, residuals, s[0] ** 2, rows, s, exhausted, ready, known, w, progress, against)
        v = w / beta
    raise AssertionError("unreachable")


def whole(operator: LinearMap, start: Float[Tensor, "n"]) -> Ritz:
    """All eigenvalues of a small operator, from its matrix; the weights are the shares of ``start``."""
    basis = torch.eye(len(start), dtype=start.dtype, device=start.device)
    matrix = operator(basis).double().cpu().numpy()
    if not np.isfinite(matrix).all():
        raise FloatingPointError("the product of the operator with a unit vector is not finite")
    values, s = np.linalg.eigh((matrix + matrix.T) / 2)
    shares = s.T @ (start / start.norm()).double().cpu().numpy()
    nothing = np.zeros(len(values))
    progress = Progress(values, nothing, nothing, nothing, len(values))
    return Ritz(values, nothing, shares**2, basis, s, True, True, matrix.T, torch.zeros_like(start), progress)


def _orthogonal(w: Tensor, blocks: tuple[Tensor, ...]) -> tuple[Tensor, np.ndarray]:
    """W made orthogonal to orthonormal rows in two passes, and the coefficients that were removed."""
    taken = [np.zeros(len(rows)) for rows in blocks]
    for _ in range(2):
        for i, rows in enumerate(blocks):
            shares = rows @ w
            w = torch.addmv(w, rows.t(), shares, alpha=-1)
            taken[i] += shares.double().cpu().numpy()
    return w, np.concatenate([np.zeros(0), *taken])


def combined(coefficients: np.ndarray, rows: Tensor) -> Tensor:
    """Linear combinations [k, n] of ``rows`` [m, n]: one for each column of ``coefficients`` [m, k]."""
    return torch.from_numpy(np.ascontiguousarray(coefficients.T)).to(rows) @ rows
