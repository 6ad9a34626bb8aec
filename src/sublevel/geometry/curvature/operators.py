"""Curvature as a symmetric operator on R^D, or on the subspace of a mask.

In a subspace the operator is v -> m * A (m * v) on the n coordinates of the mask m. Vectors and dimension are those of
the subspace, so zeros of the mask are not eigenvalues. Estimators of eigenvalues, densities and traces see only the
`Operator`: Hessian, GGN or Fisher, plain or filter-normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sublevel._types import Bool, Float, Int, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, Likelihood, PointLike, require_field
from sublevel.field.products import product_blocks, random_signs
from sublevel.rng import generator
from sublevel.space import as_point

LARGEST_MATRIX = 20_000
"""Largest dimension of a matrix that is formed: 3.2 GB in float64."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A symmetric operator on the n coordinates of a subspace.

    ``product`` maps [*K, D] to [*K, D]; ``index`` holds the coordinates of the subspace (None for all of R^D); ``like``
    is a vector [D] with the dtype and device of theta. A call maps [*K, n] to [*K, n] in one pass over the data.

    >>> from sublevel.field import Quadratic
    >>> theta = torch.zeros(3, dtype=torch.float64)
    >>> field = Quadratic(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    >>> inside = hessian(field, theta, mask=torch.tensor([True, False, True]))
    >>> inside.dimension, inside(torch.ones(2, dtype=torch.float64)).tolist()
    (2, [4.0, 1.0])
    """

    product: Callable[[Tensor], Tensor]
    like: Float[Tensor, "D"]
    index: Int[Tensor, "n"] | None
    name: str

    def __call__(self, v: Float[Tensor, "*K n"]) -> Float[Tensor, "*K n"]:
        """The product with v, in the subspace."""
        return self.restrict(self.product(self.embed(v)))

    @property
    def dimension(self) -> int:
        """The dimension n of the subspace."""
        return len(self.like) if self.index is None else len(self.index)

    def embed(self, v: Float[Tensor, "*K n"]) -> Float[Tensor, "*K D"]:
        """A vector of the subspace as a vector of R^D, zero outside the subspace."""
        if self.index is None:
            return v
        return v.new_zeros((*v.shape[:-1], len(self.like))).index_copy_(-1, self.index, v)

    def restrict(self, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K n"]:
        """The coordinates of the subspace."""
        return v if self.index is None else v[..., self.index]

    def draw(self, seed: int, i: int, *, stream: str = "probe", signs: bool = False) -> Float[Tensor, "n"]:
        """Draw ``i`` of a stream: a standard normal vector of the subspace, or random ``signs`` (Rademacher).

        The draw is made in float64 on the CPU, so that it does not depend on precision or device.
        """
        rng = generator(seed, stream, i)
        if signs:
            return random_signs(self.dimension, rng).to(self.like)
        return torch.randn(self.dimension, generator=rng, dtype=torch.float64).to(self.like)

    def scaled(self, scale: Float[Tensor, "D"]) -> Operator:
        """``D_s A D_s`` with the diagonal matrix D_s of ``scale``: the adaptive curvature for `filter_norms`.

        Its vectors are in scaled coordinates: a step u there moves theta by s * u. A scale of 0 gives an eigenvalue 0.

        Raises ValueError for a scale of another length, or with an entry that is negative or not finite.
        """
        if scale.shape != self.like.shape:
            raise ValueError(f"a scale of shape {list(scale.shape)} does not fit dimension {len(self.like)}")
        if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
            raise ValueError("a scale must be finite and not negative in every coordinate")
        s = scale.to(self.like)
        return replace(self, product=lambda v: s * self.product(s * v), name=f"adaptive {self.name}")

    def products(self, vectors: Callable[[int], Tensor], count: int, together: int) -> Iterator[tuple[Tensor, Tensor]]:
        """``count`` vectors [n] and their products, at most ``together`` in one pass over the data."""
        check_counts(together=together)
        for block, products in product_blocks(self, vectors, count, together):
            yield from zip(block, finite(products), strict=True)

    def unit(self, i: int) -> Float[Tensor, "n"]:
        """The i-th unit vector of the subspace."""
        v = self.like.new_zeros(self.dimension)
        v[i] = 1
        return v

    def matrix(self, together: int = 64) -> np.ndarray:
        """The symmetric part of the matrix [n, n] in float64, from n products.

        Raises ValueError beyond `LARGEST_MATRIX` dimensions.
        """
        matrix = self.raw_matrix(together)
        return (matrix + matrix.T) / 2

    def raw_matrix(self, together: int = 64) -> np.ndarray:
        """The products with all unit vectors, as rows [n, n] in float64; symmetric up to rounding.

        Raises ValueError beyond `LARGEST_MATRIX` dimensions.
        """
        if self.dimension > LARGEST_MATRIX:
            raise ValueError(f"a matrix of dimension {self.dimension} is not formed; at most {LARGEST_MATRIX}")
        rows = [row.double().cpu().numpy() for _, row in self.products(self.unit, self.dimension, together)]
        return np.stack(rows)


def hessian(field: Field, theta: PointLike, mask: Bool[Tensor, "D"] | None = None) -> Operator:
    """The Hessian of a field at theta, in the subspace of ``mask``."""
    require_field(field, "hessian")
    point = as_point(theta)
    return subspace_operator(lambda v: field.hvp(point, v), point.theta, mask, "hessian")


def ggn(field: Field, theta: PointLike, mask: Bool[Tensor, "D"] | None = None) -> Operator:
    """The generalised Gauss-Newton matrix of a likelihood at theta (Schraudolph 2002): positive semi-definite."""
    likelihood, point = require_likelihood(field, "ggn"), as_point(theta)
    return subspace_operator(lambda v: likelihood.ggn_vp(point, v), point.theta, mask, "ggn")


def fisher(
    field: Field,
    theta: PointLike,
    mask: Bool[Tensor, "D"] | None = None,
    *,
    kind: str = "empirical",
    seed: int = 0,
) -> Operator:
    """The Fisher matrix of a likelihood at theta: ``empirical`` (with the labels) or ``monte-carlo`` (labels drawn).

    ``seed`` draws the labels once: they are the same in every product, so the operator is one matrix.
    """
    likelihood, point = require_likelihood(field, "fisher"), as_point(theta)
    return subspace_operator(
        lambda v: likelihood.fisher_vp(point, v, kind=kind, seed=seed), point.theta, mask, f"{kind} fisher"
    )


OPERATORS: dict[str, Callable[..., Operator]] = {
    "hessian": hessian,
    "ggn": ggn,
    "empirical-fisher": fisher,
    "monte-carlo-fisher": lambda field, theta, mask: fisher(field, theta, mask, kind="monte-carlo"),
}
"""Curvature operators by name: ``f(field, theta, mask) -> Operator``."""


def curvature_operator(
    field: Field,
    theta: PointLike,
    mask: Bool[Tensor, "D"] | None = None,
    *,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
) -> Operator:
    """The operator of a name, filter-normalised if ``scale`` is given.

    Raises ConfigError for an unknown name, ValueError for an empty subspace.
    """
    require_field(field, "curvature")
    if operator not in OPERATORS:
        raise unknown("curvature operator", operator, OPERATORS)
    found = OPERATORS[operator](field, theta, mask)
    return found if scale is None else found.scaled(scale)


def subspace_operator(
    product: Callable[[Tensor], Tensor], like: Float[Tensor, "D"], mask: Bool[Tensor, "_"] | None, name: str
) -> Operator:
    """Make an operator from its product in R^D.

    Raises ValueError for a mask of another length than theta, or one that keeps no coordinate.
    """
    n = subspace_dimension(like, mask)
    if not n:
        raise ValueError(f"the {name} has no coordinates to act on: the mask leaves a subspace of dimension 0")
    index = None if mask is None else mask.to(like.device).nonzero().squeeze(1)
    return Operator(product, like, index, name)


def subspace_dimension(theta: PointLike, mask: Bool[Tensor, "D"] | None = None) -> int:
    """The dimension n of a mask's subspace, which is the largest k of `top_eigenvalues`.

    Raises ValueError for a mask of another length than theta.
    """
    dim = len(as_point(theta).theta)
    if mask is None:
        return dim
    if len(mask) != dim:
        raise ValueError(f"a mask of length {len(mask)} does not fit a point of dimension {dim}")
    return int(mask.sum())


def require_likelihood(field: object, who: str) -> Likelihood:
    """Require a `Likelihood`.

    Raises TypeError with the type of the field.
    """
    require_field(field, who)
    if not isinstance(field, Likelihood):
        raise TypeError(f"{who} needs a likelihood (a loss over a model's outputs), got {type(field).__name__}")
    return field


def check_counts(least: int = 1, **counts: int) -> None:
    """Require counts of at least ``least``.

    Raises ValueError with the name of the first one below it.
    """
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")


def unsymmetric(asymmetry: float, dtype: torch.dtype) -> str:
    """Why an operator is not symmetric; empty if its asymmetry is within rounding, the root of machine epsilon.

    ``asymmetry`` is the size of u^T A v - v^T A u relative to A. Every estimator here assumes a symmetric matrix. A
    Hessian that is not symmetric comes from a wrong second derivative.

    >>> unsymmetric(1e-6, torch.float32), unsymmetric(0.1, torch.float32)[:13]
    ('', 'not symmetric')
    """
    if asymmetry <= torch.finfo(dtype).eps ** 0.5:
        return ""
    return f"not symmetric: u.Av and v.Au differ by {asymmetry:.1g} of their size"


def finite(products: Tensor) -> Tensor:
    """Return the products; raise FloatingPointError if one is not finite."""
    if not bool(torch.isfinite(products).all()):
        raise FloatingPointError("a product of the operator is not finite")
    return products
