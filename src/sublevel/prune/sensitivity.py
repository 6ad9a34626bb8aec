"""Scores by the sensitivity of the loss: its gradient, its curvature, the gradient's norm; and synaptic flow.

The loss is a field, the mean over the examples that the study gives to criteria. BatchNorm's statistics follow the
field's policy and are constant.
"""

from __future__ import annotations

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError
from sublevel.field import Field, Likelihood
from sublevel.field.products import product_blocks, random_signs
from sublevel.prune.registry import score
from sublevel.space import Point, Space

EXACT = 1024
"""Most coordinates for which the diagonal of the Hessian is computed column by column."""
PROBES = 64
"""Random vectors that estimate the diagonal of more coordinates."""
AT_ONCE = 16
"""Hessian products per pass over the data."""
ROUNDS = 100
"""Rounds of SynFlow (Tanaka et al. 2006.05467)."""


def loss_of(field: Field | None, name: str) -> Field:
    """Return the field; raise ConfigError if a criterion that needs one has none."""
    if field is None:
        raise ConfigError(f"criterion {name!r} needs the loss, but got no field")
    return field


def likelihood_of(field: Field | None, name: str) -> Likelihood:
    """Return the field as a `Likelihood`; raise ConfigError if it has no gradients per example."""
    if not isinstance(loss_of(field, name), Likelihood):
        raise ConfigError(f"criterion {name!r} needs the gradient of every example, which {type(field).__name__} lacks")
    assert isinstance(field, Likelihood)
    return field


@score("gradient", passes=1)
def gradient(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``|g_i|``, the magnitude of the gradient of the loss."""
    return loss_of(field, "gradient").grad(point).abs()


@score("taylor", passes=1)
def taylor(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``|theta_i g_i|``: to first order, the change of the loss without the weight (Molchanov et al. 1906.10771).

    Their importance of single weights is its square, which gives the same ranks.
    """
    return (point.theta * loss_of(field, "taylor").grad(point)).abs()


@score("snip", passes=1)
def snip(point: Point, field: Field | None, generator: torch.Generator, *, space: Space) -> Float[Tensor, "D"]:
    """``|g_i theta_i| / sum_k |g_k theta_k|`` over the weights that may be pruned (Lee et al. 1810.02340).

    The sensitivity to a multiplier of the weight. At one point and on the same examples it gives the ranks of `taylor`;
    it is meant for the initial point.
    """
    values = (point.theta * loss_of(field, "snip").grad(point)).abs().double()
    total = values[space.prunable.to(values.device)].sum()
    return values / total if bool(total > 0) else values


@score("grasp", passes=5)
def grasp(
    point: Point, field: Field | None, generator: torch.Generator, *, mask: Bool[Tensor, "D"]
) -> Float[Tensor, "D"]:
    """``theta_i (H g)_i``: the loss of squared gradient norm without the weight (Wang et al. 2002.07376).

    Their score is ``-theta * H g``, and the weights with the *highest* scores are removed (section 4.1), so the sign is
    reversed here. g is the gradient in the coordinates of the mask, including biases; the temperature of the outputs is
    1.
    """
    loss = loss_of(field, "grasp")
    slope = torch.where(mask, loss.grad(point), 0.0)
    return point.theta * loss.hvp(point, slope)


@score("obd", draws=True, passes=100)
def obd(
    point: Point, field: Field | None, generator: torch.Generator, *, mask: Bool[Tensor, "D"]
) -> Float[Tensor, "D"]:
    """``theta_i^2 H_ii / 2``: the rise of the loss at a minimum with a diagonal Hessian (LeCun et al. 1990).

    A weight with negative curvature scores below 0 and is removed first. The diagonal is that of `hessian_diagonal`.
    """
    return point.theta.double().square() * hessian_diagonal(loss_of(field, "obd"), point, generator, mask) / 2


@score("fisher", passes=200)
def fisher(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``theta_i^2 F_ii / 2`` with ``F_ii = 1/N sum_n g_ni^2``, the empirical Fisher (Theis et al. 1801.05787)."""
    squares = point.theta.new_zeros(len(point.theta), dtype=torch.float64)
    seen = 0
    for rows in likelihood_of(field, "fisher").example_grads(point):
        squares += rows.square().sum(0, dtype=torch.float64)
        seen += len(rows)
    return point.theta.double().square() * squares / (2 * seen)


@score("synflow", rounds=ROUNDS, passes=50)
def synflow(point: Point, field: Field | None, generator: torch.Generator, *, flow: Field) -> Float[Tensor, "D"]:
    """``|theta_i dR/dtheta_i|``, with R the sum of the outputs for an input of ones and absolute weights.

    It uses no examples. In a feed-forward ReLU network the scores of every layer add up to R, so pruning in rounds does
    not empty a layer (Tanaka et al. 2006.05467). In float64, since R overflows float32 in deep networks.
    """
    at = point.to(dtype=torch.float64)
    return (at.theta * flow.grad(at)).abs()


def hessian_diagonal(
    field: Field, point: Point, generator: torch.Generator, mask: Bool[Tensor, "D"]
) -> Float[Tensor, "D"]:
    """``H_ii`` on the coordinates of the mask, in float64; 0 elsewhere.

    Exact, column by column, for at most `EXACT` coordinates. Beyond, the mean of ``z * H z`` over `PROBES` vectors of
    random signs on the mask (Bekas et al. 2007), with the variance ``sum_{j != i} H_ij^2 / PROBES``.
    """
    index = mask.nonzero().squeeze(1)
    exact = len(index) <= EXACT
    count = len(index) if exact else PROBES

    def probe(i: int) -> Tensor:
        z = point.theta.new_zeros(field.dim)
        if exact:
            z[index[i]] = 1.0
        else:
            z[index] = random_signs(len(index), generator).to(z)
        return z

    total = point.theta.new_zeros(field.dim, dtype=torch.float64)
    for z, product in product_blocks(lambda v: field.hvp(point, v), probe, count, AT_ONCE):
        total += (z * product).sum(0, dtype=torch.float64)
    return total if exact else total / count
