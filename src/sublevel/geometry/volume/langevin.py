"""Langevin sampling of a local, tempered posterior, by stochastic gradients.

Welling and Teh 2011; as a probe of a minimum, Lau et al. 2308.12108. The density is
exp(-N beta L(w) - gamma/2 |w - w0|^2) around the start w0, and a step of size eta

    w <- w - (eta/2) (N beta grad L(w) + gamma (w - w0)) + N(0, eta).

Without a correction its own law is that of another step size: on a quadratic with a_i = N beta h_i + gamma the
variance of coordinate i is 1 / (a_i (1 - eta a_i / 4)), and it diverges where eta a_i >= 4. With the Metropolis
correction (MALA; Roberts and Tweedie 1996) the law is the density itself at every step size; it needs the whole loss.
A `Scaling` takes shorter steps along the steep directions, which lets all others take longer ones. A step is a pure
function (state, input) -> (state, info); chains go one after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import NamedTuple

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, subspace_operator
from sublevel.rng import generator
from sublevel.space import Point, as_point

BLOCK = 64
"""Steps whose noise is drawn at once."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """A preconditioner P = I + V^T (diag(factors) - I) V with orthonormal rows V [k, n] and ``factors`` [k] in (0, 1].

    A step with it is w <- w - (eta/2) P F + N(0, eta P), whose law is the same density.
    """

    vectors: Float[Tensor, "k n"]
    factors: Float[Tensor, "k"]

    def times(self, v: Float[Tensor, "n"], power: float = 1.0) -> Float[Tensor, "n"]:
        """``P^power v``."""
        return torch.addmv(v, self.vectors.t(), (self.factors**power - 1) * (self.vectors @ v))


@dataclass(frozen=True, eq=False)
class Target:
    """exp(-n_beta L(w) - gamma/2 |w - start|^2) on the coordinates of a subspace, and the step size."""

    stochastic: Stochastic
    start: Point
    of: Operator
    step_size: float
    n_beta: float
    gamma: float
    scaling: Scaling | None = None

    def scaled(self, v: Float[Tensor, "n"], power: float = 1.0) -> Float[Tensor, "n"]:
        """The preconditioner times v, or v where there is none."""
        return v if self.scaling is None else self.scaling.times(v, power)

    def at(self, away: Float[Tensor, "n"]) -> Point:
        """The point that lies ``away`` from the start."""
        return Point(self.start.theta + self.of.embed(away), self.start.buffers)


class ChainState(NamedTuple):
    """Where a chain stands: ``away`` [n] = w - start in the subspace, and what the batch of this state says there.

    ``potential`` is n_beta L + gamma/2 |w - start|^2, ``force`` [n] its gradient.
    """

    away: Tensor
    loss: Tensor
    potential: Tensor
    force: Tensor


class Info(NamedTuple):
    """What a step tells: the logarithm of the ratio that a Metropolis correction accepts it by."""

    log_acceptance: Tensor


def begin(target: Target, away: Float[Tensor, "n"], batch: int) -> ChainState:
    """The state at a distance from the start, on a batch."""
    loss, gradient = target.stochastic.loss_and_grad(target.at(away), batch)
    force = torch.add(target.gamma * away, target.of.restrict(gradient), alpha=target.n_beta)
    loss = loss.double()
    return ChainState(away, loss, target.n_beta * loss + target.gamma / 2 * (away @ away), force)


def step(target: Target, state: ChainState, noise: Float[Tensor, "n"], batch: int) -> tuple[ChainState, Info]:
    """One Langevin step with a standard normal ``noise``; ``batch`` is what the new state sees.

    The acceptance is that of the Metropolis-adjusted algorithm (MALA), exact where every batch is the whole set: with
    f the sum of the forces at both ends, log alpha = U - U' + f . (sqrt(eta P)/2 noise - eta/8 P f).
    """
    eta = target.step_size
    kick = sqrt(eta) * target.scaled(noise, 0.5)
    new = begin(target, torch.add(state.away + kick, target.scaled(state.force), alpha=-eta / 2), batch)
    both = state.force + new.force
    drift = both @ torch.add(kick / 2, target.scaled(both), alpha=-eta / 8)
    return new, Info(state.potential - new.potential + drift)


def step_bias(target: Target, state: ChainState) -> Float[Tensor, ""]:
    """``eta/8 n_beta grad L . P F``: its mean is what an uncorrected step adds to n_beta E[L] on a quadratic.

    There the variance of a coordinate is too large by eta / (4 - eta a), and this has the mean eta/8 n_beta h a times
    that variance. The noise of batches, which adds to the variance too, is in it as well: as it is, or as more.
    """
    return target.step_size / 8 * (state.force - target.gamma * state.away) @ target.scaled(state.force)


@dataclass(frozen=True, eq=False)
class ChainTraces:
    """The traces of all chains after their burn-in.

    ``rises`` [chains, draws]: L(w) - L(start) along them, float64. ``acceptance``: the mean probability at which the
    Metropolis correction accepts a step, or would (nan where batches are not the whole set). ``step_bias``: the mean
    of `step_bias`, what the step adds to n_beta E[L]; 0 with the correction. ``last`` [chains, D]: where the chains
    ended. ``source``: what L was evaluated on.
    """

    rises: np.ndarray
    acceptance: float
    step_bias: float
    last: Float[Tensor, "chains D"]
    source: str
    step_size: float
    n_beta: float
    gamma: float
    burn_in: int


def sample(
    stochastic: Stochastic,
    start: PointLike,
    *,
    step_size: float,
    n_beta: float,
    gamma: float,
    chains: int = 4,
    burn_in: int = 500,
    draws: int = 1000,
    seed: int = 0,
    mask: Bool[Tensor, "D"] | None = None,
    field: Field | None = None,
    every: int = 1,
    adjust: bool = False,
    starts: Float[Tensor, "chains n"] | None = None,
    scaling: Scaling | None = None,
) -> ChainTraces:
    """``chains`` Langevin chains of ``burn_in`` + ``draws`` * ``every`` steps around ``start``.

    ``n_beta`` is N beta, N the number of training examples and not of a batch. In a ``mask``'s subspace only its
    coordinates move. Every chain has its own noise and its own batches. L is evaluated on

    - ``field``, the whole deterministic loss, at every ``every``-th step: without bias, at the price of a pass
      (nothing more where every batch is the whole set: `EveryExample`);
    - the batch, where no field is given: L_B(w) - L_B(start) on one and the same batch B, drawn before w has moved on
      it. For batches drawn independently that has no bias either, and its noise is that of a difference. In a planned
      epoch the batch is one of those that w has not moved on yet, which raises it by a term of order eta, and a smaller
      last batch counts as much as the others. (On the batch that w has just moved on, the loss would be too low.)

    ``adjust`` makes the Metropolis correction, which needs every batch to be the whole set. It begins half-way through
    the burn-in: far from equilibrium, as at a minimum in many dimensions, it would hold a chain where it is.
    ``starts`` are where chains begin, in the subspace and relative to ``start`` (by default all begin there).

    Raises TypeError for what is no stochastic field, ValueError for sizes or counts that are not positive, no subspace,
    starts of another shape or a correction that batches do not allow, FloatingPointError where a loss is not finite.
    """
    _check(step_size, n_beta, gamma, {"chains": chains, "draws": draws, "every": every}, burn_in)
    if not isinstance(stochastic, Stochastic):
        got = type(stochastic).__name__
        raise TypeError(f"chains follow a stochastic field (EveryExample makes one of a field), got {got}")
    if field is not None:
        require_field(field, "sample")
    point = as_point(start)
    of = subspace_operator(lambda v: v, point.theta, mask, "sampler")
    if adjust and not isinstance(stochastic, EveryExample):
        raise ValueError("the Metropolis correction needs the whole loss in every batch; batches have none")
    if starts is None:
        starts = point.theta.new_zeros(chains, of.dimension)
    if starts.shape != (chains, of.dimension):
        raise ValueError(f"starts have shape {list(starts.shape)}, expected {[chains, of.dimension]}")
    target = Target(stochastic, point, of, step_size, n_beta, gamma, scaling)
    length = burn_in + draws * every
    runs = [_chain(target, c, starts[c], burn_in, length, every, seed, field, adjust) for c in range(chains)]
    return ChainTraces(
        rises=np.stack([rises for rises, _, _, _ in runs]),
        acceptance=float(np.mean([accepted for _, accepted, _, _ in runs]))
        if isinstance(stochastic, EveryExample)
        else nan,
        step_bias=float(np.mean([bias for _, _, bias, _ in runs])),
        last=torch.stack([last for _, _, _, last in runs]),
        source="batches" if field is None and not isinstance(stochastic, EveryExample) else "field",
        step_size=step_size,
        n_beta=n_beta,
        gamma=gamma,
        burn_in=burn_in,
    )


def _chain(
    target: Target,
    chain: int,
    away: Tensor,
    burn_in: int,
    length: int,
    every: int,
    seed: int,
    field: Field | None,
    adjust: bool,
) -> tuple[np.ndarray, float, float, Tensor]:
    """Rises, mean acceptance and mean step bias after the burn-in, and the last theta."""
    first = chain * (length + 1)
    reference = _Reference(target, field)
    state = begin(target, away, first)
    bars = _bars(target.of, burn_in, length, seed, chain) if adjust else None
    rises, log_acceptance, biases = [], [], []
    for i, noise in enumerate(_noise(target.of, length, seed, chain), start=1):
        new, info = step(target, state, noise, first + i)
        state = new if bars is None else _chosen(info.log_acceptance >= bars[i - 1], new, state)
        if i > burn_in:
            log_acceptance.append(info.log_acceptance)
            if bars is None:
                biases.append(step_bias(target, state))
            if (i - burn_in) % every == 0:
                rises.append(reference.rise(state, first + i))
    found = torch.stack(rises).cpu().numpy()
    if not np.isfinite(found).all():
        at = burn_in + (int(np.flatnonzero(~np.isfinite(found))[0]) + 1) * every
        raise FloatingPointError(
            f"the loss of chain {chain} is not finite at step {at}: step_size {target.step_size:g} is too large"
        )
    bias = float(torch.stack(biases).double().mean()) if biases else 0.0
    accepted = torch.stack(log_acceptance).clamp_max(0).exp().nan_to_num(nan=0.0).mean()
    return found, float(accepted), bias, target.at(state.away).theta


def _bars(of: Operator, burn_in: int, length: int, seed: int, chain: int) -> Float[Tensor, "steps"]:
    """What log alpha must reach at every step: log u with u uniform, and before half of the burn-in next to nothing.

    There a step that loses more than the dimension is one that diverges.
    """
    bars = torch.rand(length, generator=generator(seed, "probe:metropolis", chain), dtype=torch.float64).log()
    bars[: burn_in // 2] = -float(of.dimension + 10)
    return bars.to(of.like.device)


def _chosen(accept: Tensor, new: ChainState, old: ChainState) -> ChainState:
    """The new state where it is accepted; nothing is read back from the device."""
    return ChainState(*(torch.where(accept, a, b) for a, b in zip(new, old, strict=True)))


def sees_all(stochastic: Stochastic, field: Field | None = None) -> bool:
    """Whether every batch is the whole of the field (of any field, where none is given)."""
    return isinstance(stochastic, EveryExample) and (field is None or stochastic.field is field)


class _Reference:
    """L(w) - L(start) on the same examples."""

    def __init__(self, target: Target, field: Field | None) -> None:
        self.target, self.field = target, field
        self.whole = sees_all(target.stochastic, field)
        self.base = (
            self._at_start(0)
            if field is None or self.whole
            else torch.tensor(field.loss(target.start), dtype=torch.float64)
        )

    def rise(self, state: ChainState, batch: int) -> Tensor:
        if self.whole:
            return state.loss - self.base
        if self.field is None:
            return state.loss - self._at_start(batch)
        return _scalar(self.field.loss(self.target.at(state.away))) - self.base

    def _at_start(self, batch: int) -> Tensor:
        return self.target.stochastic.loss_and_grad(self.target.start, batch)[0].double()


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _noise(of: Operator, length: int, seed: int, chain: int) -> Iterator[Float[Tensor, "n"]]:
    rng = generator(seed, "probe:langevin", chain)
    for begun in range(0, length, BLOCK):
        block = torch.randn(min(BLOCK, length - begun), of.dimension, generator=rng, dtype=torch.float64)
        yield from block.to(of.like)


def _check(step_size: float, n_beta: float, gamma: float, counts: dict[str, int], burn_in: int) -> None:
    check_counts(**counts)
    if burn_in < 0:
        raise ValueError(f"burn_in must not be negative, got {burn_in}")
    for name, number in (("step_size", step_size), ("n_beta", n_beta)):
        if not (isfinite(number) and number > 0):
            raise ValueError(f"{name} must be positive and finite, got {number}")
    if not (isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma must be finite and not negative, got {gamma}")
