"""The Laplace approximation of a local, tempered posterior, from Hessian products at its centre.

The density exp(-N beta L - gamma/2 |w - w0|^2) has the approximation N(0, (N beta H + gamma)^-1) with the Hessian H at
w0 without its negative part. Lanczos from standard normal vectors gives draws of it, and Gauss rules of the spectrum.
The rules predict what chains from w0 still lack after a burn-in, and the variance between chains of a given length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import Field, PointLike
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.curvature.lanczos import Ritz, lanczos
from sublevel.geometry.curvature.operators import hessian
from sublevel.geometry.volume.langevin import Scaling

STEPS = 50
"""Products of the Lanczos run of each draw."""

REST = 20
"""Products of the search for the steepest direction that is not rescaled."""

SPREAD = 1.2
"""Allowed spread of log alpha; 55% of such steps are accepted."""


@dataclass(frozen=True, eq=False)
class LaplaceApproximation:
    """Curvature at the centre: the largest eigenvalue ``steepest``, and Lanczos ``runs`` from normal vectors.

    The vectors have the norms ``lengths``. ``vectors`` [k, n] and ``values`` [k] are the steep eigenpairs that
    `scaling` equalises, ``rest`` is the steepest other curvature (``steepest`` if there are none). ``products`` counts
    Hessian products.
    """

    steepest: float
    vectors: Float[Tensor, "k n"]
    values: Float[Tensor, "k"]
    rest: float
    runs: list[Ritz]
    lengths: list[float]
    products: int

    @property
    def dimension(self) -> int:
        """The dimension n of the subspace."""
        return self.vectors.shape[1]

    def scaling(self, n_beta: float, gamma: float) -> Scaling | None:
        """Shortens steps along the known steep directions to the length that the steepest other direction needs."""
        if not len(self.values):
            return None
        precisions = n_beta * self.values.clamp_min(0) + gamma
        factors = ((n_beta * self.rest + gamma) / precisions).clamp_max(1)
        return Scaling(self.vectors, factors.to(self.vectors))

    def step_size(self, n_beta: float, gamma: float, stability: float) -> float:
        """``stability`` / (N beta rest + gamma), or less, such that about half of the corrected steps are accepted.

        On a quadratic the spread of log alpha is the root of sum (eta a)^3 / 16, which is large in many dimensions.
        """
        values, weights = self.rule()
        largest = n_beta * self.rest + gamma
        a = np.minimum(n_beta * values + gamma, largest)
        return min(stability / largest, float(16 * SPREAD**2 / (weights @ a**3)) ** (1 / 3))

    def draw(self, i: int, n_beta: float, gamma: float) -> Float[Tensor, "n"]:
        """Draw ``i`` of N(0, (N beta H + gamma)^-1), up to the error of Lanczos; 0 along unconfined directions."""
        run = self.runs[i]
        precisions = n_beta * self._clipped(run.values) + gamma
        known = precisions > 1e-9 * precisions.max()
        widths = np.divide(1.0, np.sqrt(precisions), out=np.zeros_like(precisions), where=known)
        coefficients = self.lengths[i] * run.s @ (widths * run.s[0])
        return torch.from_numpy(coefficients).to(run.basis) @ run.basis

    def starts(self, chains: int, n_beta: float, gamma: float) -> Float[Tensor, "chains n"]:
        """Starts of chains: the centre for even chains, draws of the approximation for odd ones."""
        at = self.vectors.new_zeros(chains, self.dimension)
        for i in range(chains // 2):
            at[2 * i + 1] = self.draw(i, n_beta, gamma)
        return at

    def outlook(
        self, n_beta: float, gamma: float, *, rate: float, burn_in: int, steps: int, draws: int
    ) -> tuple[float, float, float]:
        """Predictions for N beta E[L] on a quadratic: its value, what chains from the centre lack, variance of a mean.

        In a direction with a = N beta h + gamma the energy has the mean c = N beta h / 2a and the variance 2 c^2. Its
        autocorrelation is exp(-r t) with r = ``rate`` min(a, N beta rest + gamma) per step. So a mean over ``steps``
        steps from the centre after ``burn_in`` lacks c exp(-r burn_in) (1 - exp(-r steps)) / (r steps), and the mean
        over a stationary chain has the variance 4 c^2 (1 - (1 - exp(-r steps)) / (r steps)) / (r steps).
        """
        values, weights = self.rule()
        a = np.maximum(n_beta * values + gamma, 1e-300)
        c = n_beta * values / (2 * a)
        r = rate * np.minimum(a, n_beta * self.rest + gamma)
        x = np.maximum(r * steps, 1e-9)
        lag = -np.expm1(-x) / x
        missing = c * np.exp(-r * burn_in) * lag
        apart = 2 * c**2 * np.maximum(np.where(x < 1e-4, 1 - x / 3, 2 * (1 - lag) / x), 1 / draws)
        return float(weights @ c), float(weights @ missing), float(weights @ apart)

    def flat(self, n_beta: float, gamma: float) -> float:
        """The number of directions that gamma confines more than the curvature does."""
        values, weights = self.rule()
        return float(weights @ (n_beta * values <= gamma))

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights of a Gauss rule for sums over all eigenvalues, negative ones as 0."""
        values = np.concatenate([self._clipped(run.values) for run in self.runs])
        return values, np.concatenate([run.weights for run in self.runs]) * self.dimension / len(self.runs)

    def _clipped(self, values: np.ndarray) -> np.ndarray:
        """Ritz values, with negative ones and rounding as 0."""
        floor = 10 * torch.finfo(self.vectors.dtype).eps * self.steepest
        return np.where(values > floor, values, 0.0)


def laplace_approximation(
    field: Field,
    start: PointLike,
    mask: Bool[Tensor, "D"] | None = None,
    *,
    draws: int,
    rescale: int = 0,
    seed: int = 0,
) -> LaplaceApproximation:
    """The Laplace approximation of a field at a point, with ``draws`` draws (at least one run is made, for the rules).

    ``rescale`` is the number of steepest directions for `LaplaceApproximation.scaling`. It omits pairs with a large
    residual and searches again for the steepest other direction, so that a missed copy lies among the others.
    """
    of = hessian(field, start, mask)
    n = of.dimension
    k = min(rescale, n - 1)
    found = top_eigenvalues(field, start, k=max(k, 1), mask=mask, restarts=0, negative=0, seed=seed)
    steepest, products = max(float(found.values[0]), 0.0), found.products
    good = (found.residuals <= 1e-3 * steepest) & (found.values > 0)
    good[k:] = False
    vectors, values, rest = of.restrict(found.vectors)[good], found.values[good], steepest
    if len(values):
        run = lanczos(of, of.draw(seed, 0, stream="probe:rest"), steps=REST, against=vectors)
        rest, products = max(float(run.values[-1] + run.residuals[-1]), 0.0), products + run.products
    starts = [of.draw(seed, i, stream="probe:local") for i in range(max(draws, 1))]
    runs = [lanczos(of, one, steps=STEPS) for one in starts]
    products += sum(run.products for run in runs)
    return LaplaceApproximation(steepest, vectors, values, rest, runs, [float(one.norm()) for one in starts], products)
