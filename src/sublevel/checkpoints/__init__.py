"""Checkpoints that others made: files of tensors, read without running their code and fitted to a network by name.

`load` reads a file or a folder into names and tensors. `read` fits them to a network: frozen parameters, tied names,
buffers that no state dict holds, prefixes of wrappers and masks. What computes another function is refused by name.
"""

from sublevel.checkpoints.files import load
from sublevel.checkpoints.fit import ZEROS, Checkpoint, Source, read

__all__ = ["ZEROS", "Checkpoint", "Source", "load", "read"]
