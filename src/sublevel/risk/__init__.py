"""The loss of a network over a fixed set of examples, as a field.

The buffer policy is part of the function. With BatchNorm, L(theta) is not defined before it is said which
statistics belong to theta:

- ``stored``: the point's own buffers;
- ``batch``: the statistics of each batch, so the partition into batches is part of the function;
- ``recomputed``: the average over the un-augmented calibration examples, weighted by batch size, held constant when
  differentiating;
- ``none``: the network has no BatchNorm. (One without running statistics always has the policy ``batch``.)

(``averaged`` is ``stored`` along a path whose ends are lerped with their buffers: see `sublevel.space.lerp`.)
Dropout is off in every policy. Where statistics are those of a batch, no batch holds a single example. Losses and
errors are accumulated in float64, batches are weighted by their size.
"""

from sublevel.risk.batchnorm import POLICIES, Calibration, fixed_mode
from sublevel.risk.empirical import EmpiricalRisk
from sublevel.risk.losses import LABELS, LOSSES, Labels, Loss, counting, cross_entropy, loss_function, named, squared
from sublevel.risk.minibatches import MiniBatches

__all__ = [
    "LABELS",
    "LOSSES",
    "POLICIES",
    "Calibration",
    "EmpiricalRisk",
    "Labels",
    "Loss",
    "MiniBatches",
    "counting",
    "cross_entropy",
    "fixed_mode",
    "loss_function",
    "named",
    "squared",
]
