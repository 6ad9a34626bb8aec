"""Curvature of a field: eigenvalues, spectral densities, traces and log-determinants, in R^D or in a mask's subspace.

By Cauchy interlacing the k-th eigenvalue at one theta is never larger in a subspace than in R^D. Compare two
*solutions* in one space. Every estimator takes ``operator`` (`OPERATORS`: the Hessian, the GGN, a Fisher matrix) and
``scale`` (`filter_norms`: the adaptive curvature D_s A D_s, which is invariant to rescaling).
"""

from __future__ import annotations

from sublevel.geometry.curvature.density import SpectralDensity, spectral_density
from sublevel.geometry.curvature.diagonals import Diagonal, along, diagonal, diagonal_entries
from sublevel.geometry.curvature.effective_dimension import (
    FewestWeights,
    effective_dimension,
    effective_dimension_of,
    fewest_weights,
)
from sublevel.geometry.curvature.eigenvalues import Spectrum, top_eigenvalues
from sublevel.geometry.curvature.log_determinants import log_determinant, log_determinant_of
from sublevel.geometry.curvature.operators import (
    OPERATORS,
    Operator,
    fisher,
    ggn,
    hessian,
    subspace_dimension,
)
from sublevel.geometry.curvature.subspaces import (
    EigenspaceOverlap,
    eigenspace_overlap,
    filter_norms,
    layer_masks,
    matched_sets,
)
from sublevel.geometry.curvature.traces import trace
from sublevel.numerics import ieee_functions

__all__ = [
    "OPERATORS", "Diagonal", "EigenspaceOverlap", "FewestWeights", "Operator", "SpectralDensity", "Spectrum", "along",
    "diagonal", "diagonal_entries", "effective_dimension", "effective_dimension_of", "eigenspace_overlap",
    "fewest_weights", "filter_norms", "fisher", "ggn", "hessian", "layer_masks", "log_determinant",
    "log_determinant_of", "matched_sets", "spectral_density", "subspace_dimension", "top_eigenvalues", "trace",
]  # fmt: skip

ieee_functions(globals())
