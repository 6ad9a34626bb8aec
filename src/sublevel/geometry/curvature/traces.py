"""Traces of the curvature.

With a vector z of random signs (Rademacher) E[z z^T] = I, so z^T A z estimates the trace (Hutchinson 1990). Its
variance comes from off-diagonal entries alone: it is exact for a diagonal matrix. The same products test the symmetry
of the operator (`Symmetry`); ``reason`` is set if it is not symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, curvature_operator, unsymmetric
from sublevel.geometry.curvature.symmetry import Symmetry
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
    estimate of the trace outside Q. Its standard error is that of the last third, whose probes are independent given Q.
    ``exact`` takes n products. ``draws`` counts the independent probes behind the error.

    Raises ConfigError for an unknown method, ValueError for counts below 1 (below 3 for ``hutch++``), a mask of another
    length or an empty subspace, FloatingPointError for a product that is not finite.

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
"""The mean of more probes than this is no longer skewed."""


def hutchinson(of: Operator, probes: int, together: int, seed: int) -> Estimate:
    """The mean of z^T A z over random signs z.

    If few eigenvalues carry the error, its distribution is skewed, and samples with a small mean also have a small
    deviation. The standard error is then at least what the products themselves imply (`implied_se`).
    """

    def signs(i: int) -> Tensor:
        return of.draw(seed, i, stream="probe:trace", signs=True)

    symmetry = Symmetry(of, seed)
    values: list[float] = []
    kept: list[tuple[Tensor, Tensor]] = []
    for z, product in symmetry.watch(of.products(signs, probes, together)):
        values.append(dot(z, product))
        if probes <= FEW:
            kept.append((z, product))
    mean, se = mean_and_se(values)
    implied = implied_se(kept) if 1 < probes <= FEW else 0.0
    reason = symmetry.reason
    products = probes + symmetry.further
    return Estimate(mean, max(se, implied), probes, products, reason, {"sampling_se": se, "implied_se": implied})


def implied_se(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The standard error of a mean of z^T A z if few eigenvalues carry it, from pairs (z, A z); 0 if many do.

    The variance of one term is 2 (tr A^2 - sum_i A_ii^2). tr A^2 is the mean of |A z|^2; pairs of probes give tr A^4,
    as the mean of ((A z)^T A z')^2, and sum_i A_ii^2. ``(tr A^2)^2 / tr A^4`` eigenvalues carry it.
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
    """tr(Q^T A Q) plus the mean of z^T (1 - Q Q^T) A (1 - Q Q^T) z, with Q from the range of A."""
    if probes < 3:
        raise ValueError(f"hutch++ needs at least 3 probes, one for each of its parts, got {probes}")
    rank = probes // 3
    if rank >= of.dimension:
        return exact(of, probes, together, seed)

    def sketch(i: int) -> Tensor:
        return of.draw(seed, i, stream="probe:sketch", signs=True)

    symmetry = Symmetry(of, seed)
    span = torch.stack([product.double() for _, product in symmetry.watch(of.products(sketch, rank, together))])
    q = torch.linalg.qr(span.T)[0].T

    def left(i: int) -> Tensor:
        z = of.draw(seed, i, stream="probe:trace", signs=True).double()
        return (z - (q @ z) @ q).to(of.like)

    caught = sum(dot(row, product) for row, product in of.products(lambda i: q[i].to(of.like), rank, together))
    rest = [dot(z, product) for z, product in symmetry.watch(of.products(left, probes - 2 * rank, together))]
    mean, se = mean_and_se(rest)
    diagnostics = {"caught": caught, "left": mean, "rank": rank}
    return Estimate(caught + mean, se, len(rest), probes, symmetry.reason, diagnostics)


def exact(of: Operator, probes: int, together: int, seed: int) -> Estimate:
    """The trace from all n unit vectors, without draws."""
    n, g = of.dimension, of.draw(seed, 0, stream="probe:symmetry").double()
    total, across, down = 0.0, torch.zeros_like(g), torch.zeros_like(g)
    for i, (_, column) in enumerate(of.products(of.unit, n, together)):
        total += float(column[i])
        across, down[i] = across + g[i] * column.double(), g @ column.double()  # A g and A^T g
    asymmetry = float((across - down).norm()) / max(float(across.norm()), torch.finfo(torch.float64).tiny)
    return Estimate(total, 0.0, 0, n, unsymmetric(asymmetry, of.like.dtype))


Method = Callable[[Operator, int, int, int], Estimate]

METHODS: dict[str, Method] = {"hutchinson": hutchinson, "hutch++": hutch_plus_plus, "exact": exact}
"""Trace estimators by name: ``f(operator, probes, together, seed) -> Estimate``."""


def dot(a: Tensor, b: Tensor) -> float:
    """``a^T b`` in float64."""
    return float(a.double() @ b.double())
