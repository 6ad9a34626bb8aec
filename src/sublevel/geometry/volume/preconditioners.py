"""Linear maps with determinant 1 that adapt the directions of rays to a basin.

Rays u in a long thin basin all end at its steep walls. Rays P u with P close to a multiple of H^(-1/2) end at nearly
the same multiple of u. Since det P = 1, the volume is unchanged for any P (Scherlis and Belrose 2501.18812); P affects
only the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, isfinite, log

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, PointLike
from sublevel.geometry.curvature import diagonal, top_eigenvalues
from sublevel.geometry.curvature.operators import Operator, curvature_operator


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """A linear map of R^n and the logarithm of its |determinant|; a call applies it with determinant 1.

    ``clipped`` counts curvatures that were raised to the floor, ``products`` the operator products.

    >>> stretch = diagonal_map(torch.tensor([4.0, 1.0], dtype=torch.float64))
    >>> stretch(torch.ones(2, dtype=torch.float64)).tolist()
    [2.0, 0.5]
    """

    apply: Callable[[Tensor], Tensor]
    log_det: float
    n: int
    name: str = "given"
    clipped: int = 0
    products: int = 0

    def __call__(self, u: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """P u, with det P = 1."""
        return self.apply(u) * exp(-self.log_det / self.n)


def identity(n: int) -> Preconditioner:
    """The identity map."""
    return Preconditioner(lambda u: u, 0.0, n, "identity")


def diagonal_map(scales: Float[Tensor, "n"], name: str = "given diagonal") -> Preconditioner:
    """Scale every coordinate.

    Raises ValueError for a scale that is 0 or not finite.
    """
    scales = scales.double()
    if not bool((torch.isfinite(scales) & (scales != 0)).all()):
        raise ValueError("a diagonal preconditioner must be finite and nowhere 0")
    return Preconditioner(lambda u: scales.to(u) * u, float(scales.abs().log().sum()), len(scales), name)


def matrix_map(matrix: Float[Tensor, "n n"]) -> Preconditioner:
    """Multiply by a matrix.

    Raises ValueError for a singular matrix.
    """
    sign, log_det = torch.linalg.slogdet(matrix.double())
    if not (float(sign) and isfinite(float(log_det))):
        raise ValueError("a preconditioner must be invertible, got a singular matrix")
    return Preconditioner(lambda u: matrix.to(u) @ u, float(log_det), len(matrix), "given matrix")


@dataclass(frozen=True)
class CurvatureSource:
    """The curvature that a preconditioner is made from."""

    field: Field
    theta: PointLike
    mask: Bool[Tensor, "D"] | None
    operator: str
    probes: int
    k: int
    floor: float
    seed: int

    @property
    def of(self) -> Operator:
        """The curvature operator in the subspace."""
        return curvature_operator(self.field, self.theta, self.mask, operator=self.operator)

    def raised(self, values: Tensor) -> Tensor:
        """Raise curvatures to at least ``floor`` times the largest.

        Raises ValueError if none is positive.
        """
        largest = float(values.max())
        if not largest > 0:
            raise ValueError(f"no positive curvature to precondition with: the largest is {largest:.3g}")
        return values.clamp_min(self.floor * largest)


def from_diagonal(c: CurvatureSource) -> Preconditioner:
    """``a_i^(-1/2)`` with the curvature's diagonal a, estimated from ``probes`` products."""
    of = c.of
    found = diagonal(c.field, c.theta, probes=c.probes, mask=c.mask, operator=c.operator, seed=c.seed)
    values = of.restrict(found.values)
    raised = c.raised(values)
    scales = diagonal_map(raised**-0.5, "diagonal")
    clipped = int((raised > values).sum())
    return Preconditioner(scales.apply, scales.log_det, scales.n, scales.name, clipped, found.products)


def from_eigenvectors(c: CurvatureSource) -> Preconditioner:
    """``lambda^(-1/2)`` along the k steepest eigenvectors, and one scale for their orthogonal complement.

    That scale comes from the mean curvature in the complement, estimated from ``probes`` products.
    """
    of, n = c.of, c.of.dimension
    spectrum = top_eigenvalues(c.field, c.theta, k=min(c.k, n), mask=c.mask, operator=c.operator, seed=c.seed)
    v, _ = torch.linalg.qr(of.restrict(spectrum.vectors).double().T)  # columns: a determinant needs them orthonormal
    k = v.shape[1]
    values = spectrum.values.to(v)
    rest = _mean_orthogonal(of, v, c) if k < n else float(values[-1])
    every = torch.cat([values, values.new_tensor([rest])])
    raised = c.raised(every)
    scales, level = raised[:k] ** -0.5, float(raised[k]) ** -0.5

    def apply(u: Tensor) -> Tensor:
        x = u.double()
        return (level * x + v @ ((scales - level) * (v.T @ x))).to(u)

    products = spectrum.products + (c.probes if k < n else 0)
    log_det = float(scales.log().sum()) + (n - k) * log(level)
    return Preconditioner(apply, log_det, n, f"low-rank, k = {k}", int((raised > every).sum()), products)


def steepest_span(c: CurvatureSource) -> tuple[Float[Tensor, "k D"], Preconditioner]:
    """The k steepest eigenvectors as orthonormal rows of R^D, and ``lambda^(-1/2)`` along each of them.

    Raises ValueError if none of them has positive curvature.
    """
    of, k = c.of, min(c.k, c.of.dimension)
    spectrum = top_eigenvalues(c.field, c.theta, k=k, mask=c.mask, operator=c.operator, seed=c.seed)
    rows = torch.linalg.qr(of.restrict(spectrum.vectors).double().T)[0].T.to(spectrum.vectors)
    raised = c.raised(spectrum.values)
    scales = diagonal_map(raised**-0.5, f"the span's own, k = {k}")
    clipped = int((raised > spectrum.values).sum())
    return of.embed(rows), Preconditioner(scales.apply, scales.log_det, k, scales.name, clipped, spectrum.products)


def _mean_orthogonal(of: Operator, v: Float[Tensor, "n k"], c: CurvatureSource) -> float:
    def signs(i: int) -> Tensor:
        z = of.draw(c.seed, i, stream="probe:precondition", signs=True).double()
        return (z - v @ (v.T @ z)).to(of.like)

    doubled = ((z.double(), az.double()) for z, az in of.products(signs, c.probes, 8))
    pairs = [(float(z @ az), float(z @ z)) for z, az in doubled]
    return sum(form for form, _ in pairs) / sum(square for _, square in pairs)


MAKERS: dict[str, Callable[[CurvatureSource], Preconditioner]] = {
    "identity": lambda c: identity(c.of.dimension),
    "diagonal": from_diagonal,
    "low-rank": from_eigenvectors,
}
"""Preconditioners by name: ``f(curvature) -> Preconditioner``."""


def preconditioner_of(asked: str | Tensor | Preconditioner, c: CurvatureSource) -> Preconditioner:
    """A preconditioner from its name, a diagonal [n] or a matrix [n, n], or the given one.

    Raises ConfigError for an unknown name, ValueError for another dimension than that of the subspace.
    """
    if isinstance(asked, str):
        if asked not in MAKERS:
            raise unknown("preconditioner", asked, MAKERS)
        return MAKERS[asked](c)
    if isinstance(asked, Tensor):
        asked = diagonal_map(asked) if asked.ndim == 1 else matrix_map(asked)
    n = c.of.dimension
    if asked.n != n:
        raise ValueError(f"a preconditioner of dimension {asked.n} does not fit a subspace of dimension {n}")
    return asked
