"""Traces, diagonals, and the mean curvature along sets of coordinates.

All of them rest on E[z z^T] = I for a vector z of random signs (Rademacher): z^T A z estimates the trace (Hutchinson
1990), z * A z the diagonal (Bekas, Kokiopoulou and Saad 2007), and with z supported on a set of coordinates the sum of
the diagonal over the set. Off-diagonal entries alone make them vary: they are exact for a diagonal matrix.

The products that are made anyway show whether the operator is symmetric (`Symmetry`): it is a ``reason`` where not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import torch

from sublevel._types import Bool, Float, Int, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, curvature_operator, finite, unsymmetric
from sublevel.geometry.estimate import SKEWED, Estimate, mean_and_se


def trace(
    field: Field,
    theta: PointLike,
    *,
    method: str = "hutchinson",
    probes: int = 100,
    mask: Bool[Tensor, "D"] | None = None,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    together: int = 8,
    seed: int = 0,
) -> Estimate:
    """The trace of the curvature at ``theta``, from ``probes`` products.

    ``hutchinson`` is the mean of z^T A z. ``hutch++`` (Meyer et al. 2010.09649, algorithm 1) spends a third of the
    products on a sketch Q of the range of A, a third on tr(Q^T A Q), which is exact, and a third on Hutchinson's
    estimate of what the sketch has left; its standard error is that of those residual probes, independent given Q.
    ``exact`` takes n products. ``draws`` are the independent probes that the error comes from.

    Raises ConfigError for an unknown method, ValueError for counts below 1 (below 3 for ``hutch++``), a mask of another
    length or an empty subspace, FloatingPointError where a product is not finite.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([4.0, 2.0, -1.0], dtype=torch.float64))
    >>> trace(field, torch.zeros(3, dtype=torch.float64), probes=4).value
    5.0
    """
    require_field(field, "trace")
    if method not in METHODS:
        raise unknown("trace estimator", method, METHODS)
    check_counts(probes=probes, together=together)
    of = curvature_operator(field, theta, mask, operator=operator, scale=scale)
    return METHODS[method](of, probes, together, seed)


FEW = 50
"""With more probes than these their mean is not skewed any more."""


def hutchinson(of: Operator, probes: int, together: int, seed: int) -> Estimate:
    """The mean of z^T A z over random signs z.

    Where few eigenvalues carry the error, its distribution is skewed, and small where the sample deviation is: the
    standard error is then no less than the products themselves imply (`implied_se`).
    """

    def signs(i: int) -> Tensor:
        return of.draw(seed, i, stream="probe:trace", signs=True)

    symmetry = Symmetry(of, seed)
    values: list[float] = []
    kept: list[tuple[Tensor, Tensor]] = []
    for z, product in symmetry.seen(of.products(signs, probes, together)):
        values.append(_dot(z, product))
        if probes <= FEW:
            kept.append((z, product))
    mean, se = mean_and_se(values)
    implied = implied_se(kept) if 1 < probes <= FEW else 0.0
    reason = symmetry.reason
    products = probes + symmetry.further
    return Estimate(mean, max(se, implied), probes, products, reason, {"sampling_se": se, "implied_se": implied})


def implied_se(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The standard error of a mean of z^T A z where few eigenvalues carry it, from pairs (z, A z); 0 where many do.

    The variance of one is 2 (tr A^2 - sum_i A_ii^2). tr A^2 is the mean of |A z|^2; pairs of probes give tr A^4, as the
    mean of ((A z)^T A z')^2, and sum_i A_ii^2. ``(tr A^2)^2 / tr A^4`` eigenvalues carry it.
    """
    z, az = (torch.stack([pair[i].double() for pair in pairs]) for i in (0, 1))
    largest, m = float(az.abs().max()) or 1.0, len(pairs)
    az = az / largest
    gram, entries = az @ az.T, z * az
    second = float(gram.diagonal().mean())
    fourth = float(gram.square().sum() - gram.diagonal().square().sum()) / (m * (m - 1))
    diagonal = float(entries.sum(dim=0).square().sum() - entries.square().sum()) / (m * (m - 1))
    if second**2 >= SKEWED * fourth:
        return 0.0
    return largest * (2 * max(second - diagonal, 0.0) / m) ** 0.5


def hutch_plus_plus(of: Operator, probes: int, together: int, seed: int) -> Estimate:
    """tr(Q^T A Q) + the mean of z^T (1 - Q Q^T) A (1 - Q Q^T) z, with Q from the range of A."""
    if probes < 3:
        raise ValueError(f"hutch++ needs at least 3 probes, one for each of its parts, got {probes}")
    rank = probes // 3
    if rank >= of.dimension:
        return exact(of, probes, together, seed)

    def sketch(i: int) -> Tensor:
        return of.draw(seed, i, stream="probe:sketch", signs=True)

    symmetry = Symmetry(of, seed)
    span = torch.stack([product.double() for _, product in symmetry.seen(of.products(sketch, rank, together))])
    q = torch.linalg.qr(span.T)[0].T

    def left(i: int) -> Tensor:
        z = of.draw(seed, i, stream="probe:trace", signs=True).double()
        return (z - (q @ z) @ q).to(of.like)

    caught = sum(_dot(row, product) for row, product in of.products(lambda i: q[i].to(of.like), rank, together))
    rest = [_dot(z, product) for z, product in symmetry.seen(of.products(left, probes - 2 * rank, together))]
    mean, se = mean_and_se(rest)
    diagnostics = {"caught": caught, "left": mean, "rank": rank}
    return Estimate(caught + mean, se, len(rest), probes, symmetry.reason, diagnostics)


