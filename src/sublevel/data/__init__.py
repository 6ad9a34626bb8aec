"""Data: a name becomes a `Dataset`, a `Dataset` becomes `Splits`, and an epoch is a plan of indices.

Nothing here knows about networks. Images stay ``uint8`` from the file to the batch; `Splits.prepare` makes
them float.
"""

from sublevel.data.batches import EpochPlan, epoch_plan, gather
from sublevel.data.shared import share, shared
from sublevel.data.sources import Dataset, check, load, names, source
from sublevel.data.splits import Part, Splits, split, stratified

__all__ = [
    "Dataset",
    "EpochPlan",
    "Part",
    "Splits",
    "check",
    "epoch_plan",
    "gather",
    "load",
    "names",
    "share",
    "shared",
    "source",
    "split",
    "stratified",
]
