"""Batched Lanczos: runs from several vectors that share one pass over the data for each step.

Each run is fully reorthogonalised, twice (Giraud et al. 2005), against its own vectors. Without it, quadrature rules
hold ghosts of the largest eigenvalues.

A run keeps the eigenvectors far from the bulk that it finds (`Outliers`). Each run is deflated by the outliers of the
others, without further products. The starts are independent, so the deflation of a run does not depend on its own draw
and its estimate stays unbiased (the exchangeable estimators of Epperly, Tropp and Webber 2301.07825).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.geometry.curvature.lanczos import Normalised, combined
from sublevel.geometry.curvature.operators import finite
from sublevel.geometry.curvature.tridiagonal import eigenpairs, gauss_rule, radau_rule

OUTLIERS = 10
"""Largest number of eigenvectors that are kept of one run."""

CONVERGED = 1e-4
"""Largest residual of an outlier, as a share of its distance from the mean of the spectrum."""

SAME = 1e-5
"""Two vectors with 1 - cos(angle) below this are one eigenvector, found by two runs."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """Eigenpairs that a run found, ``values`` [a] and ``vectors`` [a, n], and its ``start`` [n], of unit norm."""

    values: np.ndarray
    vectors: Float[Tensor, "a n"]
    start: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Deflation:
    """Eigenpairs that a run is deflated by: ``values`` [a], and the ``shares`` [a] of its start on the eigenvectors."""

    values: np.ndarray
    shares: np.ndarray


def deflations(runs: Sequence[Outliers]) -> tuple[Deflation, ...]:
    """For each run, the eigenpairs that the other runs found and the share of its own start on them.

    Several runs may find the same eigenvector, or different ones of a multiple eigenvalue. The pairs are therefore
    those of the operator's compression to the span of the vectors that the others found (Rayleigh and Ritz).
    """
    values = np.concatenate([run.values for run in runs])
    if not len(values):
        return tuple(Deflation(values, values) for _ in runs)
    vectors, starts = (torch.cat([run.vectors for run in runs]), torch.stack([run.start for run in runs]))
    gram, parts = ((vectors @ other.T).double().cpu().numpy() for other in (vectors, starts))
    owner = np.repeat(np.arange(len(runs)), [len(run.values) for run in runs])
    return tuple(_deflation(values[o], gram[np.ix_(o, o)], parts[o, i]) for i in range(len(runs)) for o in [owner != i])


def _deflation(values: np.ndarray, gram: np.ndarray, parts: np.ndarray) -> Deflation:
    sizes, q = np.linalg.eigh(gram)
    kept = sizes > SAME
    q = q[:, kept] / np.sqrt(sizes[kept])
    form = values[:, None] * gram
    found, mix = np.linalg.eigh(q.T @ (form + form.T) @ q / 2)
    return Deflation(found, (mix.T @ (q.T @ parts)) ** 2)


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """The Lanczos matrix of one run: ``diagonal`` [m] and ``side`` [m], whose last entry leads out of the matrix.

    ``exhausted``: the Krylov space is invariant, and the rule is exact for every function. ``asymmetry`` is |C - C^T| /
    |C| of the operator's compression C to the run. ``outliers`` is None unless it was asked for.
    """

    diagonal: np.ndarray
    side: np.ndarray
    exhausted: bool
    asymmetry: float = 0.0
    outliers: Outliers | None = None

    def converged(self) -> tuple[np.ndarray, np.ndarray]:
        """At most `OUTLIERS` converged values, those furthest from the mean, and their coefficients [m, a]."""
        values, s = eigenpairs(self.diagonal, self.side)
        distance = np.abs(values - self.diagonal[0])
        good = np.abs(self.side[-1] * s[-1]) <= CONVERGED * distance
        chosen = [i for i in np.argsort(-distance) if good[i]][:OUTLIERS]
        return values[chosen], s[:, chosen]

    def rule(self, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Nodes, ascending, and weights of the Gauss rule; of the first ``steps`` if given."""
        return gauss_rule(self.diagonal[:steps], self.side[:steps])

    def rule_with_a_node(self, at: float) -> tuple[np.ndarray, np.ndarray]:
        """Nodes, ascending, and weights of the Gauss-Radau rule with a node ``at`` (see `radau_rule`)."""
        return radau_rule(self.diagonal, self.side, at)


def batched_lanczos(
    operator: Callable[[Tensor], Tensor], starts: Float[Tensor, "K n"], *, steps: int, outliers: bool = False
) -> list[Tridiagonal]:
    """Lanczos from every row of ``starts`` at once, with one product [K, n] a step; each run fully reorthogonalised.

    A run with an exhausted Krylov space continues with zeros until the others end. ``outliers`` keeps those of each
    run.

    Raises FloatingPointError for a product that is not finite.
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
        if m:  # for a symmetric operator all coefficients but the last two are 0, and the second last is the last beta
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
    for i, (run, own) in enumerate(zip(found, basis, strict=True) if outliers else ()):
        values, coefficients = run.converged()
        vectors = torch.nn.functional.normalize(combined(coefficients, own[: len(run.diagonal)]), dim=1)
        found[i] = replace(run, outliers=Outliers(values, vectors, own[0].clone()))
    return found


def _orthogonal(w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of w [K, n] made orthogonal to its own rows [K, m, n], and the coefficients [K, m] that were removed."""
    taken = [own @ x for x, own in zip(w, rows, strict=True)]
    left = [x - shares @ own for x, own, shares in zip(w, rows, taken, strict=True)]
    return torch.stack(left), torch.stack(taken).double().cpu()
