"""The diagonal of the curvature, and its mean over sets of coordinates.

With a vector z of random signs E[z z^T] = I, so z * A z estimates the diagonal (Bekas, Kokiopoulou and Saad 2007). With
z supported on a set of coordinates, z^T A z estimates the sum of the diagonal over the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan

import torch

from sublevel._types import Bool, Float, Int, Tensor
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, curvature_operator
from sublevel.geometry.curvature.symmetry import Symmetry
from sublevel.geometry.curvature.traces import dot
from sublevel.geometry.estimate import Estimate, mean_and_se


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The diagonal of a curvature: ``values`` [D] and their standard errors ``se`` [D] over ``draws`` probes.

    Both are float64, on the device of theta, and nan outside the mask. ``reason`` says why the values are not reliable.
    """

    values: Float[Tensor, "D"]
    se: Float[Tensor, "D"]
    draws: int
    products: int
    reason: str = ""


def diagonal(
    field: Field,
    theta: PointLike,
    *,
    probes: int = 100,
    mask: Bool[Tensor, "D"] | None = None,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    together: int = 8,
    seed: int = 0,
) -> Diagonal:
    """The diagonal of the curvature, as the mean of z * A z (Bekas et al. 2007; random signs need no division).

    The variance of entry i is the sum of A_ij^2 over j != i, divided by ``probes``. The sum of the entries is the
    estimate of `trace` from the same seed.

    Raises ValueError for counts below 1, a mask of another length or an empty subspace.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([4.0, 2.0, -1.0], dtype=torch.float64))
    >>> diagonal(field, torch.zeros(3, dtype=torch.float64), probes=2).values.tolist()
    [4.0, 2.0, -1.0]
    """
    require_field(field, "diagonal")
    check_counts(probes=probes, together=together)
    of = curvature_operator(field, theta, mask, operator=operator, scale=scale)

    def signs(i: int) -> Tensor:
        return of.draw(seed, i, stream="probe:trace", signs=True)

    mean = squares = torch.zeros(of.dimension, dtype=torch.float64, device=of.like.device)
    symmetry = Symmetry(of, seed)
    for seen, (z, product) in enumerate(symmetry.watch(of.products(signs, probes, together)), start=1):
        entry = z.double() * product.double()
        step = entry - mean
        mean = mean + step / seen
        squares = squares + step * (entry - mean)
    se = (squares / (probes - 1) / probes).sqrt() if probes > 1 else torch.full_like(mean, nan)
    reason = symmetry.reason
    if of.index is not None:
        outside = torch.full((len(of.like),), nan, dtype=mean.dtype, device=mean.device)
        mean, se = (outside.index_copy(0, of.index, v) for v in (mean, se))
    return Diagonal(mean, se, probes, probes + symmetry.further, reason)


def diagonal_entries(
    field: Field,
    theta: PointLike,
    coordinates: Int[Tensor, "c"],
    *,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    together: int = 8,
) -> Float[Tensor, "c"]:
    """The exact diagonal of the curvature at ``coordinates`` of R^D, by one product with a unit vector for each.

    It takes no mask: the diagonal of A in a subspace is that of A.

    Raises ValueError for coordinates outside R^D.
    """
    require_field(field, "diagonal_entries")
    check_counts(together=together)
    of = curvature_operator(field, theta, operator=operator, scale=scale)
    index = _coordinates("coordinates", coordinates, of.dimension)
    entries = list(_entries(of, index, together))
    return torch.tensor(entries, dtype=torch.float64, device=of.like.device)


def along(
    field: Field,
    theta: PointLike,
    sets: Mapping[str, Int[Tensor, "_"]],
    *,
    probes: int = 32,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    together: int = 8,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The mean curvature along each set S of coordinates, ``1/|S| sum_(i in S) A_ii``.

    Each set is probed by vectors of random signs that are supported on it: z^T A z / |S|. Curvature outside the set,
    and between it and the rest, does not enter. A set of at most ``probes`` coordinates is measured exactly, by unit
    vectors. The draws of a set depend on its name, not on the other sets. `matched_sets` makes sets to compare.

    Raises ValueError for a set that is empty, holds a coordinate twice, or one outside R^D.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([4.0, 2.0, -1.0], dtype=torch.float64))
    >>> found = along(field, torch.zeros(3, dtype=torch.float64), {"steep": torch.tensor([0, 1])})
    >>> found["steep"].value
    3.0
    """
    require_field(field, "along")
    check_counts(probes=probes, together=together)
    of = curvature_operator(field, theta, operator=operator, scale=scale)
    chosen = {name: _coordinates(f"set {name!r}", index, of.dimension) for name, index in sets.items()}
    return {name: _mean_along(of, name, index, probes, together, seed) for name, index in chosen.items()}


def _mean_along(of: Operator, name: str, index: list[int], probes: int, together: int, seed: int) -> Estimate:
    size = len(index)
    if size <= probes:
        return Estimate(float(sum(_entries(of, index, together))) / size, 0.0, 0, size, diagnostics={"size": size})
    where = torch.tensor(index, device=of.like.device)
    inside = Operator(lambda v: v, of.like, where, name)

    def signs(i: int) -> Tensor:
        return inside.embed(inside.draw(seed, i, stream=f"probe:along:{name}", signs=True))

    symmetry = Symmetry(inside, seed)
    values = [dot(z, product) / size for z, product in symmetry.watch(of.products(signs, probes, together))]
    return Estimate(*mean_and_se(values), probes, probes, symmetry.reason_so_far, {"size": size})


def _entries(of: Operator, index: range | list[int], together: int) -> Iterator[float]:
    """A_ii for every i of ``index``."""
    for position, (_, product) in zip(
        index, of.products(lambda i: of.unit(index[i]), len(index), together), strict=True
    ):
        yield float(product[position])


def _coordinates(what: str, index: Tensor, dim: int) -> list[int]:
    found = index.tolist()
    if not found:
        raise ValueError(f"{what}: it has no coordinate")
    if min(found) < 0 or max(found) >= dim:
        raise ValueError(f"{what}: coordinates from {min(found)} to {max(found)} in a space of dimension {dim}")
    if len(set(found)) < len(found):
        raise ValueError(f"{what}: it holds a coordinate twice")
    return found
