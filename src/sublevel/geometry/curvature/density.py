"""Spectral densities and sums over the spectrum, by stochastic Lanczos quadrature.

From a random unit vector v, m Lanczos steps give the m-point Gauss rule of v's spectral measure: nodes are the Ritz
values, weights the squared first components of their eigenvectors (Golub and Welsch 1969). n times the mean of the rule
over v is an unbiased estimate of tr f(A), up to the error of the rule (Ubaru, Chen and Saad 2017; Ghorbani et al.
1901.10159; Papyan 1811.07062). `batched_lanczos` makes all runs in shared passes over the data.

If a few eigenvalues lie far from the bulk, they carry the whole sampling error, and the interval of a few probes covers
less than its level. So each probe is deflated by the eigenpairs that the others found (`deflations`): with known
eigenpairs (mu_l, u_l), l = 1..a, and c_l = v^T u_l,

    sum_l f(mu_l) + (n - a) (sum_i w_i f(x_i) - sum_l c_l^2 f(mu_l)) / (1 - sum_l c_l^2)

is equally unbiased, and exact along the u_l. It takes no further products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import hypot, isfinite, nan, pi, sqrt

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.display import Shown, with_error
from sublevel.errors import unknown
from sublevel.field import Field, PointLike, require_field
from sublevel.geometry.curvature.batched_lanczos import Deflation, Tridiagonal, batched_lanczos, deflations
from sublevel.geometry.curvature.operators import Operator, check_counts, curvature_operator, unsymmetric
from sublevel.geometry.estimate import SKEWED, Estimate, join_reasons, mean_and_se

METHODS = ("lanczos", "exact")

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Smoothed(Shown):
    """A spectral density on a ``grid`` [G] of eigenvalues: ``density`` [G], with integral 1, and its ``se`` [G]."""

    grid: np.ndarray
    density: np.ndarray
    se: np.ndarray
    width: float

    def _facts(self) -> dict[str, object]:
        return {
            "": f"density at {len(self.grid):,} places",
            "from": f"{self.grid[0]:.4g} to {self.grid[-1]:.4g}",
            "width": self.width,
        }


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity(Shown):
    """The spectrum of an operator on R^n as Gauss rules, one from each probe.

    ``nodes`` and ``weights`` hold an array of at most ``steps`` entries for every probe; weights sum to 1. The method
    ``exact`` gives one rule of all n eigenvalues. ``bound`` is the rounding of the products, in units of the
    eigenvalues: a node within ``bound`` of 0 has no sign. ``products`` counts operator products. ``reason`` is set if
    the operator is not symmetric.
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
        """``n sum_i w_i f(x_i)`` of every probe without deflation: independent estimates of tr f(A)."""
        return np.array([self.dimension * (w @ f(x)) for x, w in zip(self.nodes, self.weights, strict=True)])

    @cached_property
    def deflation(self) -> tuple[Deflation, ...]:
        """The eigenpairs that each probe is deflated by: those that the other probes found."""
        outliers = [run.outliers for run in self.runs if run.outliers is not None]
        if len(outliers) < max(len(self.nodes), 2):
            return tuple(Deflation(np.zeros(0), np.zeros(0)) for _ in self.nodes)
        return deflations(outliers)

    def deflated(self, f: Function) -> np.ndarray:
        """``per_probe`` with each probe deflated: exact along the eigenvectors of its deflation."""
        rest = self._rest(f)
        return np.array([f(k.values).sum() + r for k, r in zip(self.deflation, rest, strict=True)])

    def _rest(self, f: Function) -> np.ndarray:
        """Each probe's estimate of the sum of f over the eigenvalues outside its deflation."""
        rows = []
        for x, w, k in zip(self.nodes, self.weights, self.deflation, strict=True):
            left = max(1 - float(k.shares.sum()), np.finfo(float).tiny)
            rows.append((self.dimension - len(k.values)) * (w @ f(x) - k.shares @ f(k.values)) / left)
        return np.array(rows)

    def implied_se(self, f: Function) -> float:
        """The standard error that the spectrum itself implies, if few eigenvalues carry it; 0 if many do.

        A probe's rule has the variance 2 n / (n + 2) sum_i (f_i - mean f)^2 over the eigenvalues outside its deflation.
        If fewer than `SKEWED` of them carry these squares ((sum d^2)^3 / (sum |d|^3)^2, d = f_i - mean), the mean of a
        few probes is skewed: samples with a small mean also have a small deviation. This error does not depend on it.
        """
        n, rest = self.dimension - len(self.deflation[0].values), self._rest(lambda x: np.ones_like(x))
        mean = float(self._rest(f).mean() / max(rest.mean(), 1.0))
        square, cube = (max(float(self._rest(lambda x, p=p: np.abs(f(x) - mean) ** p).mean()), 0.0) for p in (2, 3))
        if not cube or square**3 / cube**2 >= SKEWED:
            return 0.0
        return sqrt(2 * n / (n + 2) * square / len(self.nodes))

    def integrate(self, f: Function) -> Estimate:
        """The sum of f over all n eigenvalues, with its standard error over the probes.

        ``f`` maps an array of eigenvalues to an array. Each probe is deflated (`deflated`). If few eigenvalues still
        carry the error, it is at least what the spectrum implies (`implied_se`). The error of the rule itself is not
        included: see `quadrature_error`.
        """
        if self.exact:
            return Estimate(float(self.per_probe(f)[0]), 0.0, 0, self.products, self.reason)
        value, se = mean_and_se(self.deflated(f).tolist())
        se = max(se, self.implied_se(f)) if len(self.nodes) > 1 else se
        return Estimate(value, se, len(self.nodes), self.products, self.reason)

    def quadrature_error(self, f: Function) -> float:
        """The sum of f with all steps minus the sum with half of them; 0 if every run is exhausted.

        Once the rule converges like m^-2 or faster, the remaining error is a third of it. Before that, while f bends on
        a finer scale than the spacing of the nodes, it is a warning and not a bound.
        """
        if self.exact or all(run.exhausted for run in self.runs):
            return 0.0
        return float(np.mean(self.per_probe(f) - self.halved().per_probe(f)))

    def radau_error(self, f: Function) -> float:
        """The sum of f by Gauss rules minus the sum by Gauss-Radau rules with a node at 0; 0 if every run is exhausted.

        For f(x) = log(x + delta) or x / (x + delta), and no negative eigenvalue, the two bracket the limit of many
        steps (Golub and Meurant 1994; Bai, Fahey and Golub 1996): the error of `integrate` lies between 0 and this
        difference.
        """
        if self.exact or all(run.exhausted for run in self.runs):
            return 0.0
        radau = np.array([self.dimension * (w @ f(x)) for x, w in self._radau_rules])
        return float(np.mean(self.per_probe(f) - radau))

    @cached_property
    def _radau_rules(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The rule of every probe with a node at 0; the same for every function."""
        return [run.rule() if run.exhausted else run.rule_with_a_node(0.0) for run in self.runs]

    def bracketed(self, f: Function, *, unit: str = "", error: float | None = None) -> Estimate:
        """`integrate` with the rules' error in its ``se``: ``error``, by default `radau_error`, as a uniform deviation.

        If it exceeds the standard error, ``reason`` names it in ``unit`` and ``se`` is that of the probes alone.
        ``diagnostics`` hold both errors.
        """
        found, error = self.integrate(f), self.radau_error(f) if error is None else error
        missed = abs(error) > max(found.se if isfinite(found.se) else 0.0, 1e-9 * abs(found.value))
        size = f"{abs(error):.3g} {unit}".strip()
        reason = f"quadrature not converged: its error with {self.steps} steps is up to {size}"
        return replace(
            found,
            se=found.se if missed else hypot(found.se, error / sqrt(3)),
            reason=join_reasons({self.reason: True, reason: missed}),
            diagnostics={"quadrature_error": error, "sampling_se": found.se},
        )

    def halved(self) -> SpectralDensity:
        """The same runs cut to half the steps; takes no products."""
        steps = max(self.steps // 2, 1)
        return replace(self, **_rules(self.runs, steps), steps=steps)

    def density(self, grid: np.ndarray, width: float) -> Smoothed:
        """The density smoothed by a Gaussian of standard deviation ``width``, in units of the eigenvalues.

        Raises ValueError unless the width is positive.
        """
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        rules = zip(self.nodes, self.weights, strict=True)
        rows = np.array([np.exp(-0.5 * ((grid[:, None] - x) / width) ** 2) @ w for x, w in rules])
        rows = rows / (width * sqrt(2 * pi))
        se = rows.std(axis=0, ddof=1) / sqrt(len(rows)) if len(rows) > 1 else np.full(len(grid), nan)
        return Smoothed(grid, rows.mean(axis=0), np.zeros(len(grid)) if self.exact else se, width)

    @property
    def negative_mass(self) -> Estimate:
        """The share of the n eigenvalues below -``bound``.

        A step is not smooth: eigenvalues within a node's distance of 0 are counted only roughly. ``reason`` is set if
        half the steps give another share, by more than two standard errors and 0.02.
        """

        def below(x: np.ndarray) -> np.ndarray:
            return (x < -self.bound).astype(float)

        count = self.integrate(below)
        change = abs(self.quadrature_error(below)) / self.dimension
        se = count.se / self.dimension
        rough = change > max(0.02, 2 * se if isfinite(se) else 0.0)
        reason = f"not converged: the share changes by {change:.2g} from half the steps to all" if rough else ""
        reasons = join_reasons({self.reason: True, reason: True})
        return replace(count, value=count.value / self.dimension, se=se, reason=reasons)

    @property
    def lowest(self) -> float:
        """The lowest node: an upper bound on the lowest eigenvalue."""
        return float(min(x[0] for x in self.nodes))

    @property
    def highest(self) -> float:
        """The highest node: a lower bound on the largest eigenvalue."""
        return float(max(x[-1] for x in self.nodes))

    def _facts(self) -> dict[str, object]:
        trace, below = self.integrate(lambda x: x), self.negative_mass
        return {
            "": f"{self.dimension:,} eigenvalues" + (", exact" if self.exact else ""),
            "from": f"{self.lowest:.4g} to {self.highest:.4g}",
            "trace": with_error(trace.value, trace.se),
            "negative share": with_error(below.value, below.se),
            "probes:": None if self.exact else len(self.nodes),
            "products:": self.products,
            "caution:": join_reasons({self.reason: True, below.reason: True}),
        }


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

    At most ``together`` runs advance at once; their bases take together * steps * n numbers. The method ``exact`` forms
    the matrix in n products. ``operator`` and ``scale`` choose the curvature (see `curvature_operator`).

    Raises ValueError for counts below 1, a mask of another length or an empty subspace, FloatingPointError for a
    product that is not finite.

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


def rounding(operator: Operator, largest: float) -> float:
    """Largest shift of an eigenvalue by rounding: 100 units in the last place of the largest |eigenvalue|."""
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
