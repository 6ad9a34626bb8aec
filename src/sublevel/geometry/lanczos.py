"""Lanczos with full reorthogonalisation: one Krylov space of a symmetric operator, and what is known of its pairs.

In float32 the three-term recurrence loses orthogonality within tens of steps and returns copies of lambda_1. Here
every new vector is orthogonalised twice against all earlier ones (Giraud et al. 2005: twice is enough), the
tridiagonal matrix is kept in float64, and a run stops on the residuals |beta_m s_m| (Parlett 1998, section 13.2).
Those underestimate what rounding has done. But all that the orthogonalisation takes away is kept too, so that every
product A q_j is known in the basis, and with it A v - lambda v of every Ritz vector, without another product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Float, Tensor

Operator = Callable[[Tensor], Tensor]
Enough = Callable[[np.ndarray, np.ndarray], bool]
"""Whether Ritz values (ascending) with these residuals are what a run is for."""


@dataclass(frozen=True, eq=False)
class Ritz:
    """One Krylov space: Ritz ``values`` [m] ascending, their ``residuals`` [m] and ``weights`` [m] (squared first
    components: the share of the start vector on each), the ``basis`` [m, n] and the coefficients ``s`` [m, m].

    ``columns`` [a + m, m] are the products A q_j in terms of the a rows that the run was kept orthogonal to
    (``against``) and of its own basis; ``rest`` [n] is what the last of them has besides.
    """

    values: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray
    basis: Tensor
    s: np.ndarray
    exhausted: bool
    """The Krylov space is invariant: every value in it is an eigenvalue."""
    enough: bool
    """It did not end because its steps did."""
    columns: np.ndarray
    rest: Tensor
    against: Float[Tensor, "a n"] | None = None

    @property
    def products(self) -> int:
        """How many operator products it took."""
        return len(self.values)

    def vectors(self, which: np.ndarray) -> Float[Tensor, "k n"]:
        """Ritz vectors of the chosen values, as rows of unit norm."""
        return torch.nn.functional.normalize(_combined(self.s[:, which], self.basis), dim=1)

    def pairs(self, which: np.ndarray) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
        """The chosen Ritz vectors and their ``A v - lambda v``, from the products that were made."""
        s = self.s[:, which]
        rows = self.columns @ s
        rows[-len(s) :] -= s * self.values[which]
        both = _combined(np.hstack([s, rows[-len(s) :]]), self.basis)
        vectors, defects = both[: s.shape[1]], both[s.shape[1] :]
        defects += _combined(s[-1:], self.rest[None])
        if self.against is not None:
            defects += _combined(rows[: -len(s)], self.against)
        norms = vectors.norm(dim=1, keepdim=True)
        return vectors / norms, defects / norms


def lanczos(
    operator: Operator,
    start: Float[Tensor, "n"],
    *,
    steps: int,
    enough: Enough = lambda values, residuals: False,
    against: Float[Tensor, "a n"] | None = None,
    scale: float = 0.0,
) -> Ritz:
    """Run at most ``steps`` products from ``start``, or until ``enough(values, residuals)``.

    ``against`` are orthonormal rows that the whole run keeps orthogonal to: it sees the operator's compression to their
    complement. ``scale`` is a magnitude that the operator is known to have:
    what is below its rounding is zero.

    Raises FloatingPointError where a product is not finite.
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
        if last or _worth_looking(m):
            values, s, residuals = _ritz(alphas[: m + 1], betas[: m + 1])
            ready = exhausted or enough(values, residuals)
            if last or ready:
                known = columns[: outside + m + 1, : m + 1]
                return Ritz(values, residuals, s[0] ** 2, basis[: m + 1], s, exhausted, ready, known, w, against)
        v = w / beta
    raise AssertionError("unreachable")


def whole(operator: Operator, start: Float[Tensor, "n"]) -> Ritz:
    """Every eigenvalue of a small operator, from its matrix; ``start`` is what the weights are shares of."""
    basis = torch.eye(len(start), dtype=start.dtype, device=start.device)
    matrix = operator(basis).double().cpu().numpy()
    if not np.isfinite(matrix).all():
        raise FloatingPointError("the product of the operator with a unit vector is not finite")
    values, s = np.linalg.eigh((matrix + matrix.T) / 2)
    shares = s.T @ (start / start.norm()).double().cpu().numpy()
    nothing = np.zeros(len(values))
    return Ritz(values, nothing, shares**2, basis, s, True, True, matrix.T, torch.zeros_like(start))


def _orthogonal(w: Tensor, blocks: tuple[Tensor, ...]) -> tuple[Tensor, np.ndarray]:
    """What is left of w after two passes over orthonormal rows, and how much of each they took."""
    taken = [np.zeros(len(rows)) for rows in blocks]
    for _ in range(2):
        for i, rows in enumerate(blocks):
            shares = rows @ w
            w = torch.addmv(w, rows.t(), shares, alpha=-1)
            taken[i] += shares.double().cpu().numpy()
    return w, np.concatenate([np.zeros(0), *taken])


def _combined(coefficients: np.ndarray, rows: Tensor) -> Tensor:
    """Rows [k, n] of the combinations that the columns of ``coefficients`` [m, k] say."""
    return torch.from_numpy(np.ascontiguousarray(coefficients.T)).to(rows) @ rows


def _worth_looking(m: int) -> bool:
    """Solving the small problem at every step would cost more than it saves once it is no longer small."""
    return m < 32 or m % 4 == 3


def _ritz(alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    t = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    values, s = np.linalg.eigh(t)
    return values, s, np.abs(betas[-1] * s[-1])
