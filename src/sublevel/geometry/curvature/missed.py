"""Bounds on eigenvalues that a search may have missed, given pairs that are known inexactly.

Let W be the known pairs, with values theta_i and residuals r_i, and B the operator's compression to their complement.
By Schur's complement, A has no more eigenvalues above t than W has if the largest eigenvalue of B is below t - sum_i
r_i^2 / (t - theta_i), summed over the theta_i below t (`lowered`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb

import numpy as np

from sublevel.geometry.curvature.lanczos import Ritz

MISSED = 1e-3
"""Largest chance, over random starts, that an eigenvalue is missing from among pairs called converged."""

LOOKS = 3
"""Most runs that look for a missing eigenvalue beside the same pairs, if rounding ends a run early."""

ROUNDING = 10
"""Rounding of a value of 0, in units of the last place of the largest |Ritz value|; smaller values are not resolved."""

RESOLVED = 0.01
"""Largest rounding of a converged value, as a share of its size."""


def allowed(values: np.ndarray, tolerance: float, rounding: float) -> np.ndarray:
    """The largest residuals of converged pairs with these values: ``tolerance`` times the size of the value.

    Larger ``rounding`` replaces it, up to `RESOLVED` times the value; a value within rounding may be 0.

    >>> allowed(np.array([1.0, 1e-3, 1e-9]), 1e-4, 1e-6).tolist()
    [0.0001, 1e-06, 1e-06]
    """
    own = np.abs(values)
    return np.maximum(tolerance * own, np.where(own <= rounding, rounding, np.minimum(rounding, RESOLVED * own)))


def lowered(t: float, values: np.ndarray, residuals: np.ndarray) -> float:
    """A lower bound on the image of an eigenvalue above t in the complement of pairs that are known inexactly.

    >>> lowered(1.0, np.array([2.0, 0.5, 1.0]), np.array([0.1, 0.1, 0.0]))
    0.98
    """
    below = values < t
    return t - float((residuals[below] ** 2 / (t - values[below])).sum())


@dataclass(frozen=True, eq=False)
class ComplementRun:
    """A Lanczos run in the complement of known pairs with these ``values`` and ``residuals``."""

    ritz: Ritz
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    residuals: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def chance_of_more(self, t: float) -> float:
        """The chance that the operator has more eigenvalues above t than the known pairs have."""
        return self.ritz.progress.chance_of_more(lowered(t, self.values, self.residuals))


@dataclass(frozen=True)
class Exclusion:
    """Decides when ``runs`` runs from independent starts exclude an eigenvalue, except for a chance of ``missed``.

    If each of j independent starts misses it with a chance of at most p, all of them miss it with a chance of at most
    C(runs, j) p^j. A third of ``missed`` goes to each of j = 1, 2 and 3: if rounding ends a run early, several runs
    together may exclude what one does not.

    >>> few = Exclusion(1e-3, 4)
    >>> few.excluded([1e-5]), few.excluded([5e-3]), few.excluded([5e-3, 5e-3])
    (True, False, True)
    """

    missed: float
    runs: int

    def excluded(self, chances: Sequence[float]) -> bool:
        """Whether runs with these chances of missing it exclude the eigenvalue."""
        each = self.missed / LOOKS
        ordered = sorted(chances)[:LOOKS]
        return any(comb(self.runs, j) * p**j <= each for j, p in enumerate(ordered, start=1))
