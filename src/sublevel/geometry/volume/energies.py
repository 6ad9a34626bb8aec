"""N beta E[L - L*] under a tempered posterior, from chains: its value, its error, and why not to trust it.

An R-hat of chains with one start does not see a slow mode: all chains lack it alike. So half of them start at the
minimum and half at draws of the local law, which are stationary on a quadratic. What the two halves say differs by what
the first have not reached. And curvature says beforehand what chains from the minimum would miss, and how far apart
chains of this length lie, without the noise of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic
from sublevel.geometry.volume.estimators import because
from sublevel.geometry.volume.langevin import ChainTraces, sample
from sublevel.geometry.volume.laplace import LaplaceApproximation
from sublevel.geometry.volume.mixing import effective_sample_size, split_r_hat

MIXED = 1.05
"""The split R-hat above which chains are not taken to have forgotten where they began."""

ENOUGH = 100
"""The effective sample size below which a mean over chains is flagged."""

COARSE = 1.0
"""Step size times steepest curvature above which an uncorrected step is flagged: there the variance is 4/3 of its own.
"""

APART = 3.0
"""Standard errors between the two kinds of start above which they disagree."""

STUCK = 0.1
"""The share of steps accepted below which the correction holds the chains where they are."""

FORGOTTEN = 0.05
"""The share of what a chain misses at its start that may be left after the burn-in where nothing else is known."""


@dataclass(frozen=True)
class Energy:
    """``value`` = N beta (E[L] - L*), and what is needed to trust it.

    ``se`` is the largest of the error by effective draws, that of a quadratic with this curvature, and half of the
    difference between the two kinds of start, with the bias of the step and of the burn-in added in squares.
    ``apart`` is that difference (nan for a single chain), ``missing`` what a quadratic says that the chains from the
    minimum lack, ``step_bias`` what an uncorrected step adds (0 with the correction), ``laplace`` the value that a
    quadratic would have. ``reason`` is empty where nothing speaks against the value.
    """

    value: float
    se: float
    r_hat: float
    ess: float
    acceptance: float
    apart: float
    missing: float
    step_bias: float
    laplace: float
    source: str
    reason: str


def sampled_energy(
    stochastic: Stochastic,
    start: PointLike,
    law: LaplaceApproximation | None,
    *,
    step_size: float,
    n_beta: float,
    gamma: float,
    chains: int,
    burn_in: int,
    draws: int,
    every: int,
    seed: int,
    mask: Bool[Tensor, "D"] | None,
    field: Field | None,
) -> Energy:
    """Run chains, every second from a draw of the ``law``, and read off their mean energy.

    The Metropolis correction is made where every batch is the whole set. Where no law is known all chains start at
    ``start``, and gamma alone must make them forget it.
    """
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
        adjust=isinstance(stochastic, EveryExample),
        starts=None if law is None else law.starts(chains, n_beta, gamma),
        scaling=None if law is None else law.scaling(n_beta, gamma),
    )
    return energy_of(found, law, every)


def energy_of(found: ChainTraces, law: LaplaceApproximation | None, every: int) -> Energy:
    """The energy of chains whose even ones began at the minimum and whose odd ones by the ``law``."""
    n_beta, gamma = found.n_beta, found.gamma
    energies = n_beta * found.rises
    chains, draws = energies.shape
    r_hat, ess = split_r_hat(energies), effective_sample_size(energies)
    rate = found.step_size * (1.0 if np.isnan(found.acceptance) else found.acceptance)
    laplace = missing = spread = 0.0
    if law is not None:
        laplace, missing, spread = law.outlook(
            n_beta, gamma, rate=rate, burn_in=found.burn_in, steps=draws * every, draws=draws
        )
    value = float(energies.mean())
    noise = max(_error(energies), sqrt(spread / chains))
    lacking = missing * len(energies[::2]) / chains
    compared = law is not None and chains > 1
    apart, between = float("nan"), float("inf")
    if compared:
        sides = energies[::2], energies[1::2]
        apart = float(sides[1].mean() - sides[0].mean())
        between = sqrt(sum(max(_error(side), sqrt(spread / len(side))) ** 2 for side in sides))
    unseen = not compared and (law is None or law.flat(n_beta, gamma) > 0.5)
    left = exp(-rate * gamma * found.burn_in)
    reason = because(
        {
            f"chains have not mixed: split R-hat {r_hat:.3f} exceeds {MIXED}": not r_hat <= MIXED,
            f"effective sample size {ess:.3g} is below {ENOUGH}": not ess >= ENOUGH,
            f"chains from the minimum and from the local law differ by {apart:.3g}, "
            f"{abs(apart) / between if between else 0:.1f} standard errors": abs(apart) > APART * between,
            f"burn-in of {found.burn_in} steps is too short for the flat directions: "
            f"on a quadratic the value lacks {lacking:.3g}": lacking > noise,
            f"all chains start at one point, and gamma alone leaves {left:.0%} of what they lack there after a burn-in "
            f"of {found.burn_in} steps": unseen and left > FORGOTTEN,
            f"the Metropolis correction accepts {found.acceptance:.1%} of the steps: lower the step size": (
                found.acceptance < STUCK
            ),
        }
    )
    half = abs(apart) / 2 if compared else 0.0
    se = sqrt(max(noise, half) ** 2 + lacking**2 + found.step_bias**2)
    return Energy(
        value, se, r_hat, ess, found.acceptance, apart, missing, found.step_bias, laplace, found.source, reason
    )


def _error(traces: np.ndarray) -> float:
    """The standard error of the mean over chains, by effective draws."""
    return float(traces.std(ddof=1)) / sqrt(effective_sample_size(traces))
