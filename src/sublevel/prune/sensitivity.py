"""Scores by what the loss would do: its gradient, its curvature, the gradient's norm; and the flow of the weights.

The loss is a field, the mean over the examples that the study shows to its criteria. BatchNorm's statistics are those
of the field's policy, and are held constant.
"""

from __future__ import annotations

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError
from sublevel.field import Field, Likelihood
from sublevel.prune.registry import score
from sublevel.space import Point, Space

EXACT = 1024
"""Coordinates up to which the diagonal of the Hessian is computed column by column."""
PROBES = 64
"""Random vectors that estimate it beyond."""
AT_ONCE = 16
"""Hessian products of one pass over the data."""
ROUNDS = 100
"""Rounds of SynFlow (Tanaka et al. 2006.05467)."""


def loss_of(field: Field | None, name: str) -> Field:
    """The field; ConfigError where a criterion that looks at data was given none."""
    if field is None:
        raise ConfigError(f"criterion {name!r} looks at the loss, and was given no field")
    return field


def likelihood_of(field: Field | None, name: str) -> Likelihood:
    """The field as one that knows the gradient of every example; ConfigError where it does not."""
    if not isinstance(loss_of(field, name), Likelihood):
        raise ConfigError(f"criterion {name!r} needs the gradient of every example, which {type(field).__name__} lacks")
    assert isinstance(field, Likelihood)
    return field


@score("gradient", passes=1)
def gradient(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``|g_i|``, the magnitude of the loss's gradient: what training would move most."""
    return loss_of(field, "gradient").grad(point).abs()


@score("taylor", passes=1)
def taylor(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``|theta_i g_i|``: to first order, how much the loss changes without the weight (Molchanov et al. 1906.10771).

    Their importance of single weights is its square, which ranks them alike.
    """
    return (point.theta * loss_of(field, "taylor").grad(point)).abs()


@score("snip", passes=1)
def snip(point: Point, field: Field | None, generator: torch.Generator, *, space: Space) -> Float[Tensor, "D"]:
    """``|g_i theta_i| / sum_k |g_k theta_k|`` over the weights that may be pruned (Lee et al. 1810.02340).

    The sensitivity to a multiplier of the weight. At one point and on the same examples it ranks as `taylor` does;
    its own place is the initial point.
    """
    values = (point.theta * loss_of(field, "snip").grad(point)).abs().double()
    total = values[space.prunable.to(values.device)].sum()
    return values / total if bool(total > 0) else values


@score("grasp", passes=5)
def grasp(
    point: Point, field: Field | None, generator: torch.Generator, *, mask: Bool[Tensor, "D"]
) -> Float[Tensor, "D"]:
    """``theta_i (H g)_i``: what the squared norm of the gradient would lose with the weight (Wang et al. 2002.07376).

    Their score is ``-theta * H g`` and the weights with the *highest* are removed (section 4.1), so the sign is turned
    here. g is the gradient in the network's own coordinates, those of the mask, biases among them; the temperature of
    the outputs is 1.
    """
    loss = loss_of(field, "grasp")
    slope = torch.where(mask, loss.grad(point), 0.0)
    return point.theta * loss.hvp(point, slope)


@score("obd", draws=True, passes=100)
def obd(
    point: Point, field: Field | None, generator: torch.Generator, *, mask: Bool[Tensor, "D"]
) -> Float[Tensor, "D"]:
    """``theta_i^2 H_ii / 2``: what the loss would rise by at a minimum with a diagonal Hessian (LeCun et al. 1990).

    A weight of negative curvature scores below 0 and goes first. The diagonal is that of `hessian_diagonal`.
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
    """``|theta_i dR/dtheta_i|``, R the sum of the outputs at ones with all weights made positive.

    No example is looked at. In a feed-forward network of ReLUs the scores of every layer add up to R, which is why a
    layer is not emptied as long as it is done in rounds (Tanaka et al. 2006.05467). In float64: R overflows
    float32 in deep networks.
    """
    at = point.to(dtype=torch.float64)
    return (at.theta * flow.grad(at)).abs()


def hessian_diagonal(
    field: Field, point: Point, generator: torch.Generator, mask: Bool[Tensor, "D"]
) -> Float[Tensor, "D"]:
    """``H_ii`` on the coordinates of the mask, in float64; 0 elsewhere.

    Exact, column by column, up to `EXACT` coordinates; beyond, the mean of ``z * H z`` over `PROBES` vectors of signs
    in the mask's coordinates (Bekas et al. 2007), of variance ``sum_{j != i} H_ij^2 / PROBES``.
    """
    index = mask.nonzero().squeeze(1)
    exact = len(index) <= EXACT
    count = len(index) if exact else PROBES
    total = point.theta.new_zeros(field.dim, dtype=torch.float64)
    for first in range(0, count, AT_ONCE):
        z = point.theta.new_zeros((min(AT_ONCE, count - first), field.dim))
        if exact:
            z[torch.arange(len(z), device=z.device), index[first : first + len(z)]] = 1.0
        else:
            draw = torch.randint(0, 2, (len(z), len(index)), generator=generator) * 2 - 1
            z[:, index] = draw.to(z)
        total += (z * field.hvp(point, z)).sum(0, dtype=torch.float64)
    return total if exact else total / count
