"""Data: `load` reads a `Dataset` by name, `split` makes `Splits` of it, and `epoch_plan` orders an epoch.

This package does not depend on networks. Images stay ``uint8`` from the file to the batch; `Splits.prepare` converts
them to floats.
"""

from sublevel.data.batches import EpochPlan, epoch_plan, gather
from sublevel.data.shared import share, shared
from sublevel.data.sources import Dataset, check, load, names, source
from sublevel.data.splits import Part, Splits, split, stratified

__all__ = [
    "Dataset", "EpochPlan", "Part", "Splits", "check", "epoch_plan", "gather", "load", "names", "share", "shared",
    "source", "split", "stratified",
]  # fmt: skip
