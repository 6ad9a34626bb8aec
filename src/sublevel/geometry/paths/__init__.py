"""Paths between points: segments and their barriers, curves of low loss, and membership of a sublevel set.

``segment``, ``along`` and ``barrier`` evaluate a path; ``train_curve`` trains a curve; ``connected`` searches for a
path at or below a height, and returns inside, or not found with the effort spent. Between different initialisations
match the weights first (`weight_matching`): a barrier may be only a permutation.
"""

from __future__ import annotations

from sublevel.geometry.paths.connection import Connection, connected
from sublevel.geometry.paths.curve_training import CurveTraining, TrainedCurve, train_curve
from sublevel.geometry.paths.curves import Curve
from sublevel.geometry.paths.matching import Alignment, infer_spec, permute_point, weight_matching
from sublevel.geometry.paths.segments import BUFFERS, Barrier, Profile, along, barrier, over_chord, segment
from sublevel.numerics import ieee_functions

__all__ = [
    "BUFFERS", "Alignment", "Barrier", "Connection", "Curve", "CurveTraining", "Profile", "TrainedCurve", "along",
    "barrier", "connected", "infer_spec", "over_chord", "permute_point", "segment", "train_curve", "weight_matching",
]  # fmt: skip

ieee_functions(globals())
