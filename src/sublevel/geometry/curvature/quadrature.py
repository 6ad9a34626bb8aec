"""Spectral densities and sums over the spectrum, by stochastic Lanczos quadrature.

From a random unit vector v, m Lanczos steps give the m-point Gauss rule of v's spectral measure: nodes are the Ritz
values, weights the squared first components of their eigenvectors (Golub and Welsch 1969). n times its mean over v is
an unbiased estimate of tr f(A), up to the rule's error (Ubaru, Chen and Saad 2017; Ghorbani et al. 1901.10159; Papyan
1811.07062). The runs go in `batched_lanczos`, so that one pass over the data serves a product of all of them.

A few eigenvalues far from the bulk would carry the whole sampling error, and an interval from a few probes would cover
less than it says. So each probe is deflated by what the others have found (`batched_lanczos.known_to_each`): with known
eigenpairs (mu_l, u_l), l = 1..a, and c_l = v^T u_l,

    sum_l f(mu_l) + (n - a) (sum_i w_i f(x_i) - sum_l c_l^2 f(mu_l)) / (1 - sum_l c_l^2)

is as unbiased, and exact along the u_l. It takes no products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot, isfinite, nan, pi, sqrt

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import unknown
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.batched_lanczos import Known, Tridiagonal, batched_lanczos, known_to_each
from sublevel.geometry.curvature.operators import Operator, check_counts, curvature_operator, unsymmetric
from sublevel.geometry.estimate import SKEWED, Estimate, mean_and_se

METHODS = ("lanczos", "exact")

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A spectral density on a ``grid`` [G] of eigenvalues: ``density`` [G], of integral 1, and its ``se`` [G]."""

    grid: np.ndarray
    density: np.ndarray
    se: np.ndarray
    width: float


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """The spectrum of an operator on R^n as Gauss rules, one from each probe.

    ``nodes`` and ``weights`` hold an array of at most ``steps`` entries for every probe; weights sum to 1. For the
    method ``exact`` there is one, of all n eigenvalues. ``bound`` is the rounding of the products, in units of the
    eigenvalues: a node within it of 0 has no sign. ``products`` counts operator products. ``reason`` says that the
    operator is not symmetric, where it is not.
    """

    nodes: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    dimension: int
    steps: int
    products: int
    bound: float
    exact: bool = False
    runs: tuple[Tridiagonal, ...] = ()
    reason: str = ""

    def per_probe(self, f: Function) -> np.ndarray:
        """``n sum_i w_i f(x_i)`` of every probe as it was drawn: independent estimates of tr f(A)."""
        return np.array([self.dimension * (w @ f(x)) for x, w in zip(self.nodes, self.weights, strict=True)])

    @cached_property
    def known(self) -> tuple[Known, ...]:
        """The eigenpairs that each probe is deflated by: those that the other probes have found."""
        outliers = [run.outliers for run in self.runs if run.outliers is not None]
        if len(outliers) < max(len(self.nodes), 2):
            return tuple(Known(np.zeros(0), np.zeros(0)) for _ in self.nodes)
        return known_to_each(outliers)

    def deflated(self, f: Function) -> np.ndarray:
        """``per_probe``, each probe deflated: exact along what is known to it."""
        rest = self._rest(f)
        return np.array([f(k.values).sum() + r for k, r in zip(self.known, rest, strict=True)])

    def _rest(self, f: Function) -> np.ndarray:
        """The sum of f over the eigenvalues that are not known, by every probe."""
        rows = []
        for x, w, k in zip(self.nodes, self.weights, self.known, strict=True):
            left = max(1 - float(k.shares.sum()), np.finfo(float).tiny)
            rows.append((self.dimension - len(k.values)) * (w @ f(x) - k.shares @ f(k.values)) / left)
        return np.array(rows)

    def implied_se(self, f: Function) -> float:
        """The standard error that the spectrum itself implies, where few eigenvalues carry it; 0 where many do.

        A probe's rule has the variance 2 n / (n + 2) sum_i (f_i - mean f)^2 over the eigenvalues that are not known.
        Where these squares are carried by fewer than `SKEWED` of them ((sum d^2)^3 / (sum |d|^3)^2, d = f_i - mean), a
        mean of a few probes is skewed, and is small where its sample deviation is: the spectrum knows better.
        """
        n, rest = self.dimension - len(self.known[0].values), self._rest(lambda x: np.ones_like(x))
        mean = float(self._rest(f).mean() / max(rest.mean(), 1.0))
        square, cube = (max(float(self._rest(lambda x, p=p: np.abs(f(x) - mean) ** p).mean()), 0.0) for p in (2, 3))
        if not cube or square**3 / cube**2 >= SKEWED:
            return 0.0
        return sqrt(2 * n / (n + 2) * square / len(self.nodes))

    def integrate(self, f: Function) -> Estimate:
        """The sum of f over all n eigenvalues, with its standard error over the probes.

        ``f`` maps an array of eigenvalues to an array. Each probe is deflated by what the others know (`deflated`), and
        where few eigenvalues still carry the error, it is no smaller than the spectrum implies (`implied_se`). It does
        not hold what the rule itself misses: see `quadrature_error`.
        """
        if self.exact:
            return Estimate(float(self.per_probe(f)[0]), 0.0, 0, self.products, self.reason)
        value, se = mean_and_se(self.deflated(f).tolist())
        se = max(se, self.implied_se(f)) if len(self.nodes) > 1 else se
        return Estimate(value, se, len(self.nodes), self.products, self.reason)

    def quadrature_error(self, f: Function) -> float:
        """The sum of f with all steps less that with half of them; 0 where every run is exhausted.

        Once the rule converges like m^-2 or faster, a third of it is left to come. Before it does, where f bends more
        sharply than the nodes lie, it is a sign and no bound.
        """
        if self.exact or all(run.exhausted for run in self.runs):
            return 0.0
        return float(np.mean(self.per_probe(f) - self.halved().per_probe(f)))

    def radau_error(self, f: Function) -> float:
        """The sum of f by Gauss rules less that by Gauss-Radau rules with a node at 0; 0 where every run is exhausted.

        For f(x) = log(x + delta) and no negative eigenvalue the two bracket what these probes would give with all
        steps (Golub and Meurant 1994; Bai, Fahey and Golub 1996): the error of `integrate` lies between 0 and this.
        """
        if self.exact or all(run.exhausted for run in self.runs):
            return 0.0
        rules = (run.rule() if run.exhausted else run.rule_with_a_node(0.0) for run in self.runs)
        return float(np.mean(self.per_probe(f) - np.array([self.dimension * (w @ f(x)) for x, w in rules])))

    def halved(self) -> SpectralDensity:
        """The same runs, cut to half the steps: no further products."""
        steps = max(self.steps // 2, 1)
        return replace(self, **_rules(self.runs, steps), steps=steps)

    def density(self, grid: np.ndarray, width: float) -> Smoothed:
        """The density smoothed by a Gaussian of standard deviation ``width``, in units of the eigenvalues.

        Raises ValueError unless the width is positive.
        """
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        rows = np.array([self._smooth(x, w, grid, width) for x, w in zip(self.nodes, self.weights, strict=True)])
        se = rows.std(axis=0, ddof=1) / sqrt(len(rows)) if len(rows) > 1 else np.full(len(grid), nan)
        return Smoothed(grid, rows.mean(axis=0), np.zeros(len(grid)) if self.exact else se, width)

    def _smooth(self, x: np.ndarray, w: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
        return np.exp(-0.5 * ((grid[:, None] - x) / width) ** 2) @ w / (width * sqrt(2 * pi))

    @property
    def negative_mass(self) -> Estimate:
        """The share of the n eigenvalues below -``bound``.

        A step is no smooth function: what lies within a node's distance of 0 is counted only roughly, on either side.
        ``reason`` says so where half the steps give another share, by more than two standard errors and 0.02.
        """

        def below(x: np.ndarray) -> np.ndarray:
            return (x < -self.bound).astype(float)

        count = self.integrate(below)
        change = abs(self.quadrature_error(below)) / self.dimension
        se = count.se / self.dimension
        rough = change > max(0.02, 2 * se if isfinite(se) else 0.0)
        reason = f"not converged: the share changes by {change:.2g} from half the steps to all" if rough else ""
        reasons = "; ".join(filter(None, (self.reason, reason)))
        return replace(count, value=count.value / self.dimension, se=se, reason=reasons)

    @property
    def lowest(self) -> float:
        """The lowest node: an upper bound on the lowest eigenvalue."""
        return float(min(x[0] for x in self.nodes))

    @property
    def highest(self) -> float:
        """The highest node: a lower bound on the largest eigenvalue."""
        return float(max(x[-1] for x in self.nodes))


def spectral_density(
    field: Field,
    theta: PointLike,
    *,
    probes: int = 10,
    steps: int = 100,
    mask: Bool[Tensor, "D"] | None = None,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    method: str = "lanczos",
    together: int = 8,
    seed: int = 0,
) -> SpectralDensity:
    """The density of the spectrum at ``theta``, from ``probes`` Lanczos runs of at most ``steps`` products.

    At most ``together`` runs advance at once; their bases take together * steps * n numbers. ``method`` ``exact`` forms
    the matrix instead, in n products. ``operator`` and ``scale`` choose the curvature (see `curvature_operator`).

    Raises ValueError for counts below 1, a mask of another length or an empty subspace, FloatingPointError where a
    product is not finite.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([4.0, 4.0, 1.0, -2.0], dtype=torch.float64))
    >>> found = spectral_density(field, torch.zeros(4, dtype=torch.float64), method="exact")
    >>> round(found.integrate(np.abs).value, 6), found.negative_mass.value
    (11.0, 0.25)
    """
    require_field(field, "spectral_density")
    if method not in METHODS:
        raise unknown("method of a spectral density", method, METHODS)
    check_counts(probes=probes, steps=steps, together=together)
    of = curvature_operator(field, theta, mask, operator=operator, scale=scale)
    if method == "exact":
        return _exact(of, together)
    runs: list[Tridiagonal] = []
    for start in range(0, probes, together):
        block = [of.draw(seed, i, stream="probe:quadrature") for i in range(start, min(start + together, probes))]
        runs += batched_lanczos(of, torch.stack(block), steps=steps, outliers=True)
    rules = _rules(tuple(runs), None)
    return SpectralDensity(
        **rules,
        dimension=of.dimension,
        steps=steps,
        products=sum(len(run.diagonal) for run in runs),
        bound=rounding(of, max(float(np.abs(x).max()) for x in rules["nodes"])),
        reason=unsymmetric(max(run.asymmetry for run in runs), of.like.dtype),
    )


def log_determinant(
    field: Field,
    theta: PointLike,
    *,
    damping: float,
    probes: int = 10,
    steps: int = 100,
    mask: Bool[Tensor, "D"] | None = None,
    operator: str = "hessian",
    scale: Float[Tensor, "D"] | None = None,
    method: str = "lanczos",
    together: int = 8,
    seed: int = 0,
) -> Estimate:
    """``sum_i log(max(lambda_i, 0) + damping)`` over all n eigenvalues, in nats, by stochastic Lanczos quadrature.

    ``damping`` decides the answer and is always stated: as a prior precision over N it makes this the Laplace
    evidence's determinant. Negative eigenvalues are clipped to 0, and ``diagnostics["clipped_mass"]`` is their share of
    n. ``diagnostics["quadrature_error"]`` is how much the rules may have missed of what their probes would give, as
    Gauss's rule lies above it and Gauss-Radau's with a node at 0 below (see `SpectralDensity.radau_error`; with
    negative eigenvalues it is a sign and no bound); ``reason`` is set where it exceeds the standard error. With
    ``damping`` 0 the sum is defined only where every Ritz value is positive; it is nan otherwise.

    Raises ValueError for a damping that is negative or not finite, and what `spectral_density` raises.

    >>> from sublevel.field import Quadratic
    >>> field = Quadratic(torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64))
    >>> found = log_determinant(field, torch.zeros(3, dtype=torch.float64), damping=1.0, method="exact")
    >>> round(found.value / float(np.log(2.0)), 6)
    3.0
    """
    check_damping(damping)
    require_field(field, "log_determinant")
    spectrum = spectral_density(
        field,
        theta,
        probes=probes,
        steps=steps,
        mask=mask,
        operator=operator,
        scale=scale,
        method=method,
        together=together,
        seed=seed,
    )
    return log_determinant_of(spectrum, damping)


def check_damping(damping: float) -> None:
    """Refuse a damping that is negative or not finite, by ValueError."""
    if not (isfinite(damping) and damping >= 0):
        raise ValueError(f"damping must be finite and not negative, got {damping}")


def log_determinant_of(spectrum: SpectralDensity, damping: float) -> Estimate:
    """The damped log-determinant of a spectrum that is at hand (see `log_determinant`): several dampings, one price."""
    clipped = spectrum.negative_mass
    diagnostics: dict[str, object] = {
        "damping": damping,
        "dimension": spectrum.dimension,
        "steps": spectrum.steps,
        "lowest": spectrum.lowest,
        "highest": spectrum.highest,
        "clipped_mass": clipped.value,
        "clipped_mass_se": clipped.se,
    }
    if not damping and spectrum.lowest <= spectrum.bound:
        reason = f"the lowest Ritz value is {spectrum.lowest:.3g}: without damping the determinant has no logarithm"
        reason = "; ".join(filter(None, (spectrum.reason, reason)))
        return Estimate(nan, nan, clipped.draws, spectrum.products, reason, diagnostics)

    def damped_log(x: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(x, 0) + damping)

    found = spectrum.integrate(damped_log)
    error = spectrum.radau_error(damped_log) if damping else spectrum.quadrature_error(damped_log)
    missed = abs(error) > max(found.se if isfinite(found.se) else 0.0, 1e-9 * abs(found.value))
    se = found.se if missed else hypot(found.se, error / sqrt(3))
    reason = f"quadrature not converged: {spectrum.steps} steps leave {abs(error):.3g} nats open" if missed else ""
    reasons = "; ".join(filter(None, (spectrum.reason, reason)))
    diagnostics |= {"quadrature_error": error, "sampling_se": found.se}
    return replace(found, se=se, reason=reasons, diagnostics=diagnostics)


def rounding(operator: Operator, largest: float) -> float:
    """How far rounding may move an eigenvalue: 100 units of the last place of the largest |eigenvalue|."""
    return 100 * torch.finfo(operator.like.dtype).eps * largest


def _exact(operator: Operator, together: int) -> SpectralDensity:
    matrix = operator.raw_matrix(together)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    n, largest = len(values), float(np.abs(values).max())
    size = float(np.linalg.norm(matrix))
    reason = unsymmetric(float(np.linalg.norm(matrix - matrix.T)) / size if size else 0.0, operator.like.dtype)
    bound = rounding(operator, largest)
    return SpectralDensity((values,), (np.full(n, 1 / n),), n, n, n, bound, exact=True, reason=reason)


def _rules(runs: tuple[Tridiagonal, ...], steps: int | None) -> dict:
    nodes, weights = zip(*(run.rule(steps) for run in runs), strict=True)
    return {"nodes": nodes, "weights": weights, "runs": runs}
