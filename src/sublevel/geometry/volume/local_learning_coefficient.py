"""The local learning coefficient lambda, the exponent of V(eps) ~ eps^lambda as eps -> 0, from Langevin chains.

It is n/2 at a regular minimum and less at a singular one (Watanabe 2009; Lau et al. 2308.12108).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as member
from math import log, nan
from typing import Any

from sublevel._types import Bool, Tensor
from sublevel.display import Shown, with_error
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.curvature.operators import subspace_dimension
from sublevel.geometry.estimate import join_reasons
from sublevel.geometry.volume.energies import CHAINS, COARSE, RESCALED, chain_cost, sampled_energy
from sublevel.geometry.volume.estimators import VolumeAtHeight, estimator, undefined
from sublevel.geometry.volume.langevin import ChainOptions
from sublevel.geometry.volume.laplace import laplace_approximation


@dataclass(frozen=True, repr=False)
class LearningCoefficient(Shown):
    """A local learning coefficient with its standard error over the chains and its diagnostics.

    ``se`` is at least half of the difference between the two kinds of start, and includes the bias of the step (see
    `sublevel.geometry.volume.energies.Energy`). ``ess`` is the effective sample size of the loss trace, ``r_hat`` its
    split R-hat over ``chains`` of ``draws``. ``reason`` says why the value is not reliable; it is empty if no check
    failed.
    """

    value: float
    se: float
    r_hat: float
    ess: float
    chains: int
    draws: int
    reason: str = ""
    diagnostics: Mapping[str, object] = member(default_factory=dict)

    def _facts(self) -> dict[str, object]:
        return {
            "": with_error(self.value, self.se),
            "R-hat": self.r_hat,
            "effective sample size": self.ess,
            "chains": self.chains,
            "caution:": self.reason,
        }


def learning_coefficient(
    stochastic: Stochastic,
    start: PointLike,
    *,
    n_beta: float,
    gamma: float,
    step_size: float | None = None,
    stability: float = 0.2,
    field: Field | None = None,
    mask: Bool[Tensor, "D"] | None = None,
    chains: int = 4,
    burn_in: int = 500,
    draws: int = 1000,
    every: int = 1,
    rescale: int = 0,
    seed: int = 0,
) -> LearningCoefficient:
    """``lambda = N beta (E[L] - L*)`` under exp(-N beta L - gamma/2 |w - w0|^2), with L* the loss at ``start`` = w0.

    On a quadratic from its minimum, with a_i = N beta h_i + gamma, it is 1/2 sum N beta h_i / a_i.

    - ``n_beta`` is N beta, with the number N of training examples of the posterior, also if the loss is measured on a
      part of them or in batches. Watanabe's beta = 1 / log N gives N / log N.
    - If every batch is the whole data set (`EveryExample`), the chains are corrected (MALA) and the step size does not
      affect the value. Batches allow no correction. On a quadratic uncorrected steps give
      1/2 sum N beta h_i / (a_i (1 - eta a_i / 4)), and the noise of batches adds to it; ``se`` includes an estimate of
      both (``diagnostics["step_bias"]``). L is that of ``field`` if given, else that of the batches (see
      `sublevel.geometry.volume.langevin.sample` for their bias).
    - If the whole loss is known (``field``, or `EveryExample`), every second chain starts at a draw of the Laplace
      approximation; `sublevel.geometry.volume.energies` lists the checks.
    - ``rescale`` is a number of steepest directions with shorter steps, as short as the steepest other curvature lambda
      requires. A longer ``step_size`` is then stable: ``diagnostics["stability"]`` = eta (N beta lambda + gamma), with
      lambda_1 if nothing is rescaled. Without a ``step_size`` it is chosen for ``stability``
      (`sublevel.geometry.volume.laplace.LaplaceApproximation.step_size`).

    Raises ValueError if the stability is 4 or more, since an uncorrected chain diverges, for a missing ``step_size``
    without a known curvature, and the errors of `sublevel.geometry.volume.langevin.sample`.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> disc = EveryExample(Quadratic(torch.ones(2, dtype=torch.float64)))
    >>> start, chains = torch.zeros(2, dtype=torch.float64), {"burn_in": 20, "draws": 300}
    >>> found = learning_coefficient(disc, start, n_beta=100, step_size=4e-3, gamma=1, **chains)
    >>> abs(found.value - 1.1) < 4 * found.se, found.reason
    (True, '')
    """
    known = stochastic.field if isinstance(stochastic, EveryExample) else field
    laplace = None
    if known is not None:
        laplace = laplace_approximation(known, start, mask, draws=chains // 2, rescale=rescale, seed=seed)
    if step_size is None:
        if laplace is None:
            raise ValueError("step_size is needed where only batches of the loss are known: their curvature is not")
        step_size = laplace.step_size(n_beta, gamma, stability)
    stability = nan if laplace is None else checked_stability(laplace.rest, step_size, n_beta, gamma)
    counts: dict[str, Any] = {"chains": chains, "burn_in": burn_in, "draws": draws, "every": every, "seed": seed}
    options = ChainOptions(step_size=step_size, n_beta=n_beta, gamma=gamma, **counts)
    found = sampled_energy(stochastic, start, laplace, options, mask=mask, field=field)
    coarse = stability > COARSE and not isinstance(stochastic, EveryExample)
    reason = join_reasons(
        {
            found.reason: True,
            f"negative: the chains find losses below the start's, {found.value:.3g}": found.value < 0,
            f"step size: the steepest variance is {stability / (4 - stability):.0%} too large": coarse,
        }
    )
    diagnostics = {
        "stability": stability,
        "acceptance": found.acceptance,
        "source": found.source,
        "n_beta": n_beta,
        "gamma": gamma,
        "step_size": step_size,
        "burn_in": burn_in,
        "rescale": 0 if laplace is None else len(laplace.values),
        "products": 0 if laplace is None else laplace.products,
        "starts_apart": found.apart,
        "missing": found.missing,
        "step_bias": found.step_bias,
        "quadratic": found.quadratic,
    }
    return LearningCoefficient(found.value, found.se, found.r_hat, found.ess, chains, draws, reason, diagnostics)


@estimator(
    "llc",
    forwards=learning_coefficient,
    options=CHAINS,
    derived=lambda options, n, examples: {"n_beta": examples / log(examples), "rescale": RESCALED},
    cost=lambda options, heights: chain_cost(options),
)
def llc(
    field: Field,
    theta: PointLike,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    stochastic: Stochastic | None = None,
    **options: Any,
) -> VolumeAtHeight:
    """`learning_coefficient` with its ``options`` as a volume estimator, although it is not a volume: ``log_volume`` is
    nan at every eps.

    ``diagnostics`` hold the coefficient, its standard error and its checks. Chains follow the gradients of
    ``stochastic`` if given, else those of the field; L is always the field's.
    """
    require_field(field, "llc")
    found = learning_coefficient(stochastic or EveryExample(field), theta, field=field, mask=mask, **options)
    kind = "a scaling exponent (V ~ eps^lambda as eps -> 0) and not a volume"
    reason = join_reasons({kind: True, found.reason: True})
    about = {
        **found.diagnostics,
        "measure": f"exp(-N beta L) under a Gaussian of precision {found.diagnostics['gamma']:g} around theta",
        "assumes": "the chains have mixed",
        "learning_coefficient": found.value,
        "se": found.se,
        "r_hat": found.r_hat,
        "ess": found.ess,
        "chains": found.chains,
        "draws": found.draws,
    }
    n = subspace_dimension(theta, mask)
    return lambda eps: undefined(n, eps, reason, **about)


def checked_stability(steepest: float, step_size: float, n_beta: float, gamma: float) -> float:
    """``eta (N beta h + gamma)`` for the steepest curvature h; raises ValueError if a chain would diverge."""
    found = step_size * (n_beta * steepest + gamma)
    if found >= 4:
        raise ValueError(
            f"step_size {step_size:g} is unstable: times the steepest curvature of N beta L + gamma/2 |w|^2 it is "
            f"{found:.3g}, and must be below 4"
        )
    return found
