"""Matrix-vector products of second and first derivatives by reverse-mode differentiation, and blocks of them.

Each product takes the graph of a scalar or of outputs as a function of theta, and the vectors as [D] or [K, D].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import torch

from sublevel._types import Float, Tensor
from sublevel.errors import ModelError

NO_DERIVATIVE = re.compile(r"derivative for '?(?:aten::)?(\w+?)(?:_backward)?'? is not implemented")
"""What PyTorch says of an operation that it cannot differentiate twice."""


def gradient_graph(loss: Tensor, theta: Tensor) -> Float[Tensor, "D"]:
    """The gradient of ``loss`` with its own graph, which a Hessian product differentiates again."""
    return torch.autograd.grad(loss, theta, create_graph=True)[0]


def hessian_products(loss: Tensor, theta: Tensor, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
    """Products of the Hessian of ``loss``, given as a graph of ``theta``, with the rows of v."""
    return second_backward(gradient_graph(loss, theta), theta, v)


def second_backward(
    gradient: Float[Tensor, "D"], theta: Tensor, v: Float[Tensor, "*K D"], *, keep: bool = False
) -> Float[Tensor, "*K D"]:
    """Products of the Hessian with the rows of v, from the gradient's graph; frees the graph unless ``keep``."""
    if not gradient.requires_grad:  # the function is linear
        return torch.zeros_like(v)
    rows = v.reshape(-1, v.shape[-1])
    try:
        products = [
            torch.autograd.grad(gradient, theta, row, retain_graph=keep or i + 1 < len(rows))[0]
            for i, row in enumerate(rows)
        ]
    except RuntimeError as error:
        if missing := NO_DERIVATIVE.search(str(error)):
            raise ModelError(
                f"PyTorch has no second derivative of {missing[1]}, which the loss or the network uses: leave out what "
                "needs curvature (spectra, density, volumes), or write it with other operations"
            ) from error
        raise
    return (products[0] if len(products) == 1 else torch.stack(products)).reshape(v.shape)


def sandwich(
    outputs: Tensor, theta: Tensor, v: Float[Tensor, "*K D"], middle: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*K D"]:
    """``J^T M J v`` for the rows of v; J is the Jacobian of ``outputs`` at theta, ``middle`` applies M.

    ``J^T u`` is linear in u, so its derivative in u along v is ``J v``. This needs no forward-mode rule, and one graph
    serves every row.
    """
    u = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, theta, u, create_graph=True)
    products = []
    for row in v.reshape(-1, v.shape[-1]):
        (pushed,) = torch.autograd.grad(pulled, u, row, retain_graph=True)
        products.append(torch.autograd.grad(outputs, theta, middle(pushed), retain_graph=True)[0])
    return torch.stack(products).reshape(v.shape)


def output_hessian(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that applies the Hessian of ``loss(outputs)`` in the outputs; zero if the loss is linear in them."""
    z = outputs.detach().requires_grad_()
    slope = torch.autograd.grad(loss(z), z, create_graph=True)[0]
    if not slope.requires_grad:
        return torch.zeros_like
    return lambda w: torch.autograd.grad(slope, z, w, retain_graph=True)[0]


def random_signs(n: int, generator: torch.Generator) -> Tensor:
    """N random signs (Rademacher), as integers on the CPU."""
    return 2 * torch.randint(2, (n,), generator=generator) - 1


def product_blocks(
    product: Callable[[Tensor], Tensor], vectors: Callable[[int], Tensor], count: int, together: int
) -> Iterator[tuple[Float[Tensor, "B n"], Float[Tensor, "B n"]]]:
    """Blocks of ``count`` vectors and of their products, at most ``together`` vectors to a pass over the data.

    Traces and diagonals by random signs z are means over them, of z^T A z and z * A z.
    """
    for start in range(0, count, together):
        block = torch.stack([vectors(i) for i in range(start, min(start + together, count))])
        yield block, product(block)
