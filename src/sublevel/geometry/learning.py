"""What Langevin chains tell about a basin: how its volume scales, and its partition function.

Neither is a volume at a height. The local learning coefficient lambda says that V(eps) ~ eps^lambda as eps -> 0 (n/2
for a regular minimum, less for a singular one: Watanabe 2009; Lau et al. 2308.12108). The local partition function is
the basin's share of a Gaussian prior, weighted by exp(-N (L - L*)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as member
from math import exp, log1p, nan, sqrt

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import At, EveryExample, Field, Stochastic, require_field
from sublevel.geometry.basin import AtHeight, Volume, because, estimator, positive, undefined
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.operators import check_counts, subspace_dimension
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

    ``n_beta`` is N beta; Watanabe's beta = 1 / log N gives N / log N. On a quadratic from its minimum, with every
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
    trace = _trace(found)
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


@estimator("thermodynamic")
def thermodynamic(
    field: Field,
    theta: At,
    *,
    gamma: float,
    examples: int | None = None,
    mask: Bool[Tensor, "D"] | None = None,
    stochastic: Stochastic | None = None,
    rungs: int = 8,
    stability: float = 0.1,
    chains: int = 4,
    burn_in: int = 200,
    draws: int = 500,
    every: int = 1,
    seed: int = 0,
) -> AtHeight:
    """The local partition function under a Gaussian prior, by thermodynamic integration over a ladder of beta:

    log Z = log E_prior[exp(-N (L - L*))] = -int_0^1 N E_b[L - L*] db,

    E_b under exp(-b N L - gamma/2 |w - theta|^2). On a quadratic it is -1/2 sum log(1 + N h_i / gamma). It is not the
    volume at a height and the same for every eps: ``log_volume`` is log Z, the log-volume under the normalised prior.
    ``effective_radius`` is exp(log Z / n) / sqrt(gamma), on a quadratic the geometric mean of the posterior's widths:
    that of `logdet` at the height 1 / 2N with the damping gamma / N.

    ``examples`` is N (by default the field's). The ladder is `ladder`'s. ``stability`` = eta (b N lambda_1 + gamma)
    sets each rung's step size: E_b is too large by at most a share of stability / (4 - stability), and the flattest
    direction takes 2 (b N lambda_1 + gamma) / (stability gamma) steps to forget. Chains follow ``stochastic``, or the
    field; L is always the field's.

    Raises ValueError for a gamma or counts that are not positive, a stability outside (0, 4), FloatingPointError where
    a loss is not finite.
    """
    require_field(field, "thermodynamic")
    positive(gamma=gamma)
    check_counts(rungs=rungs)
    if not 0 < stability < 4:
        raise ValueError(f"stability is step size times steepest curvature, between 0 and 4, got {stability}")
    count = field.evaluate(theta).examples if examples is None else examples
    steepest = max(_steepest(field, theta, mask), 0.0)
    betas, weights = ladder(rungs, count * steepest / gamma)
    traces = []
    for rung, beta in enumerate(betas):
        samples = sample(
            stochastic or EveryExample(field),
            theta,
            step_size=stability / (beta * count * steepest + gamma),
            n_beta=beta * count,
            gamma=gamma,
            chains=chains,
            burn_in=burn_in,
            draws=draws,
            seed=seed + rung * 1_000_003,
            mask=mask,
            field=field,
            every=every,
        )
        traces.append(_trace(samples))
    log_z = -sum(w * count * trace.mean for w, trace in zip(weights, traces, strict=True))
    se = sqrt(sum((w * count * trace.se) ** 2 for w, trace in zip(weights, traces, strict=True)))
    n = subspace_dimension(theta, mask)
    bad, worst = [trace for trace in traces if trace.reason], min(traces, key=lambda trace: trace.ess)
    missed = n * ladder_error(betas, weights, count * steepest / gamma)
    reason = because(
        {
            f"{len(bad)} of {rungs} rungs, the worst: {worst.reason}": bool(bad),
            f"{rungs} rungs miss up to {missed:.2g} nats on a quadratic": missed > max(se, 0.01 * abs(log_z)),
        }
    )
    about = {
        "measure": f"a Gaussian prior of precision {gamma:g} around theta, normalised",
        "assumes": "the chains have mixed, and the step's bias is small; no height eps enters",
        "examples": count,
        "gamma": gamma,
        "stability": stability,
        "betas": betas,
        "energies": [count * trace.mean for trace in traces],
        "energy_se": [count * trace.se for trace in traces],
        "r_hat": max(trace.r_hat for trace in traces),
        "ess": min(trace.ess for trace in traces),
        "ladder_error": missed,
    }
    radius = exp(log_z / n) / sqrt(gamma)
    return lambda eps: Volume(log_z, radius, n, eps, se, reason, about)


def ladder(rungs: int, steepest: float) -> tuple[list[float], list[float]]:
    """Values of beta in (0, 1) and weights, for the integral of an energy whose steepest N h / gamma is ``steepest``.

    A direction with kappa = N h / gamma has the energy kappa / 2 (1 + beta kappa): nearly all its integral,
    log(1 + kappa) / 2, lies near 0. In s = log(1 + beta steepest) the steepest direction's integrand is constant and
    the others' are smooth: Gauss-Legendre in s.

    >>> betas, weights = ladder(1, 100.0)
    >>> round(weights[0] * 100 / (2 * (1 + betas[0] * 100)), 9) == round(log1p(100.0) / 2, 9)
    True
    """
    scale = max(steepest, 1e-3)
    top = log1p(scale)
    x, w = np.polynomial.legendre.leggauss(rungs)
    s = (x + 1) / 2 * top
    return (np.expm1(s) / scale).tolist(), (w / 2 * top * np.exp(s) / scale).tolist()


def ladder_error(betas: list[float], weights: list[float], steepest: float) -> float:
    """The largest error of a ladder in nats for one direction of a quadratic, over all kappa up to the steepest."""
    kappa = np.logspace(-6, 0, 200)[:, None] * steepest
    found = (kappa / (2 * (1 + kappa * np.array(betas)))) @ np.array(weights)
    return float(np.abs(found - np.log1p(kappa[:, 0]) / 2).max())


@dataclass(frozen=True)
class _Trace:
    """The mean rise over all chains, with its error and checks."""

    mean: float
    se: float
    r_hat: float
    ess: float
    reason: str


def _trace(samples: Samples) -> _Trace:
    rises = samples.rises
    r_hat, ess = split_r_hat(rises), effective_sample_size(rises)
    reason = because(
        {
            f"chains have not mixed: split R-hat {r_hat:.3f} exceeds {MIXED}": not r_hat <= MIXED,
            f"effective sample size {ess:.3g} is below {ENOUGH}": not ess >= ENOUGH,
        }
    )
    return _Trace(float(rises.mean()), float(rises.std(ddof=1)) / sqrt(ess), r_hat, ess, reason)


def _steepest(field: Field, theta: At, mask: Bool[Tensor, "D"] | None) -> float:
    return float(top_eigenvalues(field, theta, k=1, mask=mask, restarts=0, negative=0).values[0])


def _stability(
    field: Field, theta: At, mask: Bool[Tensor, "D"] | None, step_size: float, n_beta: float, gamma: float
) -> float:
    """``eta (N beta lambda_1 + gamma)``, or ValueError where a chain diverges."""
    found = step_size * (n_beta * max(_steepest(field, theta, mask), 0.0) + gamma)
    if found >= 4:
        raise ValueError(
            f"step_size {step_size:g} is unstable: times the steepest curvature of N beta L + gamma/2 |w|^2 it is "
            f"{found:.3g}, and must be below 4"
        )
    return found
