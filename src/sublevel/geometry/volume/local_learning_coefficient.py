"""What Langevin chains tell about a basin: how its volume scales, and its partition function.

Neither is a volume at a height. The local learning coefficient lambda says that V(eps) ~ eps^lambda as eps -> 0 (n/2
for a regular minimum, less for a singular one: Watanabe 2009; Lau et al. 2308.12108). The local partition function is
the basin's share of a Gaussian prior, weighted by exp(-N (L - L*)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as member
from math import nan

from sublevel._types import Bool, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.curvature.operators import subspace_dimension
from sublevel.geometry.volume.energies import COARSE, sampled_energy
from sublevel.geometry.volume.estimators import VolumeAtHeight, because, estimator, undefined
from sublevel.geometry.volume.laplace import laplace_approximation


@dataclass(frozen=True)
class LearningCoefficient:
    """A local learning coefficient with its standard error over the chains, and what is needed to trust it.

    ``se`` is no less than half of the difference between the two kinds of start, and includes the step's bias (see
    `Energy`). ``ess`` is the effective sample size of the loss trace, ``r_hat`` its split R-hat over ``chains`` of
    ``draws``. ``reason`` says why the value is not to be trusted, and is empty otherwise.
    """

    value: float
    se: float
    r_hat: float
    ess: float
    chains: int
    draws: int
    reason: str = ""
    diagnostics: Mapping[str, object] = member(default_factory=dict)


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
    """``lambda = N beta (E[L] - L*)`` under exp(-N beta L - gamma/2 |w - w0|^2), L* the loss at ``start`` = w0.

    ``n_beta`` is N beta, N the number of training examples that the posterior is of, also where the loss is measured on
    a part of them or in batches, whose mean then stands for that of all; Watanabe's beta = 1 / log N gives N / log N.
    On a quadratic from its minimum, with a_i = N beta h_i + gamma, it is 1/2 sum N beta h_i / a_i.

    Where every batch is the whole set (`EveryExample`) chains are corrected (MALA) and the step size has no part in the
    value. Batches allow no correction: on a quadratic the step makes 1/2 sum N beta h_i / (a_i (1 - eta a_i / 4)) of
    it, their noise adds to that, and ``se`` includes an estimate of both (``diagnostics["step_bias"]``).
    L is the whole ``field`` where one is given and else the batches' (see `sample` for which has a bias).

    If the whole loss is known (``field``, or `EveryExample`), every second chain starts at a draw of the
    `LaplaceApproximation`; `sampled_energy` lists the checks. ``rescale`` is a number of steepest directions along
    which steps are shortened to what the steepest other curvature lambda asks for, so that a longer ``step_size`` is
    stable: ``diagnostics["stability"]`` = eta (N beta lambda + gamma), without rescaling that of lambda_1. Where no
    step size is given, it is `LaplaceApproximation.step_size` of ``stability``.

    Raises ValueError where that is 4 or more, as an uncorrected chain diverges, or where no step size is given and no
    curvature is known, and what `sample` raises.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> disc = EveryExample(Quadratic(torch.ones(2, dtype=torch.float64)))
    >>> start, chains = torch.zeros(2, dtype=torch.float64), {"burn_in": 20, "draws": 300}
    >>> found = learning_coefficient(disc, start, n_beta=100, step_size=4e-3, gamma=1, **chains)
    >>> abs(found.value - 1.1) < 4 * found.se, found.reason
    (True, '')
    """
    seen = stochastic.field if isinstance(stochastic, EveryExample) else field
    law = (
        None
        if seen is None
        else laplace_approximation(seen, start, mask, draws=chains // 2, rescale=rescale, seed=seed)
    )
    if step_size is None:
        if law is None:
            raise ValueError("step_size is needed where only batches of the loss are known: their curvature is not")
        step_size = law.step_size(n_beta, gamma, stability)
    stability = nan if law is None else checked_stability(law.rest, step_size, n_beta, gamma)
    found = sampled_energy(
        stochastic,
        start,
        law,
        step_size=step_size,
        n_beta=n_beta,
        gamma=gamma,
        chains=chains,
        burn_in=burn_in,
        draws=draws,
        seed=seed,
        mask=mask,
        field=field,
        every=every,
    )
    coarse = stability > COARSE and not isinstance(stochastic, EveryExample)
    reason = because(
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
        "rescale": 0 if law is None else len(law.values),
        "products": 0 if law is None else law.products,
        "starts_apart": found.apart,
        "missing": found.missing,
        "step_bias": found.step_bias,
        "quadratic": found.laplace,
    }
    return LearningCoefficient(found.value, found.se, found.r_hat, found.ess, chains, draws, reason, diagnostics)


@estimator("llc")
def llc(
    field: Field,
    theta: PointLike,
    *,
    n_beta: float,
    gamma: float,
    step_size: float | None = None,
    stability: float = 0.2,
    mask: Bool[Tensor, "D"] | None = None,
    stochastic: Stochastic | None = None,
    chains: int = 4,
    burn_in: int = 500,
    draws: int = 1000,
    every: int = 1,
    rescale: int = 0,
    seed: int = 0,
) -> VolumeAtHeight:
    """`learning_coefficient` in the form of a volume, which it is not: ``log_volume`` is nan, at every eps.

    The coefficient, its standard error and its checks stand in ``diagnostics``. Chains follow the gradients of
    ``stochastic`` where it is given, and of the field otherwise; L is always the field's.
    """
    require_field(field, "llc")
    found = learning_coefficient(
        stochastic or EveryExample(field),
        theta,
        n_beta=n_beta,
        gamma=gamma,
        step_size=step_size,
        stability=stability,
        field=field,
        mask=mask,
        chains=chains,
        burn_in=burn_in,
        draws=draws,
        every=every,
        rescale=rescale,
        seed=seed,
    )
    reason = because({"a scaling exponent (V ~ eps^lambda as eps -> 0) and not a volume": True, found.reason: True})
    about = {
        **found.diagnostics,
        "measure": f"exp(-N beta L) under a Gaussian of precision {gamma:g} around theta",
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
    """``eta (N beta h + gamma)`` for the steepest curvature h, or ValueError where a chain diverges."""
    found = step_size * (n_beta * steepest + gamma)
    if found >= 4:
        raise ValueError(
            f"step_size {step_size:g} is unstable: times the steepest curvature of N beta L + gamma/2 |w|^2 it is "
            f"{found:.3g}, and must be below 4"
        )
    return found
