"""Langevin sampling of a local, tempered posterior, by stochastic gradients.

Welling and Teh 2011; as a probe of a minimum, Lau et al. 2308.12108. The density is
exp(-N beta L(w) - gamma/2 |w - w0|^2) around the start w0, and a step of size eta

    w <- w - (eta/2) (N beta grad L(w) + gamma (w - w0)) + N(0, eta).

It has no correction, so its own law is that of another step size: on a quadratic with a_i = N beta h_i + gamma the
variance of coordinate i is 1 / (a_i (1 - eta a_i / 4)), and it diverges where eta a_i >= 4. A step is a pure function
(state, input) -> (state, info); chains go one after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import NamedTuple

import numpy as np
import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field import At, EveryExample, Field, Stochastic, require_field
from sublevel.geometry.operators import Operator, check_counts, subspace_operator
from sublevel.rng import generator
from sublevel.space import Point, as_point

BLOCK = 64
"""Steps whose noise is drawn at once."""

MIXED = 1.05
"""The split R-hat above which chains are not taken to have forgotten where they began."""


@dataclass(frozen=True, eq=False)
class Target:
    """exp(-n_beta L(w) - gamma/2 |w - start|^2) on the coordinates of a subspace, and the step size."""

    stochastic: Stochastic
    start: Point
    of: Operator
    step_size: float
    n_beta: float
    gamma: float

    def at(self, away: Float[Tensor, "n"]) -> Point:
        """The point that lies ``away`` from the start."""
        return Point(self.start.theta + self.of.embed(away), self.start.buffers)


class State(NamedTuple):
    """Where a chain stands: ``away`` [n] = w - start in the subspace, and what the batch of this state says there.

    ``potential`` is n_beta L + gamma/2 |w - start|^2, ``force`` [n] its gradient.
    """

    away: Tensor
    loss: Tensor
    potential: Tensor
    force: Tensor


class Info(NamedTuple):
    """What a step tells: the logarithm of the ratio that a Metropolis correction would accept it by."""

    log_acceptance: Tensor


def begin(target: Target, away: Float[Tensor, "n"], batch: int) -> State:
    """The state at a distance from the start, on a batch."""
    loss, gradient = target.stochastic.loss_and_grad(target.at(away), batch)
    force = torch.add(target.gamma * away, target.of.restrict(gradient), alpha=target.n_beta)
    loss = loss.double()
    return State(away, loss, target.n_beta * loss + target.gamma / 2 * (away @ away), force)


def step(target: Target, state: State, noise: Float[Tensor, "n"], batch: int) -> tuple[State, Info]:
    """One Langevin step with a standard normal ``noise``; ``batch`` is what the new state sees.

    The acceptance is that of the Metropolis-adjusted algorithm (MALA), exact where every batch is the whole set: with
    f the sum of the forces at both ends, log alpha = U - U' + f . (sqrt(eta)/2 noise - eta/8 f).
    """
    eta = target.step_size
    kick = sqrt(eta) * noise
    new = begin(target, torch.add(state.away + kick, state.force, alpha=-eta / 2), batch)
    both = state.force + new.force
    drift = both @ torch.add(kick / 2, both, alpha=-eta / 8)
    return new, Info(state.potential - new.potential + drift)


@dataclass(frozen=True, eq=False)
class Samples:
    """The traces of all chains after their burn-in.

    ``rises`` [chains, draws]: L(w) - L(start) along them, float64. ``acceptance``: the mean probability at which a
    Metropolis correction would have accepted the steps; near 1 the step's bias is small (nan where batches are not the
    whole set). ``last`` [chains, D]: where the chains ended. ``source``: what L was evaluated on.
    """

    rises: np.ndarray
    acceptance: float
    last: Float[Tensor, "chains D"]
    source: str
    step_size: float
    n_beta: float
    gamma: float
    burn_in: int


def sample(
    stochastic: Stochastic,
    start: At,
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
) -> Samples:
    """``chains`` Langevin chains of ``burn_in`` + ``draws`` * ``every`` steps around ``start``.

    ``n_beta`` is N beta, N the number of training examples and not of a batch. In a ``mask``'s subspace only its
    coordinates move. Every chain has its own noise and its own batches. L is evaluated on

    - ``field``, the whole deterministic loss, at every ``every``-th step: without bias, at the price of a pass
      (nothing more where every batch is the whole set: `EveryExample`);
    - the batch, where no field is given: L_B(w) - L_B(start) on one and the same batch B, drawn before w has moved on
      it. For batches drawn independently that has no bias either, and its noise is that of a difference. In a planned
      epoch the batch is one of those that w has not moved on yet, which raises it by a term of order eta, and a smaller
      last batch counts as much as the others. (On the batch that w has just moved on, the loss would be too low.)

    Raises TypeError for what is no stochastic field, ValueError for sizes or counts that are not positive, or no
    subspace, FloatingPointError where a loss is not finite.
    """
    _check(step_size, n_beta, gamma, {"chains": chains, "draws": draws, "every": every}, burn_in)
    if not isinstance(stochastic, Stochastic):
        got = type(stochastic).__name__
        raise TypeError(f"chains follow a stochastic field (EveryExample makes one of a field), got {got}")
    if field is not None:
        require_field(field, "sample")
    point = as_point(start)
    of = subspace_operator(lambda v: v, point.theta, mask, "sampler")
    target = Target(stochastic, point, of, step_size, n_beta, gamma)
    length = burn_in + draws * every
    runs = [_chain(target, c, burn_in, length, every, seed, field) for c in range(chains)]
    return Samples(
        rises=np.stack([rises for rises, _, _ in runs]),
        acceptance=float(np.mean([accepted for _, accepted, _ in runs]))
        if isinstance(stochastic, EveryExample)
        else nan,
        last=torch.stack([last for _, _, last in runs]),
        source="batches" if field is None and not isinstance(stochastic, EveryExample) else "field",
        step_size=step_size,
        n_beta=n_beta,
        gamma=gamma,
        burn_in=burn_in,
    )


def _chain(
    target: Target, chain: int, burn_in: int, length: int, every: int, seed: int, field: Field | None
) -> tuple[np.ndarray, float, Tensor]:
    """Rises and mean acceptance after the burn-in, and the last theta."""
    first = chain * (length + 1)
    reference = _Reference(target, field)
    state = begin(target, target.start.theta.new_zeros(target.of.dimension), first)
    rises, log_acceptance = [], []
    for i, noise in enumerate(_noise(target.of, length, seed, chain), start=1):
        state, info = step(target, state, noise, first + i)
        if i > burn_in:
            log_acceptance.append(info.log_acceptance)
            if (i - burn_in) % every == 0:
                rises.append(reference.rise(state, first + i))
    found = torch.stack(rises).cpu().numpy()
    if not np.isfinite(found).all():
        at = burn_in + (int(np.flatnonzero(~np.isfinite(found))[0]) + 1) * every
        raise FloatingPointError(
            f"the loss of chain {chain} is not finite at step {at}: step_size {target.step_size:g} is too large"
        )
    accepted = torch.stack(log_acceptance).clamp_max(0).exp().mean()
    return found, float(accepted), target.at(state.away).theta


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

    def rise(self, state: State, batch: int) -> Tensor:
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


def split_r_hat(traces: np.ndarray) -> float:
    """Split R-hat of traces [chains, draws] (Gelman et al. 2013, section 11.4): near 1 where the chains agree.

    sqrt(((m - 1)/m W + B/m) / W), with the variance W within and B between the halves of the chains, of m draws each.
    nan for fewer than four draws, 1 where nothing varies.

    >>> round(split_r_hat(np.array([[0.0, 1.0, 0.0, 1.0], [5.0, 6.0, 5.0, 6.0]])), 3)
    4.143
    """
    halves = _halves(traces)
    if halves.shape[1] < 2:
        return nan
    within, total = _variances(halves)
    return sqrt(total / within) if within > 0 else (1.0 if total == 0 else float("inf"))


def effective_sample_size(traces: np.ndarray) -> float:
    """How many independent draws the mean of traces [chains, draws] is worth.

    M m / (1 + 2 sum_t rho_t) over the halves of the chains, with the autocorrelations of all of them together, cut by
    Geyer's initial monotone sequence (Vehtari et al. 1903.08008, section 3.2): chains that disagree count for little.

    >>> effective_sample_size(np.zeros((2, 100)))
    200.0
    """
    halves = _halves(traces)
    count, m = halves.shape
    if m < 4:
        return nan
    within, total = _variances(halves)
    if total == 0:
        return float(count * m)
    rho = 1 - (within - _autocovariance(halves).mean(axis=0) * m / (m - 1)) / total
    rho[0] = 1.0
    pairs = rho[: m // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    tau = max(2 * kept.sum() - 1, 1 / np.log10(count * m))
    return float(count * m / tau)


def _halves(traces: np.ndarray) -> np.ndarray:
    m = traces.shape[1] // 2
    return np.concatenate([traces[:, :m], traces[:, -m:]]) if m else traces[:, :0]


def _variances(halves: np.ndarray) -> tuple[float, float]:
    """Within chains, and the estimate of the whole from within and between."""
    m = halves.shape[1]
    within = float(halves.var(axis=1, ddof=1).mean())
    return within, (m - 1) / m * within + float(halves.mean(axis=1).var(ddof=1))


def _autocovariance(halves: np.ndarray) -> np.ndarray:
    m = halves.shape[1]
    centred = halves - halves.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * m, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, n=2 * m, axis=1)[:, :m] / m
