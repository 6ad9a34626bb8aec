"""The gradients of a loss of single examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sublevel._types import Float, Tensor
from sublevel.inputs import Inputs, each, examples


class ExampleGradients:
    """Gradients of ``loss(theta, x, y)`` in theta, one row per example.

    They are vectorised over the examples. After the first failure, as for an LSTM, which has no rule for it, they are
    taken one by one.
    """

    def __init__(self) -> None:
        self._one_by_one = False

    @sdpa_kernel(SDPBackend.MATH)
    def __call__(
        self, loss: Callable[[Tensor, Inputs, Tensor], Tensor], theta: Float[Tensor, "D"], x: Inputs, y: Tensor
    ) -> Float[Tensor, "B D"]:
        """The gradients of a batch (x, y)."""
        one = torch.func.grad(loss)
        if examples(x) == 1:
            return one(theta, each(x, lambda t: t[0]), y[0])[None]
        if not self._one_by_one:
            try:
                with warnings.catch_warnings():  # PyTorch remarks where it loops over the examples itself
                    warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                    return torch.func.vmap(one, in_dims=(None, 0, 0))(theta, x, y)
            except (RuntimeError, NotImplementedError, ValueError):
                self._one_by_one = True
        leaf = theta.detach().requires_grad_()
        losses = (loss(leaf, each(x, lambda t, i=i: t[i]), y[i]) for i in range(len(y)))
        return torch.stack([torch.autograd.grad(value, leaf)[0] for value in losses])
