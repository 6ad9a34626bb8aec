"""The local partition function, by thermodynamic integration over a ladder of temperatures (Gelman and Meng 1998)."""

from __future__ import annotations

from math import exp, log1p, sqrt
from typing import Any

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.curvature.operators import check_counts, subspace_dimension
from sublevel.geometry.estimate import join_reasons
from sublevel.geometry.volume.energies import CHAINS, RESCALED, chain_cost, sampled_energy
from sublevel.geometry.volume.estimators import Volume, VolumeAtHeight, check_positive, estimator
from sublevel.geometry.volume.langevin import ChainOptions
from sublevel.geometry.volume.laplace import laplace_approximation


@estimator(
    "thermodynamic",
    options=CHAINS,
    derived=lambda options, n, examples: {"examples": examples, "rescale": RESCALED},
    cost=lambda options, heights: chain_cost(options, rungs=8),
)
def thermodynamic(
    field: Field,
    theta: PointLike,
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
    rescale: int = 0,
    seed: int = 0,
) -> VolumeAtHeight:
    """The local partition function under a Gaussian prior, by thermodynamic integration over a ladder of beta:

    log Z = log E_prior[exp(-N (L - L*))] = -int_0^1 N E_b[L - L*] db,

    with E_b under exp(-b N L - gamma/2 |w - theta|^2). On a quadratic it is -1/2 sum log(1 + N h_i / gamma). It is the
    same for every eps, since it is not the volume at a height: ``log_volume`` is log Z, the log-volume under the
    normalised prior. ``effective_radius`` is exp(log Z / n) / sqrt(gamma), a width and not the radius of a set at a
    height. On a quadratic it is the geometric mean of the posterior's standard deviations, which is the radius of
    `logdet` at the height 1 / 2N with the damping gamma / N (``diagnostics["radius"]``).

    - ``examples`` is N, the number of training examples of the posterior. The default is the field's number; give it if
      the field uses only a part of them.
    - ``stability`` = eta (b N lambda_1 + gamma) sets the step size of each rung (less in many dimensions:
      `sublevel.geometry.volume.laplace.LaplaceApproximation.step_size`). The flattest direction takes
      2 (b N lambda_1 + gamma) / (stability gamma) steps to decorrelate. With ``rescale`` steepest directions rescaled,
      the steepest other curvature replaces lambda_1 in both.
    - Chains follow ``stochastic``, or the field; L is always the field's. Chains of the field, or of any
    `EveryExample`,
      are corrected (MALA), so the step size does not affect the value. Chains of batches are not; ``se`` includes an
      estimate of the bias of steps and batches. `sublevel.geometry.volume.energies` describes the starts and checks.
    - ``se`` includes the error of the ladder on a quadratic of this spectrum (``diagnostics["ladder_error"]``).

    Raises ValueError for a gamma or counts that are not positive, or a stability outside (0, 4), FloatingPointError for
    a loss that is not finite.
    """
    require_field(field, "thermodynamic")
    check_positive(gamma=gamma)
    check_counts(rungs=rungs)
    if not 0 < stability < 4:
        raise ValueError(f"stability is step size times steepest curvature, between 0 and 4, got {stability}")
    count = field.evaluate(theta).examples if examples is None else examples
    check_counts(chains=chains)
    known = stochastic.field if isinstance(stochastic, EveryExample) else field
    laplace = laplace_approximation(known, theta, mask, draws=chains // 2, rescale=rescale, seed=seed)
    betas, weights = ladder(rungs, count * laplace.steepest / gamma)
    found, chain = [], stochastic or EveryExample(field)
    for rung, beta in enumerate(betas):
        step_size = laplace.step_size(beta * count, gamma, stability)
        counts: dict[str, Any] = {"chains": chains, "burn_in": burn_in, "draws": draws, "every": every}
        density = {"n_beta": beta * count, "gamma": gamma, "seed": seed + rung * 1_000_003}
        options = ChainOptions(step_size=step_size, **density, **counts)
        found.append(sampled_energy(chain, theta, laplace, options, mask=mask, field=field))
    shares = [weight / beta for weight, beta in zip(weights, betas, strict=True)]
    log_z = -sum(share * rung.value for share, rung in zip(shares, found, strict=True))
    step_bias = sum(share * rung.step_bias for share, rung in zip(shares, found, strict=True))
    noise = sum(share**2 * (rung.se**2 - rung.step_bias**2) for share, rung in zip(shares, found, strict=True))
    kappa, directions = laplace.rule()
    missed = float(directions @ np.abs(ladder_errors(betas, weights, count * kappa / gamma)))
    se = sqrt(noise + step_bias**2 + missed**2)
    n = subspace_dimension(theta, mask)
    bad = [rung for rung in found if rung.reason]
    worst = min(bad, key=lambda rung: rung.ess).reason if bad else ""
    reason = join_reasons(
        {
            f"{len(bad)} of {rungs} rungs, the worst: {worst}": bool(bad),
            f"{rungs} rungs have an error of up to {missed:.2g} nats on a quadratic": missed > 0.01 * abs(log_z),
        }
    )
    about = {
        "measure": f"a Gaussian prior of precision {gamma:g} around theta, normalised",
        "assumes": "the chains have mixed; no height eps enters",
        "radius": "a width: on a quadratic the geometric mean of the posterior's standard deviations",
        "examples": count,
        "gamma": gamma,
        "stability": stability,
        "betas": betas,
        "energies": [rung.value / beta for rung, beta in zip(found, betas, strict=True)],
        "energy_se": [rung.se / beta for rung, beta in zip(found, betas, strict=True)],
        "r_hat": max(rung.r_hat for rung in found),
        "ess": min(rung.ess for rung in found),
        "acceptance": min(rung.acceptance for rung in found),
        "step_bias": step_bias,
        "rescale": len(laplace.values),
        "products": laplace.products,
        "ladder_error": missed,
    }
    radius = exp(log_z / n) / sqrt(gamma)
    return lambda eps: Volume(log_z, radius, n, eps, se, reason, about)


def ladder(rungs: int, steepest: float) -> tuple[list[float], list[float]]:
    """Values of beta in (0, 1) and weights, for the integral of an energy with largest N h / gamma ``steepest``.

    A direction with kappa = N h / gamma has the energy kappa / 2 (1 + beta kappa). Nearly all of its integral,
    log(1 + kappa) / 2, lies near 0. In s = log(1 + beta steepest) the integrand of the steepest direction is constant
    and the others are smooth. The ladder is Gauss-Legendre in s.

    >>> betas, weights = ladder(1, 100.0)
    >>> round(weights[0] * 100 / (2 * (1 + betas[0] * 100)), 9) == round(log1p(100.0) / 2, 9)
    True
    """
    scale = max(steepest, 1e-3)
    top = log1p(scale)
    x, w = np.polynomial.legendre.leggauss(rungs)
    s = (x + 1) / 2 * top
    return (np.expm1(s) / scale).tolist(), (w / 2 * top * np.exp(s) / scale).tolist()


def ladder_errors(betas: list[float], weights: list[float], kappa: np.ndarray) -> np.ndarray:
    """The errors of a ladder in nats, one for each direction kappa = N h / gamma of a quadratic."""
    found = (kappa[:, None] / (2 * (1 + kappa[:, None] * np.array(betas)))) @ np.array(weights)
    return found - np.log1p(kappa) / 2
