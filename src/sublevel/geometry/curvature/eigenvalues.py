"""The largest eigenvalues of the curvature at a point, with their residuals and whether each has converged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.display import Shown, with_error
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.missed import MISSED
from sublevel.geometry.curvature.operators import check_counts, curvature_operator, subspace_dimension
from sublevel.geometry.curvature.restarted import restarted_eigenpairs
from sublevel.geometry.curvature.top_eigenpairs import top_eigenpairs
from sublevel.space import as_point


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Shown):
    """The largest algebraic eigenvalues of a curvature operator, with their diagnostics.

    ``values`` [k] descending (float64), ``vectors`` [k, D] (zero outside the mask), ``residuals`` [k] =
    |H v - lambda v|, ``pair_converged`` [k]. A pair has converged if its residual is at most its entry of ``bounds``
    [k] and no eigenvalue above it is missing, except by a chance of at most ``chance_missed`` = 1e-3. ``converged`` is
    true if all k pairs have; ``stop`` says why the search ended.
    ``smallest`` are the lowest Ritz values (ascending), upper bounds on the lowest eigenvalues, with their
    ``smallest_residuals``; they have converged if these are at most ``bound``. ``negative_count`` is the number of Ritz
    values below -``rounding``, a lower bound on the index of H; ``negative_mass`` is the share of a random vector's
    squared norm on them. ``products`` counts all products, including ``search_products``, which look for missing
    eigenvalues. ``asymmetry`` is |C - C^T| / |C| of the operator's compression C to the first run. Beyond rounding the
    operator is not symmetric, and no pair has converged.
    """

    values: Float[Tensor, "k"]
    vectors: Float[Tensor, "k D"]
    residuals: Float[Tensor, "k"]
    pair_converged: list[bool]
    converged: bool
    stop: str
    bound: float
    bounds: Float[Tensor, "k"]
    rounding: float
    asymmetry: float
    chance_missed: float
    products: int
    search_products: int
    dimension: int
    smallest: Float[Tensor, "low"]
    smallest_residuals: Float[Tensor, "low"]
    negative_count: int
    negative_mass: float

    def _facts(self) -> dict[str, object]:
        sure = "" if self.converged else f"{sum(self.pair_converged)} of {len(self.values)} converged ({self.stop})"
        return {
            "": f"{len(self.values)} largest of {self.dimension:,} eigenvalues",
            "largest": with_error(float(self.values[0]), float(self.residuals[0])) if len(self.values) else "",
            "k-th": float(self.values[-1]) if len(self.values) > 1 else None,
            "lowest Ritz value": float(self.smallest[0]) if len(self.smallest) else None,
            "converged:": sure or True,
            "products:": self.products,
        }


def top_eigenvalues(
    field: Field,
    theta: PointLike,
    *,
    k: int,
    mask: Bool[Tensor, "D"] | None = None,
    tolerance: float | None = None,
    steps: int = 200,
    restarts: int = 3,
    negative: int = 1,
    seed: int = 0,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    rows: int | None = None,
) -> Spectrum:
    """The k largest algebraic eigenvalues of the curvature at ``theta``, by Lanczos with full reorthogonalisation.

    - ``mask`` restricts the curvature to its subspace.
    - ``tolerance`` bounds each residual relative to the size of its value (default 1e-7 in float64, 1e-4 in float32).
      The distance to an eigenvalue is at most the residual; for an isolated eigenvalue the error is of the order of its
      square. Larger rounding replaces the bound, up to 1% of the value.
    - ``steps`` bounds the products of one run.
    - ``restarts`` bounds the searches for copies of multiple eigenvalues, which take products of their own. Without
      any, only the first pair can converge.
    - ``negative`` eigenvalues at the lower end must converge too, with residuals relative to the largest |eigenvalue|.
    - ``rows`` is the largest number of vectors in memory. If a run of ``steps`` needs more, it restarts (see
      `sublevel.geometry.curvature.restarted`): the same eigenvalues within their bounds, from more products.
    - ``operator`` and ``scale`` choose the curvature. With a ``scale`` the vectors are in scaled coordinates (see
      `Operator.scaled`).

    The sign of negative eigenvalues is kept. Converged pairs miss an eigenvalue with a chance of at most
    ``chance_missed``, that of a random start with almost no component along its eigenvector
    (`sublevel.geometry.curvature.lanczos.Progress.chance_of_more`).

    Raises ValueError for an empty subspace, a mask of another length, too few ``rows``, or k outside 1 to
    `subspace_dimension`, FloatingPointError for a product that is not finite.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([4.0, 4.0, 1.0, -2.0], dtype=torch.float64))
    >>> spectrum = top_eigenvalues(field, torch.zeros(4, dtype=torch.float64), k=3)
    >>> [round(float(value), 6) for value in spectrum.values], spectrum.converged
    ([4.0, 4.0, 1.0], True)
    """
    require_field(field, "top_eigenvalues")
    n, dtype = subspace_dimension(theta, mask), as_point(theta).theta.dtype
    if not 1 <= k <= n:
        what = "no eigenvalues to find" if k < 1 or not n else "more eigenvalues than there are"
        raise ValueError(f"{what}: k = {k} in a subspace of dimension {n}")
    check_counts(steps=steps)
    check_counts(0, restarts=restarts, negative=negative)
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    tolerance = tolerance or (1e-7 if dtype == torch.float64 else 1e-4)
    of = curvature_operator(field, theta, mask, operator=operator, scale=scale)
    draw, low = (lambda run: of.draw(seed, run)), min(negative, n - 1)
    how: dict[str, Any] = {"k": k, "tolerance": tolerance, "steps": steps, "restarts": restarts, "negative": low}
    if rows is None or rows >= min(steps, n) or 3 * k >= n:
        found = top_eigenpairs(of, draw, **how)
    else:
        found = restarted_eigenpairs(of, draw, rows=rows, **how)
    return Spectrum(
        values=found.values,
        vectors=of.embed(found.vectors),
        residuals=found.residuals,
        pair_converged=found.converged,
        converged=found.stop == "converged",
        stop=found.stop,
        bound=tolerance * found.scale,
        bounds=found.bounds,
        rounding=found.rounding,
        asymmetry=found.asymmetry,
        chance_missed=MISSED,
        products=found.products,
        search_products=found.products - found.pair_products - 1,
        dimension=n,
        smallest=found.lowest,
        smallest_residuals=found.lowest_residuals,
        negative_count=found.negative_count,
        negative_mass=found.negative_mass,
    )