def exact(of: Operator, probes: int, together: int, seed: int) -> Estimate:
    """The trace from all n unit vectors; nothing is drawn."""
    n, g = of.dimension, of.draw(seed, 0, stream="probe:symmetry").double()
    total, across, down = 0.0, torch.zeros_like(g), torch.zeros_like(g)
    for i, (_, column) in enumerate(of.products(of.unit, n, together)):
        total += float(column[i])
        across, down[i] = across + g[i] * column.double(), g @ column.double()  # A g and A^T g
    asymmetry = float((across - down).norm()) / max(float(across.norm()), torch.finfo(torch.float64).tiny)
    return Estimate(total, 0.0, 0, n, unsymmetric(asymmetry, of.like.dtype))


class Symmetry:
    """Whether an operator is symmetric, from the probes that are seen: u^T A v against v^T A u, u the first of them.

    Where a single one was seen, another is drawn: ``further`` counts its product.
    """

    def __init__(self, of: Operator, seed: int) -> None:
        self._of, self._seed = of, seed
        self._first: tuple[Tensor, Tensor] | None = None
        self._off: list[float] = []
        self.further = 0

    def seen(self, products: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The same probes and products, looked at in passing."""
        for v, av in products:
            if self._first is None:
                self._first = v, av
            else:
                self._off.append(self._compare(*self._first, v, av))
            yield v, av

    def _compare(self, u: Tensor, au: Tensor, v: Tensor, av: Tensor) -> float:
        """|u^T A v - v^T A u| in units of |A|, as random vectors show it; free of under- and overflow."""
        largest = max(float(w.abs().max()) for w in (au, av)) or 1.0
        u, v, au, av = u.double(), v.double(), au.double() / largest, av.double() / largest
        size = float(max(av.norm() * u.norm(), au.norm() * v.norm()))
        return abs(float(u @ av - v @ au)) * len(u) ** 0.5 / size if size else 0.0

    @property
    def reason(self) -> str:
        """Why the operator is not symmetric, or nothing."""
        if self._first is not None and not self._off and self._of.dimension > 1:
            self.further = 1
            again = self._of.draw(self._seed, 0, stream="probe:symmetry", signs=True)
            list(self.seen([(again, finite(self._of(again)))]))
        return self.seen_reason

    @property
    def seen_reason(self) -> str:
        """The same from what was seen alone, without another probe."""
        found = (sum(off**2 for off in self._off) / len(self._off)) ** 0.5 if self._off else 0.0
        return unsymmetric(found, self._of.like.dtype)


Method = Callable[[Operator, int, int, int], Estimate]

METHODS: dict[str, Method] = {"hutchinson": hutchinson, "hutch++": hutch_plus_plus, "exact": exact}
"""Trace estimators by name: ``f(operator, probes, together, seed) -> Estimate``."""


@dataclass(frozen=True, eq=False)
class Diagonal:
    """The diagonal of a curvature: ``values`` [D] and their standard errors ``se`` [D] over ``draws`` probes.

    Both are nan outside the mask, where nothing was measured. Float64, on the device of theta.
    """

    values: Float[Tensor, "D"]
    se: Float[Tensor, "D"]
    draws: int
    products: int
    reason: str = ""
    """Why the values are not to be trusted, or nothing."""


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
    """The diagonal of the curvature, as the mean of z * A z (Bekas et al. 2007; with random signs no division).

    The variance of entry i is the sum of A_ij^2 over j != i, over ``probes``. Its sum is what `trace` gives from the
    same seed.

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
    for seen, (z, product) in enumerate(symmetry.seen(of.products(signs, probes, together)), start=1):
        entry = z.double() * product.double()
        step = entry - mean
        mean = mean + step / seen
        squares = squares + step * (entry - mean)
    se = (squares / (probes - 1) / probes).sqrt() if probes > 1 else torch.full_like(mean, nan)
    reason = symmetry.reason
    return Diagonal(_spread(of, mean), _spread(of, se), probes, probes + symmetry.further, reason)


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

    A mask does not change them: the diagonal of A in a subspace is that of A.

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
    """The mean curvature along each set of coordinates, ``1/|S| sum_(i in S) A_ii``.

    Each set is probed by vectors of random signs that are supported on it: z^T A z / |S|. Curvature off the set, and
    between it and the rest, does not enter. A set of no more than ``probes`` coordinates is measured exactly, by unit
    vectors. The draws of a set depend on its name and not on the other sets. `matched_sets` draws sets to compare.

    Raises ValueError for sets that are empty, hold a coordinate twice or one outside R^D.

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
    values = [_dot(z, product) / size for z, product in symmetry.seen(of.products(signs, probes, together))]
    return Estimate(*mean_and_se(values), probes, probes, symmetry.seen_reason, {"size": size})


def _entries(of: Operator, index: range | list[int], together: int) -> Iterator[float]:
    """A_ii for every i of ``index``."""
    for position, (_, product) in zip(
        index, of.products(lambda i: of.unit(index[i]), len(index), together), strict=True
    ):
        yield float(product[position])


def _coordinates(what: str, index: Tensor, dim: int) -> list[int]:
    found = index.tolist()
    if not found:
        raise ValueError(f"{what}: no coordinate in it")
    if min(found) < 0 or max(found) >= dim:
        raise ValueError(f"{what}: coordinates from {min(found)} to {max(found)} in a space of dimension {dim}")
    if len(set(found)) < len(found):
        raise ValueError(f"{what}: a coordinate stands in it twice")
    return found


def _dot(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double())


def _spread(of: Operator, v: Float[Tensor, "n"]) -> Float[Tensor, "D"]:
    """A float64 vector of the subspace in R^D, nan outside it."""
    if of.index is None:
        return v
    return torch.full((len(of.like),), nan, dtype=v.dtype, device=v.device).index_copy_(0, of.index, v)
