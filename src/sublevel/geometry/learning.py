"""What Langevin chains tell about a basin: how its volume scales, and its partition function.

Neither is a volume at a height. The local learning coefficient lambda says that V(eps) ~ eps^lambda as eps -> 0 (n/2
for a regular minimum, less for a singular one: Watanabe 2009; Lau et al. 2308.12108). The local partition function is
the basin's share of a Gaussian prior, weighted by exp(-N (L - L*)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as member
from math import nan, sqrt

from sublevel._types import Bool, Tensor
from sublevel.field import At, EveryExample, Field, Stochastic, require_field
from sublevel.geometry.basin import AtHeight, because, estimator, undefined
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.operators import subspace_dimension
from sublevel.geometry.sampling import MIXED, Samples, effective_sample_size, sample, split_r_hat

ENOUGH = 100
"""The effective sample size below which a mean over chains is flagged."""

COARSE = 1.0
"""Step size times steepest curvature above which the step's bias is flagged: there the variance is 4/3 of its own."""


@dataclass(frozen=True)
class LearningCoefficient:
    """A local learning coefficient with its standard error over the chains, and what is needed to trust it.

    ``ess`` is the effective sample size of the loss trace, ``r_hat`` its split R-hat over ``chains`` of ``draws``.
    ``reason`` says why the value is not to be trusted, and is empty otherwise.
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
    start: At,
    *,
    n_beta: float,
    step_size: float,
    gamma: float,
    field: Field | None = None,
    mask: Bool[Tensor, "D"] | None = None,
    chains: int = 4,
    burn_in: int = 500,
    draws: int = 1000,
    every: int = 1,
    seed: int = 0,
) -> LearningCoefficient:
    """``lambda = N beta (E[L] - L*)`` under exp(-N beta L - gamma/2 |w - w0|^2), L* the loss at ``start`` = w0.

    ``n_beta`` is N beta, N the number of training examples that the posterior is of, also where the loss is measured on
    a part of them or in batches, whose mean then stands for that of all; Watanabe's beta = 1 / log N gives N / log N.
    On a quadratic from its minimum, with every
    example in every batch and a_i = N beta h_i + gamma, it is 1/2 sum N beta h_i / a_i, and with the step's bias
    1/2 sum N beta h_i / (a_i (1 - eta a_i / 4)). L is the whole ``field`` where one is given and else the batches' (see
    `sample` for which has a bias). Where the whole loss is known (``field``, or `EveryExample`) the step size is held
    against the steepest curvature: ``diagnostics["stability"]`` = eta (N beta lambda_1 + gamma).

    Raises ValueError where that is 4 or more, as the chain then diverges, and what `sample` raises.

    >>> import torch
    >>> from sublevel.field import Quadratic
    >>> disc = EveryExample(Quadratic(torch.ones(2, dtype=torch.float64)))
    >>> start, chains = torch.zeros(2, dtype=torch.float64), {"burn_in": 20, "draws": 300}
    >>> found = learning_coefficient(disc, start, n_beta=100, step_size=4e-3, gamma=1, **chains)
    >>> abs(found.value - 1.1) < 4 * found.se, found.reason
    (True, '')
    """
    whole = stochastic.field if field is None and isinstance(stochastic, EveryExample) else field
    stability = nan if whole is None else _stability(whole, start, mask, step_size, n_beta, gamma)
    found = sample(
        stochastic,
        start,
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
    trace = trace_of(found)
    value, se = n_beta * trace.mean, n_beta * trace.se
    reason = because(
        {
            trace.reason: True,
            f"negative: the chains find losses below the start's, {value:.3g}": value < 0,
            f"step size: the steepest variance is {stability / (4 - stability):.0%} too large": stability > COARSE,
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
    }
    return LearningCoefficient(value, se, trace.r_hat, trace.ess, chains, draws, reason, diagnostics)


@estimator("llc")
def llc(
    field: Field,
    theta: At,
    *,
    n_beta: float,
    step_size: float,
    gamma: float,
    mask: Bool[Tensor, "D"] | None = None,
    stochastic: Stochastic | None = None,
    chains: int = 4,
    burn_in: int = 500,
    draws: int = 1000,
    every: int = 1,
    seed: int = 0,
) -> AtHeight:
    """`learning_coefficient` in the form of a volume, which it is not: ``log_volume`` is nan, at every eps.

    The coefficient, its standard error and its checks stand in ``diagnostics``. Chains follow the gradients of
    ``stochastic`` where it is given, and of the field otherwise; L is always the field's.
    """
    require_field(field, "llc")
    found = learning_coefficient(
        stochastic or EveryExample(field),
        theta,
        n_beta=n_beta,
        step_size=step_size,
        gamma=gamma,
        field=field,
        mask=mask,
        chains=chains,
        burn_in=burn_in,
        draws=draws,
        every=every,
        seed=seed,
    )
    reason = because({"a scaling exponent (V ~ eps^lambda as eps -> 0) and not a volume": True, found.reason: True})
    about = {
        **found.diagnostics,
        "measure": f"exp(-N beta L) under a Gaussian of precision {gamma:g} around theta",
        "assumes": "the chains have mixed, and the step's bias is small",
        "learning_coefficient": found.value,
        "se": found.se,
        "r_hat": found.r_hat,
        "ess": found.ess,
        "chains": found.chains,
        "draws": found.draws,
    }
    n = subspace_dimension(theta, mask)
    return lambda eps: undefined(n, eps, reason, **about)


@dataclass(frozen=True)
class Trace:
    """The mean rise over all chains, with its error and checks."""

    mean: float
    se: float
    r_hat: float
    ess: float
    reason: str


def trace_of(samples: Samples) -> Trace:
    """The mean over all chains; its error counts effective draws."""
    rises = samples.rises
    r_hat, ess = split_r_hat(rises), effective_sample_size(rises)
    reason = because(
        {
            f"chains have not mixed: split R-hat {r_hat:.3f} exceeds {MIXED}": not r_hat <= MIXED,
            f"effective sample size {ess:.3g} is below {ENOUGH}": not ess >= ENOUGH,
        }
    )
    return Trace(float(rises.mean()), float(rises.std(ddof=1)) / sqrt(ess), r_hat, ess, reason)


def steepest_curvature(field: Field, theta: At, mask: Bool[Tensor, "D"] | None) -> float:
    """The largest eigenvalue of the Hessian."""
    return float(top_eigenvalues(field, theta, k=1, mask=mask, restarts=0, negative=0).values[0])


def _stability(
    field: Field, theta: At, mask: Bool[Tensor, "D"] | None, step_size: float, n_beta: float, gamma: float
) -> float:
    """``eta (N beta lambda_1 + gamma)``, or ValueError where a chain diverges."""
    found = step_size * (n_beta * max(steepest_curvature(field, theta, mask), 0.0) + gamma)
    if found >= 4:
        raise ValueError(
            f"step_size {step_size:g} is unstable: times the steepest curvature of N beta L + gamma/2 |w|^2 it is "
            f"{found:.3g}, and must be below 4"
        )
    return found
