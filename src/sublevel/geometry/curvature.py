"""Extreme eigenvalues of the Hessian of a field, in R^D or in the subspace of a mask.

In a subspace the operator is v -> m * H (m * v) on its n coordinates: start vectors and dimension are those of the
subspace, so no zero of the mask appears as an eigenvalue. By Cauchy interlacing the k-th eigenvalue at one theta
is never larger in the subspace than in R^D: a difference between two *solutions* must be read in one space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import At, Field
from sublevel.geometry.lanczos import extremes
from sublevel.rng import generator
from sublevel.space import as_point


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The largest algebraic eigenvalues of a Hessian, and what is needed to trust them.

    ``values`` [k] descending (float64), ``vectors`` [k, D] (zero outside the mask), ``residuals`` [k] =
    |H v - lambda v|, computed anew, ``pair_converged`` [k]. A pair is converged when its residual is at most ``bound``;
    ``converged`` holds for all k of them, and ``stop`` says why it ended.
    ``smallest`` are the lowest Ritz values (ascending), upper bounds on the lowest eigenvalues, each to be trusted as
    far as its ``smallest_residuals``; ``negative_count`` is the number of Ritz values below -``bound``, a lower bound
    on the index of H; ``negative_mass`` the share of a random vector's squared norm on them.
    """

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k D"]
    residuals: Float[Tensor, "k"]
    pair_converged: list[bool]
    converged: bool
    stop: str
    bound: float
    products: int
    dimension: int
    smallest: Float[Tensor, "low"]
    smallest_residuals: Float[Tensor, "low"]
    negative_count: int
    negative_mass: float


def top_eigenvalues(
    field: Field,
    theta: At,
    *,
    k: int,
    mask: Bool[Tensor, "D"] | None = None,
    tolerance: float | None = None,
    steps: int = 200,
    restarts: int = 3,
    negative: int = 1,
    seed: int = 0,
) -> Spectrum:
    """The k largest algebraic eigenvalues of the Hessian at ``theta``, by Lanczos with full reorthogonalisation.

    ``mask`` restricts to its subspace. ``tolerance`` bounds the residuals, relative to the largest |eigenvalue|
    (default 1e-7 in float64, 1e-3 in float32: the error of an isolated eigenvalue is of the order of its square);
    ``steps`` bounds the products of one run; ``restarts`` the searches for copies of multiple eigenvalues;
    ``negative`` eigenvalues at the lower end are waited for too. Negative eigenvalues are never made positive.

    Raises ValueError where the subspace is empty, the mask of another length or k not positive, FloatingPointError
    where a Hessian product is not finite.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([4.0, 4.0, 1.0, -2.0], dtype=torch.float64))
    >>> spectrum = top_eigenvalues(field, torch.zeros(4, dtype=torch.float64), k=3)
    >>> [round(float(value), 6) for value in spectrum.values], spectrum.converged
    ([4.0, 4.0, 1.0], True)
    """
    point = as_point(theta)
    dim, at = len(point.theta), point.theta
    if mask is not None and len(mask) != dim:
        raise ValueError(f"a mask of length {len(mask)} does not fit a point of dimension {dim}")
    index = torch.arange(dim, device=at.device) if mask is None else mask.to(at.device).nonzero().squeeze(1)
    if k < 1 or not len(index):
        raise ValueError(f"no eigenvalues to find: k = {k} in a subspace of dimension {len(index)}")
    tolerance = tolerance or (1e-7 if at.dtype == torch.float64 else 1e-3)

    def embed(v: Tensor) -> Tensor:
        return v if mask is None else at.new_zeros((*v.shape[:-1], dim)).index_copy_(-1, index, v)

    def operator(v: Tensor) -> Tensor:
        product = field.hvp(point, embed(v))
        return product if mask is None else product[..., index]

    def draw(run: int) -> Tensor:
        v = torch.randn(len(index), generator=generator(seed, "probe", run), dtype=torch.float64)
        return v.to(at)

    found = extremes(
        operator,
        draw,
        k=k,
        tolerance=tolerance,
        steps=steps,
        restarts=restarts,
        negative=min(negative, len(index) - 1),
    )
    bound = tolerance * float(np.abs(found.first.values).max())
    below = found.first.values < -bound
    return Spectrum(
        values=found.values,
        vectors=embed(found.vectors),
        residuals=found.residuals,
        pair_converged=found.converged,
        converged=found.stop == "converged",
        stop=found.stop,
        bound=bound,
        products=found.products,
        dimension=len(index),
        smallest=found.lowest,
        smallest_residuals=found.lowest_residuals,
        negative_count=int(below.sum()),
        negative_mass=float(found.first.weights[below].sum()),
    )
