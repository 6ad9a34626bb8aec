"""A ticket in one file: mask, starting weights, optional end weights, and their origin.

The file is safetensors. Its tensors are ``mask`` (uint8, the bits of all trainable parameters in their order, as
``np.packbits`` packs them) and ``start/NAME``, ``end/NAME``, ``constant/NAME`` for every trainable parameter and buffer
of a point and every parameter that is not trained. The starting weights are unmasked. The header's entry
``sublevel-ticket`` is JSON: format, parameters (name, shape, dtype, prunable), buffers, constants, the recipe and the
provenance under ``about``, the SHA-256 of every tensor's bytes, and the SHA-256 of the document. The file holds no
pickles; loading runs no code.

Without sublevel, read it with safetensors and torch::

    import json
    import sys

    import torch
    from safetensors import safe_open

    with safe_open(sys.argv[1], framework="pt") as file:
        header = json.loads(file.metadata()["sublevel-ticket"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}

    at = header["points"][-1]  # "end" where the file has it, otherwise "start"
    state = {name.partition("/")[2]: t for name, t in tensors.items() if name.startswith((f"{at}/", "constant/"))}
    bits = (tensors["mask"][:, None] >> torch.arange(7, -1, -1)) & 1  # the first weight is the highest bit
    rest, masks = bits.flatten().bool(), {}
    for parameter in header["parameters"]:
        name, weights = parameter["name"], state[parameter["name"]]
        masks[name], rest = rest[: weights.numel()].view(weights.shape), rest[weights.numel() :]
        state[name] = weights.masked_fill(~masks[name], 0)

    left = sum(int(masks[p["name"]].sum()) for p in header["parameters"] if p["prunable"])
    print(f"{left} weights left at the {at}; next: model.load_state_dict(state)")
"""

from __future__ import annotations

from sublevel.tickets.open_lth import from_open_lth
from sublevel.tickets.ticket import Ticket

__all__ = ["Ticket", "from_open_lth", "load_ticket"]

load_ticket = Ticket.load
