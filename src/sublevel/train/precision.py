"""How CUDA multiplies float32 numbers: as IEEE says, unless a recipe names TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Matrix products and convolutions with TF32 or without; put back afterwards. On a CPU it makes no difference."""
    before = bool(torch.backends.cuda.matmul.allow_tf32), bool(torch.backends.cudnn.allow_tf32)
    _set(allowed, allowed)
    try:
        yield
    finally:
        _set(*before)


def _set(matmul: bool, cudnn: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn
