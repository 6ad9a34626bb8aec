"""Lanczos runs from several vectors at once: one pass over the data for a product of all of them.

Each run is reorthogonalised fully, and twice (Giraud et al. 2005), against its own vectors alone: without it the
quadrature rules that come of it hold ghosts of the largest eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.operators import finite


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """The Lanczos matrix of one run: ``diagonal`` [m], ``side`` [m], whose last entry leads out of it.

    ``exhausted``: the Krylov space is invariant, and the rule exact for every function.
    """

    diagonal: np.ndarray
    side: np.ndarray
    exhausted: bool

    def rule(self, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Nodes ascending and weights of the Gauss rule, of the first ``steps`` where they are given."""
        return _rule(self.diagonal[:steps], self.side[:steps])

    def rule_with_a_node(self, at: float) -> tuple[np.ndarray, np.ndarray]:
        """Nodes ascending and weights of the Gauss-Radau rule with one more node, ``at`` (Golub 1973, section 2).

        For a spectrum above ``at`` and a function whose even derivatives are negative and whose odd ones are positive,
        as those of a logarithm, this rule lies below the integral and Gauss's above it (Golub and Meurant 1994).
        """
        a, b = self.diagonal - at, self.side
        matrix = np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1)
        unit = np.zeros(len(a))
        unit[-1] = b[-1] ** 2
        last = at + np.linalg.lstsq(matrix, unit, rcond=1e-15)[0][-1]
        return _rule(np.append(self.diagonal, last), np.append(b, 0.0))


def _rule(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, s = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return values, s[0] ** 2


def lockstep(operator: Callable[[Tensor], Tensor], starts: Float[Tensor, "K n"], *, steps: int) -> list[Tridiagonal]:
    """Lanczos from every row of ``starts`` at once, one product [K, n] a step, each run fully reorthogonalised.

    A run whose Krylov space is exhausted goes on as zeros until the others end.

    Raises FloatingPointError where a product is not finite.
    """
    runs, n = starts.shape
    steps = min(steps, n)
    basis = starts.new_empty((runs, steps, n))
    diagonal, side = torch.zeros(2, runs, steps, dtype=torch.float64)
    lengths = torch.zeros(runs, dtype=torch.int64)
    alive, scale = torch.ones(runs, dtype=torch.bool), torch.zeros(runs, dtype=torch.float64)
    v = starts / starts.norm(dim=1, keepdim=True)
    for m in range(steps):
        basis[:, m] = v
        w = finite(operator(v))
        diagonal[:, m] = (w.double() * v.double()).sum(dim=1).cpu()
        w = _orthogonal(_orthogonal(w, basis[:, : m + 1]), basis[:, : m + 1])
        beta = w.double().norm(dim=1).cpu()
        side[:, m] = beta
        lengths += alive
        scale = torch.maximum(scale, torch.maximum(diagonal[:, m].abs(), beta))
        alive &= (beta > 10 * torch.finfo(v.dtype).eps * scale) & (m + 1 < n)
        if not bool(alive.any()):
            break
        v = torch.where(alive.to(w.device)[:, None], w / beta.to(w)[:, None], 0)
    ends = zip(diagonal.numpy(), side.numpy(), lengths.tolist(), alive.tolist(), strict=True)
    return [Tridiagonal(a[:m], b[:m], not going) for a, b, m, going in ends]


def _orthogonal(w: Tensor, rows: Tensor) -> Tensor:
    """Every row of w [K, n] made orthogonal to its own rows [K, m, n]."""
    return torch.stack([x - (own @ x) @ own for x, own in zip(w, rows, strict=True)])
