"""Weight normalisation with a second derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode


class _Formula(TorchFunctionMode):
    """``g v / |v|`` in place of PyTorch's own operation."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch._weight_norm:  # pyright: ignore[reportPrivateImportUsage]
            v, g, dim = args
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


def twice_differentiable(module: nn.Module) -> AbstractContextManager[Any]:
    """Compute weight normalisation by its formula inside the block.

    The derivative of PyTorch's gradient of ``torch._weight_norm`` is wrong on a CPU: the Hessian is not symmetric.
    """
    new = any(isinstance(m, parametrizations._WeightNorm) for m in module.modules())
    old = (hook for m in module.modules() for hook in m._forward_pre_hooks.values())
    return _Formula() if new or any(isinstance(hook, WeightNorm) for hook in old) else nullcontext()
