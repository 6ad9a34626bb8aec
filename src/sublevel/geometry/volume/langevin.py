"""Langevin sampling of a local, tempered posterior with stochastic gradients.

Welling and Teh 2011; as a probe of a minimum, Lau et al. 2308.12108. The density is
exp(-N beta L(w) - gamma/2 |w - w0|^2) around the start w0, and a step of size eta is

    w <- w - (eta/2) (N beta grad L(w) + gamma (w - w0)) + N(0, eta).

Uncorrected steps have a bias. On a quadratic with a_i = N beta h_i + gamma the stationary variance of coordinate i is
1 / (a_i (1 - eta a_i / 4)), and the chain diverges if eta a_i >= 4. The Metropolis correction (MALA; Roberts and
Tweedie 1996) makes the density exact at every step size; it needs the whole loss. A `Scaling` takes shorter steps along
the steep directions, which allows longer steps along all others. A step is a pure function (state, input) -> (state,
info); chains run one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import NamedTuple

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import EveryExample, Field, PointLike, Stochastic, require_field
from sublevel.geometry.curvature.operators import Operator, check_counts, subspace_operator
from sublevel.geometry.volume.estimators import check_positive
from sublevel.rng import generator
from sublevel.space import Point, as_point

BLOCK = 64
"""Steps of noise per draw."""

PIECE = 2**22
"""Approximate size of the pieces in which noise is drawn, in numbers."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """A preconditioner P = I + V^T (diag(factors) - I) V with orthonormal rows V [k, n] and ``factors`` [k] in (0, 1].

    A step with it is w <- w - (eta/2) P F + N(0, eta P), which samples the same density.
    """

    vectors: Float[Tensor, "k n"]
    factors: Float[Tensor, "k"]

    def times(self, v: Float[Tensor, "n"], power: float = 1.0) -> Float[Tensor, "n"]:
        """``P^power v``."""
        return torch.addmv(v, self.vectors.t(), (self.factors**power - 1) * (self.vectors @ v))


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainOptions:
    """The density exp(-n_beta L(w) - gamma/2 |w - start|^2), and the steps, number and length of its chains.

    ``n_beta`` is N beta with the number N of training examples, not of a batch. A chain has ``burn_in`` + ``draws`` *
    ``every`` steps. ``adjust`` makes the Metropolis correction.

    Raises ValueError for a size or count that is not positive, or a negative gamma or burn-in.
    """

    step_size: float
    n_beta: float
    gamma: float
    chains: int = 4
    burn_in: int = 500
    draws: int = 1000
    every: int = 1
    seed: int = 0
    adjust: bool = False
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        check_counts(chains=self.chains, draws=self.draws, every=self.every)
        if self.burn_in < 0:
            raise ValueError(f"burn_in must not be negative, got {self.burn_in}")
        check_positive(step_size=self.step_size, n_beta=self.n_beta)
        if not (isfinite(self.gamma) and self.gamma >= 0):
            raise ValueError(f"gamma must be finite and not negative, got {self.gamma}")

    @property
    def length(self) -> int:
        """Steps of a chain."""
        return self.burn_in + self.draws * self.every


@dataclass(frozen=True, eq=False)
class Target:
    """The density of some options on the coordinates of a subspace, around ``start``."""

    stochastic: Stochastic
    start: Point
    of: Operator
    options: ChainOptions

    def scaled(self, v: Float[Tensor, "n"], power: float = 1.0) -> Float[Tensor, "n"]:
        """The preconditioner times v; v if there is none."""
        return v if self.options.scaling is None else self.options.scaling.times(v, power)

    def at(self, away: Float[Tensor, "n"]) -> Point:
        """The point at the displacement ``away`` from the start."""
        return Point(self.start.theta + self.of.embed(away), self.start.buffers)


class ChainState(NamedTuple):
    """The state of a chain: ``away`` [n] = w - start in the subspace, and the loss of this state's batch there.

    ``potential`` is n_beta L + gamma/2 |w - start|^2, ``force`` [n] its gradient.
    """

    away: Tensor
    loss: Tensor
    potential: Tensor
    force: Tensor


class Info(NamedTuple):
    """The diagnostics of a step: the log of its Metropolis acceptance ratio."""

    log_acceptance: Tensor


def begin(target: Target, away: Float[Tensor, "n"], batch: int) -> ChainState:
    """The state at a displacement from the start, on a batch."""
    gamma, n_beta = target.options.gamma, target.options.n_beta
    loss, gradient = target.stochastic.loss_and_grad(target.at(away), batch)
    force = torch.add(gamma * away, target.of.restrict(gradient), alpha=n_beta)
    loss = loss.double()
    return ChainState(away, loss, n_beta * loss + gamma / 2 * (away @ away), force)


def step(target: Target, state: ChainState, noise: Float[Tensor, "n"], batch: int) -> tuple[ChainState, Info]:
    """One Langevin step with standard normal ``noise``; the new state sees ``batch``.

    The acceptance is that of the Metropolis-adjusted algorithm (MALA), exact if every batch is the whole set: with the
    sum f of the forces at both ends, log alpha = U - U' + f . (sqrt(eta P)/2 noise - eta/8 P f).
    """
    eta = target.options.step_size
    kick = sqrt(eta) * target.scaled(noise, 0.5)
    new = begin(target, torch.add(state.away + kick, target.scaled(state.force), alpha=-eta / 2), batch)
    both = state.force + new.force
    drift = both @ torch.add(kick / 2, target.scaled(both), alpha=-eta / 8)
    return new, Info(state.potential - new.potential + drift)


def step_bias(target: Target, state: ChainState) -> Float[Tensor, ""]:
    """``eta/8 n_beta grad L . P F``: its mean is the bias of n_beta E[L] by uncorrected steps on a quadratic.

    There the variance of a coordinate is too large by eta / (4 - eta a), and this has the mean eta/8 n_beta h a times
    that variance. It also includes the noise of batches, which adds to the variance, at its size or above it.
    """
    options = target.options
    return options.step_size / 8 * (state.force - options.gamma * state.away) @ target.scaled(state.force)


@dataclass(frozen=True, eq=False)
class ChainTraces:
    """The traces of all chains after their burn-in.

    ``rises`` [chains, draws]: L(w) - L(start), float64. ``acceptance``: the mean Metropolis acceptance probability of a
    step, also without the correction (nan if batches are not the whole set). ``step_bias``: the mean of `step_bias`,
    the bias of n_beta E[L]; 0 with the correction. ``last`` [chains, D]: the ends of the chains. ``source``: ``field``
    or ``batches``, on which L was evaluated.
    """

    rises: np.ndarray
    acceptance: float
    step_bias: float
    last: Float[Tensor, "chains D"]
    source: str
    options: ChainOptions


def sample(
    stochastic: Stochastic,
    start: PointLike,
    options: ChainOptions,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    field: Field | None = None,
    starts: Float[Tensor, "chains n"] | None = None,
) -> ChainTraces:
    """Run Langevin chains around ``start``, in the subspace of ``mask``.

    Each chain has its own noise and its own batches. L is evaluated on

    - ``field``, the whole deterministic loss, at every ``every``-th step: without bias, for one pass over the data (no
      pass if every batch is the whole set: `EveryExample`);
    - the batch, if no field is given: L_B(w) - L_B(start) on one batch B, before w has moved on it. For batches drawn
      independently this is unbiased, and its noise is that of a difference. In a planned epoch the batch is one of
      those that w has not moved on yet, which adds a term of order eta, and a smaller last batch counts as much as the
      others. (On a batch that w has just moved on, the loss would be too low.)

    The Metropolis correction (``adjust``) needs every batch to be the whole set. It begins half-way through the
    burn-in: far from equilibrium, as at a minimum in many dimensions, it would hold a chain in place. ``starts`` are
    the starts of the chains in the subspace, relative to ``start`` (default: zero).

    Raises TypeError if ``stochastic`` is not a `Stochastic`, ValueError for an empty subspace, starts of another shape,
    or a correction with batches, FloatingPointError for a loss that is not finite.
    """
    if not isinstance(stochastic, Stochastic):
        got = type(stochastic).__name__
        raise TypeError(f"chains follow a stochastic field (EveryExample makes one of a field), got {got}")
    if field is not None:
        require_field(field, "sample")
    point, whole = as_point(start), isinstance(stochastic, EveryExample)
    of = subspace_operator(lambda v: v, point.theta, mask, "sampler")
    if options.adjust and not whole:
        raise ValueError("the Metropolis correction needs the whole loss in every batch; batches have none")
    if starts is None:
        starts = point.theta.new_zeros(options.chains, of.dimension)
    if starts.shape != (options.chains, of.dimension):
        raise ValueError(f"starts have shape {list(starts.shape)}, expected {[options.chains, of.dimension]}")
    target = Target(stochastic, point, of, options)
    runs = [_chain(target, c, starts[c], field) for c in range(options.chains)]
    return ChainTraces(
        rises=np.stack([rises for rises, _, _, _ in runs]),
        acceptance=float(np.mean([accepted for _, accepted, _, _ in runs])) if whole else nan,
        step_bias=float(np.mean([bias for _, _, bias, _ in runs])),
        last=torch.stack([last for _, _, _, last in runs]),
        source="field" if whole or field is not None else "batches",
        options=options,
    )


def _chain(
    target: Target, chain: int, away: Tensor, field: Field | None
) -> tuple[np.ndarray, float, float, Float[Tensor, "D"]]:
    """Rises, mean acceptance and mean step bias after the burn-in, and the last theta."""
    options, of = target.options, target.of
    first = chain * (options.length + 1)
    rise = _rises(target, field)
    state = begin(target, away, first)
    bars = _bars(target, chain) if options.adjust else None
    rises, log_acceptance, biases = [], [], []
    for i, noise in enumerate(_noise(of, options.length, options.seed, chain), start=1):
        new, info = step(target, state, noise, first + i)
        if bars is None:
            state = new
        else:  # nothing is read back from the device
            accept = info.log_acceptance >= bars[i - 1]
            state = ChainState(*(torch.where(accept, a, b) for a, b in zip(new, state, strict=True)))
        if i > options.burn_in:
            log_acceptance.append(info.log_acceptance)
            if bars is None:
                biases.append(step_bias(target, state))
            if (i - options.burn_in) % options.every == 0:
                rises.append(rise(state, first + i))
    found = torch.stack(rises).cpu().numpy()
    if not np.isfinite(found).all():
        at = options.burn_in + (int(np.flatnonzero(~np.isfinite(found))[0]) + 1) * options.every
        raise FloatingPointError(
            f"the loss of chain {chain} is not finite at step {at}: step_size {options.step_size:g} is too large"
        )
    bias = float(torch.stack(biases).double().mean()) if biases else 0.0
    accepted = torch.stack(log_acceptance).clamp_max(0).exp().nan_to_num(nan=0.0).mean()
    return found, float(accepted), bias, target.at(state.away).theta


def _bars(target: Target, chain: int) -> Float[Tensor, "steps"]:
    """The least log alpha of an accepted step: log u with u uniform; far lower in the first half of the burn-in.

    There only a step that loses more than the dimension, which diverges, is rejected.
    """
    options = target.options
    rng = generator(options.seed, "probe:metropolis", chain)
    bars = torch.rand(options.length, generator=rng, dtype=torch.float64).log()
    bars[: options.burn_in // 2] = -float(target.of.dimension + 10)
    return bars.to(target.of.like.device)


def _rises(target: Target, field: Field | None) -> Callable[[ChainState, int], Tensor]:
    """L(w) - L(start) on the same examples, as a function of a state and its batch."""

    def at_start(batch: int) -> Tensor:
        return target.stochastic.loss_and_grad(target.start, batch)[0].double()

    stochastic = target.stochastic
    if isinstance(stochastic, EveryExample) and (field is None or stochastic.field is field):
        base = at_start(0)
        return lambda state, batch: state.loss - base
    if field is None:
        return lambda state, batch: state.loss - at_start(batch)
    base = torch.tensor(field.loss(target.start), dtype=torch.float64)
    return lambda state, batch: torch.tensor(field.loss(target.at(state.away)), dtype=torch.float64) - base


def _noise(of: Operator, length: int, seed: int, chain: int) -> Iterator[Float[Tensor, "n"]]:
    rng = generator(seed, "probe:langevin", chain)
    for begun in range(0, length, BLOCK):
        left = of.like.new_zeros(0)
        for size in pieces(min(BLOCK, length - begun) * of.dimension):
            drawn = torch.randn(size, generator=rng, dtype=torch.float64).to(of.like)
            left = torch.cat([left, drawn])
            whole = len(left) // of.dimension * of.dimension
            yield from left[:whole].view(-1, of.dimension)
            left = left[whole:]


def pieces(numbers: int, most: int = PIECE) -> Iterator[int]:
    """Sizes of draws of at most about ``most`` normal numbers, which together are one draw of ``numbers``.

    torch draws in groups of 16, and draws the last 16 again if their number is no multiple of 16.

    >>> list(pieces(75, 32))
    [32, 43]
    """
    while numbers >= most + 16:
        yield most
        numbers -= most
    yield numbers
