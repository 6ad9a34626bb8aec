"""How CUDA multiplies float32 numbers: as IEEE says, unless a recipe names TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sublevel.train.recipe import Recipe


@contextmanager
def precision(recipe: Recipe) -> Iterator[None]:
    """Matrix products and convolutions as the recipe says; put back afterwards. On a CPU it makes no difference."""
    before = bool(torch.backends.cuda.matmul.allow_tf32), bool(torch.backends.cudnn.allow_tf32)
    _set(recipe.tf32, recipe.tf32)
    try:
        yield
    finally:
        _set(*before)


def _set(matmul: bool, cudnn: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn
