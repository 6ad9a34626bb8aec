"""Products of matrices of second and first derivatives with vectors, by reverse-mode differentiation.

Each takes the graph of a scalar or of outputs as a function of theta, and the vectors as [D] or [K, D].
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sublevel._types import Float, Tensor


def gradient_graph(loss: Tensor, theta: Tensor) -> Float[Tensor, "D"]:
    """The gradient of ``loss`` with its own graph: what a Hessian product differentiates once more."""
    return torch.autograd.grad(loss, theta, create_graph=True)[0]


def hessian_products(loss: Tensor, theta: Tensor, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
    """Products of the Hessian of ``loss`` at ``theta``, whose graph is given, with the rows of v."""
    return second_backward(gradient_graph(loss, theta), theta, v)


def second_backward(
    gradient: Float[Tensor, "D"], theta: Tensor, v: Float[Tensor, "*K D"], *, keep: bool = False
) -> Float[Tensor, "*K D"]:
    """Products of the Hessian with the rows of v from the gradient's graph, which is freed unless ``keep``."""
    if not gradient.requires_grad:  # the function is linear
        return torch.zeros_like(v)
    rows = v.reshape(-1, v.shape[-1])
    products = [
        torch.autograd.grad(gradient, theta, row, retain_graph=keep or i + 1 < len(rows))[0]
        for i, row in enumerate(rows)
    ]
    return torch.stack(products).reshape(v.shape)


def sandwich(
    outputs: Tensor, theta: Tensor, v: Float[Tensor, "*K D"], middle: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*K D"]:
    """``J^T M J v`` for the rows of v, J the Jacobian of ``outputs`` at theta and ``middle`` the action of M.

    ``J^T u`` is linear in u, so differentiating it along v with respect to u gives ``J v``: no forward-mode rule is
    needed, and one graph serves every row.
    """
    u = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, theta, u, create_graph=True)
    products = []
    for row in v.reshape(-1, v.shape[-1]):
        (pushed,) = torch.autograd.grad(pulled, u, row, retain_graph=True)
        products.append(torch.autograd.grad(outputs, theta, middle(pushed), retain_graph=True)[0])
    return torch.stack(products).reshape(v.shape)


def output_hessian(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """The action of the Hessian of ``loss(outputs)`` in the outputs; zero where the loss is linear in them."""
    z = outputs.detach().requires_grad_()
    slope = torch.autograd.grad(loss(z), z, create_graph=True)[0]
    if not slope.requires_grad:
        return torch.zeros_like
    return lambda w: torch.autograd.grad(slope, z, w, retain_graph=True)[0]
