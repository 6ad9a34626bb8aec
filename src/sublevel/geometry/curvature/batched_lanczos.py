"""Lanczos runs from several vectors at once: one pass over the data for a product of all of them.

Each run is reorthogonalised fully, and twice (Giraud et al. 2005), against its own vectors alone: without it the
quadrature rules that come of it hold ghosts of the largest eigenvalues.

The eigenvectors far from the bulk that a run has found are kept (`Outliers`): what the other runs find is known to
each without a product, and is deflated from it. As every run has a start of its own, what it is deflated by does not
depend on its own draw, and its estimate stays unbiased (the exchangeable estimators of Epperly, Tropp and Webber
2301.07825).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.lanczos import Normalised
from sublevel.geometry.curvature.operators import finite

OUTLIERS = 10
"""Eigenvectors that are kept of one run, at most."""

CONVERGED = 1e-4
"""The residual of such a pair, at most, as a share of its distance from the mean of the spectrum."""

SAME = 1e-5
"""Two vectors whose angle has 1 - cos below this are one: two runs have found the same eigenvector."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """Eigenpairs that a run has found: ``values`` [a], ``vectors`` [a, n], and its ``start`` [n], of unit norm."""

    values: np.ndarray
    vectors: Float[Tensor, "a n"]
    start: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Known:
    """What other runs know: ``values`` [a] of orthonormal eigenvectors, and the ``shares`` [a] of a start on them."""

    values: np.ndarray
    shares: np.ndarray


def known_to_each(runs: Sequence[Outliers]) -> tuple[Known, ...]:
    """For every run the eigenpairs that the others have found, and its own start's share of each.

    Several runs find the same eigenvector, or different ones of a multiple eigenvalue: the pairs of a run are those of
    the operator's compression to the span of what the others have found (Rayleigh and Ritz).
    """
    values = np.concatenate([run.values for run in runs])
    if not len(values):
        return tuple(Known(values, values) for _ in runs)
    vectors, starts = (torch.cat([run.vectors for run in runs]), torch.stack([run.start for run in runs]))
    gram, parts = ((vectors @ other.T).double().cpu().numpy() for other in (vectors, starts))
    owner = np.repeat(np.arange(len(runs)), [len(run.values) for run in runs])
    return tuple(_known(values[o], gram[np.ix_(o, o)], parts[o, i]) for i in range(len(runs)) for o in [owner != i])


def _known(values: np.ndarray, gram: np.ndarray, parts: np.ndarray) -> Known:
    sizes, q = np.linalg.eigh(gram)
    kept = sizes > SAME
    q = q[:, kept] / np.sqrt(sizes[kept])
    form = values[:, None] * gram
    found, mix = np.linalg.eigh(q.T @ (form + form.T) @ q / 2)
    return Known(found, (mix.T @ (q.T @ parts)) ** 2)


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """The Lanczos matrix of one run: ``diagonal`` [m], ``side`` [m], whose last entry leads out of it.

    ``exhausted``: the Krylov space is invariant, and the rule exact for every function. ``asymmetry`` is |C - C^T| /
    |C| of the operator's compression C to the run. ``outliers`` are kept where they were asked for.
    """

    diagonal: np.ndarray
    side: np.ndarray
    exhausted: bool
    asymmetry: float = 0.0
    outliers: Outliers | None = None

    def converged(self) -> tuple[np.ndarray, np.ndarray]:
        """At most `OUTLIERS` converged values, those furthest from the mean, and their coefficients [m, a]."""
        values, s = _solved(self.diagonal, self.side)
        distance = np.abs(values - self.diagonal[0])
        good = np.abs(self.side[-1] * s[-1]) <= CONVERGED * distance
        chosen = [i for i in np.argsort(-distance) if good[i]][:OUTLIERS]
        return values[chosen], s[:, chosen]

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
    values, s = _solved(a, b)
    return values, s[0] ** 2


def _solved(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, s = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return values, s


def batched_lanczos(
    operator: Callable[[Tensor], Tensor], starts: Float[Tensor, "K n"], *, steps: int, outliers: bool = False
) -> list[Tridiagonal]:
    """Lanczos from every row of ``starts`` at once, one product [K, n] a step, each run fully reorthogonalised.

    A run whose Krylov space is exhausted goes on as zeros until the others end. ``outliers``: keep those of each.

    Raises FloatingPointError where a product is not finite.
    """
    runs, n = starts.shape
    steps, scaled = min(steps, n), Normalised(operator)
    basis = starts.new_empty((runs, steps, n))
    diagonal, side = torch.zeros(2, runs, steps, dtype=torch.float64)
    lengths = torch.zeros(runs, dtype=torch.int64)
    alive, scale = torch.ones(runs, dtype=torch.bool), torch.zeros(runs, dtype=torch.float64)
    skew, size = torch.zeros(2, runs, dtype=torch.float64)
    v = starts / starts.norm(dim=1, keepdim=True)
    for m in range(steps):
        basis[:, m] = v
        w = finite(scaled(v))
        diagonal[:, m] = (w.double() * v.double()).sum(dim=1).cpu()
        w, upper = _orthogonal(w, basis[:, : m + 1])
        w, _ = _orthogonal(w, basis[:, : m + 1])
        beta = w.double().norm(dim=1).cpu()
        if m:  # of a symmetric operator all but the last two coefficients are 0, and that one is the last beta
            upper[:, m - 1] -= side[:, m - 1]
            skew += alive * upper[:, :m].square().sum(dim=1)
        size += alive * (diagonal[:, m].square() + 2 * beta.square())
        side[:, m] = beta
        lengths += alive
        scale = torch.maximum(scale, torch.maximum(diagonal[:, m].abs(), beta))
        alive &= (beta > 10 * torch.finfo(v.dtype).eps * scale) & (m + 1 < n)
        if not bool(alive.any()):
            break
        v = torch.where(alive.to(w.device)[:, None], w / beta.to(w)[:, None], 0)
    unit, off = scaled.unit, (2 * skew / size.clamp_min(torch.finfo(torch.float64).tiny)).sqrt().tolist()
    ends = enumerate(zip(diagonal.numpy(), side.numpy(), lengths.tolist(), alive.tolist(), strict=True))
    found = [Tridiagonal(unit * a[:m], unit * b[:m], not going, off[i]) for i, (a, b, m, going) in ends]
    if not outliers:
        return found
    return [replace(run, outliers=_outliers(run, own)) for run, own in zip(found, basis, strict=True)]


def _outliers(run: Tridiagonal, basis: Tensor) -> Outliers:
    values, coefficients = run.converged()
    rows = basis[: len(run.diagonal)]
    mixed = torch.from_numpy(np.ascontiguousarray(coefficients.T)).to(rows) @ rows
    return Outliers(values, torch.nn.functional.normalize(mixed, dim=1), basis[0].clone())


def _orthogonal(w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Every row of w [K, n] made orthogonal to its own rows [K, m, n], and what that took [K, m]."""
    taken = [own @ x for x, own in zip(w, rows, strict=True)]
    left = [x - shares @ own for x, own, shares in zip(w, rows, taken, strict=True)]
    return torch.stack(left), torch.stack(taken).double().cpu()
