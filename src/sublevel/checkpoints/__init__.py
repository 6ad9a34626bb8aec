"""Read checkpoints made elsewhere, without running their code, and fit them to a network by name.

`load` reads a file or a folder into named tensors. `read` fits them to a network: frozen parameters, tied names,
buffers outside the state dict, prefixes of wrappers and masks. A checkpoint that would compute another function is
refused, with the name of the tensor.
"""

from sublevel.checkpoints.files import load
from sublevel.checkpoints.fit import ZEROS, Checkpoint, Source, named_tensors, read

__all__ = ["ZEROS", "Checkpoint", "Source", "load", "named_tensors", "read"]
