"""Volumes of basins.

A basin is S = {theta : L(theta) - L(theta*) <= eps}, as far as rays from theta* reach it. Its volume spans thousands of
orders of magnitude, so all volumes are in nats. Compare volumes of different dimension by the effective radius
(V / omega_n)^(1/n), never by V: log V_n - log V_k contains (n-k)/2 log 2 eps and changes its sign with eps.
omega_n = pi^(n/2) / Gamma(n/2 + 1) is the volume of the unit ball.

| method | result | source |
|---|---|---|
| ``top-k`` | the ellipsoid of the k steepest directions | |
| ``logdet`` | the ellipsoid of the whole damped curvature | Laplace's method |
| ``radial`` | the star-shaped part in a ball, by rays in random directions | Huang et al. 1906.03291 |
| ``importance`` | the same set, by rays that follow the curvature | Scherlis and Belrose 2501.18812 |
| ``thermodynamic`` | the partition function under a Gaussian prior | Gelman and Meng 1998 |
| ``llc`` | the local learning coefficient, the exponent of the volume in eps | Lau et al. 2308.12108 |

>>> sorted(METHODS)
['importance', 'llc', 'logdet', 'radial', 'thermodynamic', 'top-k']
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from sublevel.geometry.volume.ellipsoids import ellipsoid, logdet, top_k
from sublevel.geometry.volume.estimators import METHODS, Estimator, Option, Volume, estimator, log_unit_ball
from sublevel.geometry.volume.local_learning_coefficient import LearningCoefficient, learning_coefficient, llc
from sublevel.geometry.volume.preconditioners import Preconditioner, identity
from sublevel.geometry.volume.rays import Rays, RaySearch, importance, radial
from sublevel.geometry.volume.sweeps import dimension_slope, log_volume, sweep
from sublevel.geometry.volume.thermodynamic_integration import thermodynamic
from sublevel.numerics import ieee_functions

__all__ = [
    "METHODS", "Estimator", "LearningCoefficient", "Option", "Preconditioner", "RaySearch", "Rays", "Volume",
    "dimension_slope", "ellipsoid", "estimator", "identity", "importance", "learning_coefficient", "llc",
    "log_unit_ball", "log_volume", "logdet", "radial", "sweep", "thermodynamic", "top_k",
]  # fmt: skip

for found in iter_modules(__path__):  # every module registers its estimators
    import_module(f"{__name__}.{found.name}")

ieee_functions(globals())
