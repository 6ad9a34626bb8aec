"""The loss of a network over a fixed set of examples, as a field.

The buffer policy is part of the function: with BatchNorm, L(theta) depends on the statistics that belong to theta.

- ``stored``: the buffers of the point;
- ``batch``: the statistics of each batch, so the partition into batches is part of the function;
- ``recomputed``: the average over the un-augmented calibration examples, weighted by batch size, and constant under
  differentiation;
- ``none``: the network has no BatchNorm. (BatchNorm without running statistics always has the policy ``batch``.)

(``averaged`` is ``stored`` along a path that lerps the buffers of its ends: see `sublevel.space.lerp`.) Dropout is off
in every policy. With statistics of a batch, no batch holds a single example. Losses and errors are accumulated in
float64; batches are weighted by their size.
"""

from sublevel.risk.batchnorm import POLICIES, Calibration, fixed_mode
from sublevel.risk.empirical import EmpiricalRisk
from sublevel.risk.losses import LABELS, LOSSES, Labels, Loss, counting, cross_entropy, loss_function, named, squared
from sublevel.risk.minibatches import MiniBatches

__all__ = [
    "LABELS", "LOSSES", "POLICIES", "Calibration", "EmpiricalRisk", "Labels", "Loss", "MiniBatches", "counting",
    "cross_entropy", "fixed_mode", "loss_function", "named", "squared",
]  # fmt: skip
