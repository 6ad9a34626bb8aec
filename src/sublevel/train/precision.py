"""How CUDA multiplies float32 numbers: as IEEE says, unless a recipe names TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sublevel.train.recipe import Recipe


@contextmanager
def precision(recipe: Recipe) -> Iterator[None]:
    """Matrix products and convolutions as the recipe says; put back afterwards. On a CPU it makes no difference."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = bool(matmul.allow_tf32), bool(cudnn.allow_tf32)
    matmul.allow_tf32 = cudnn.allow_tf32 = recipe.tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
