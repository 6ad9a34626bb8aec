"""Networks by name, or by the import path of the user's function.

>>> names()[:3]
['conv-2', 'conv-4', 'conv-6']
>>> net = build("lenet-300-100", input_shape=(1, 28, 28), classes=10)
>>> sum(p.numel() for p in net.parameters())
266610
"""

from __future__ import annotations

import sublevel.models.zoo  # noqa: F401 - registers the built-in networks
from sublevel.models import pretrained
from sublevel.models.build import build, copied
from sublevel.models.fingerprint import fingerprint, own_code
from sublevel.models.registry import model, names

__all__ = ["build", "copied", "fingerprint", "model", "names", "own_code", "pretrained"]
