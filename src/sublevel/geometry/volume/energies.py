"""The energy N beta E[L - L*] of a tempered posterior, from chains, with its error and the reasons not to trust it.

The R-hat of chains with one start does not see a slow mode, which all chains lack alike. So half of the chains start at
the minimum and half at draws of the Laplace approximation, which are stationary on a quadratic. The two halves differ
by the part that the first has not reached. The curvature also predicts, without noise, what chains from the minimum
lack and how much chains of this length vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import Any

import numpy as np

from sublevel._types import Bool, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic
from sublevel.geometry.estimate import join_reasons
from sublevel.geometry.volume.estimators import Option
from sublevel.geometry.volume.langevin import ChainOptions, ChainTraces, sample
from sublevel.geometry.volume.laplace import STEPS, LaplaceApproximation
from sublevel.geometry.volume.mixing import effective_sample_size, split_r_hat

MIXED = 1.05
"""Chains with a larger split R-hat have not mixed."""

ENOUGH = 100
"""A mean over chains with a smaller effective sample size is flagged."""

COARSE = 1.0
"""Largest step size times steepest curvature of an uncorrected step; the variance is then 4/3 of its value."""

APART = 3.0
"""The two kinds of start disagree if they differ by more standard errors than this."""

STUCK = 0.1
"""If a smaller share of steps is accepted, the correction holds the chains in place."""

FORGOTTEN = 0.05
"""Largest share of the deficit at the start that may be left after the burn-in, if nothing else is known."""


CHAINS = {
    "chains": Option(4, least=2),
    "draws": Option(200, least=10),
    "burn_in": Option(200, least=0),
    "gamma": Option(100.0),
}
"""Options of chains in a study."""

RESCALED = 20
"""Steepest directions along which the chains of a study take shorter steps than along the others."""


def chain_cost(options: Mapping[str, Any], rungs: int = 1) -> float:
    """Passes over the examples that the chains of each rung take, and the products for their starts."""
    steps = rungs * options["chains"] * (options["draws"] + options["burn_in"])
    return steps * 4 / 3 + 3 * (100 + STEPS * (options["chains"] // 2))


@dataclass(frozen=True)
class Energy:
    """``value`` = N beta (E[L] - L*) with its diagnostics.

    ``se`` is the largest of three errors, with the biases of the step and the burn-in added in squares: the error by
    effective draws, that of a quadratic with this curvature, and half of ``apart``, the difference between the two
    kinds of start (nan for a single chain). ``missing`` is what chains from the minimum lack on a quadratic,
    ``step_bias`` the bias of uncorrected steps (0 with the correction), ``quadratic`` the value on a quadratic.
    ``reason`` says why the value is not reliable; it is empty if no check failed.
    """

    value: float
    se: float
    r_hat: float
    ess: float
    acceptance: float
    apart: float
    missing: float
    step_bias: float
    quadratic: float
    source: str
    reason: str


def sampled_energy(
    stochastic: Stochastic,
    start: PointLike,
    laplace: LaplaceApproximation | None,
    options: ChainOptions,
    *,
    mask: Bool[Tensor, "D"] | None,
    field: Field | None,
) -> Energy:
    """Run chains, every second one from a draw of the Laplace approximation, and estimate their mean energy.

    If every batch is the whole data set, the Metropolis correction is made. Without a Laplace approximation all chains
    start at ``start`` and rely on gamma alone to forget it.
    """
    density = options.n_beta, options.gamma
    scaling = None if laplace is None else laplace.scaling(*density)
    options = replace(options, adjust=isinstance(stochastic, EveryExample), scaling=scaling)
    starts = None if laplace is None else laplace.starts(options.chains, *density)
    return energy_of(sample(stochastic, start, options, mask=mask, field=field, starts=starts), laplace)


def energy_of(found: ChainTraces, laplace: LaplaceApproximation | None) -> Energy:
    """The energy of chains whose even ones began at the minimum and whose odd ones at draws of ``laplace``."""
    options = found.options
    n_beta, gamma, burn_in = options.n_beta, options.gamma, options.burn_in
    energies = n_beta * found.rises
    chains, draws = energies.shape
    r_hat, ess = split_r_hat(energies), effective_sample_size(energies)
    rate = options.step_size * (1.0 if np.isnan(found.acceptance) else found.acceptance)
    predicted = missing = spread = 0.0
    if laplace is not None:
        predicted, missing, spread = laplace.outlook(
            n_beta, gamma, rate=rate, burn_in=burn_in, steps=draws * options.every, draws=draws
        )
    value = float(energies.mean())
    noise = max(_error(energies), sqrt(spread / chains))
    lacking = missing * len(energies[::2]) / chains
    compared = laplace is not None and chains > 1
    apart, between = float("nan"), float("inf")
    if compared:
        sides = energies[::2], energies[1::2]
        apart = float(sides[1].mean() - sides[0].mean())
        between = sqrt(sum(max(_error(side), sqrt(spread / len(side))) ** 2 for side in sides))
    unseen = not compared and (laplace is None or laplace.flat(n_beta, gamma) > 0.5)
    left = exp(-rate * gamma * burn_in)
    reason = join_reasons(
        {
            f"chains have not mixed: split R-hat {r_hat:.3f} exceeds {MIXED}": not r_hat <= MIXED,
            f"effective sample size {ess:.3g} is below {ENOUGH}": not ess >= ENOUGH,
            f"chains from the minimum and from the Laplace approximation differ by {apart:.3g}, "
            f"{abs(apart) / between if between else 0:.1f} standard errors": abs(apart) > APART * between,
            f"burn-in of {burn_in} steps is too short for the flat directions: "
            f"on a quadratic the value lacks {lacking:.3g}": lacking > noise,
            f"all chains start at one point, and after a burn-in of {burn_in} steps gamma alone leaves {left:.0%} of "
            "what they lack there": unseen and left > FORGOTTEN,
            f"the Metropolis correction accepts {found.acceptance:.1%} of the steps: lower the step size": (
                found.acceptance < STUCK
            ),
        }
    )
    half = abs(apart) / 2 if compared else 0.0
    se = sqrt(max(noise, half) ** 2 + lacking**2 + found.step_bias**2)
    return Energy(
        value, se, r_hat, ess, found.acceptance, apart, missing, found.step_bias, predicted, found.source, reason
    )


def _error(traces: np.ndarray) -> float:
    """The standard error of the mean over chains, by the effective sample size."""
    return float(traces.std(ddof=1)) / sqrt(effective_sample_size(traces))
