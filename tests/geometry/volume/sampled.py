"""Closed-form losses for chains of many steps: value and gradient in one call, without autograd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jaxtyping
import numpy as np
import torch

from sublevel.field import Autograd, EveryExample, Quadratic, Stochastic
from sublevel.geometry.volume import Volume, langevin
from sublevel.geometry.volume.langevin import ChainOptions
from sublevel.geometry.volume.local_learning_coefficient import LearningCoefficient

F64 = torch.float64


def number(found: Volume | LearningCoefficient, name: str) -> float:
    """A diagnostic that is a number."""
    value = found.diagnostics[name]
    assert isinstance(value, float)
    return value


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of shapes, which cost ten times a step: for long chains, beside short ones with the checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def sample(stochastic, start, *, mask=None, field=None, starts=None, **options):
    """The package's own, with the options by keyword."""
    return langevin.sample(stochastic, start, ChainOptions(**options), mask=mask, field=field, starts=starts)


class Closed(EveryExample):
    """A field of the package whose loss and gradient are also written out by hand."""

    def __init__(self, field, both, examples=None):
        super().__init__(field, examples)
        self.both = both

    def loss_and_grad(self, at, step):
        return self.both(at if isinstance(at, torch.Tensor) else at.theta)


def bowl(values, examples=None):
    """1/2 sum h w^2."""
    h = torch.as_tensor(values, dtype=F64)

    def both(w):
        slope = h * w
        return (slope @ w) / 2, slope

    return Closed(Quadratic(h), both, examples)


def crossing(p, q, copies=1):
    """x^p y^q for even p and q, two crossing lines of minima; the sum of independent copies, whose energies add up."""

    def loss(w):
        x, y = w.view(2, copies)
        return (x**p * y**q).sum()

    def both(w):
        x, y = w.numpy().reshape(2, copies)
        slopes = np.concatenate([p * x ** (p - 1) * y**q, q * x**p * y ** (q - 1)])
        return w.new_tensor((x**p * y**q).sum()), torch.from_numpy(slopes)

    return Closed(Autograd(loss, 2 * copies), both)


def rank_regression(inputs, outputs, hidden, copies=1):
    """1/2 |B A|^2: reduced-rank regression of the zero map on white inputs, A [hidden, inputs] and B [outputs, hidden].

    The sum of independent copies.
    """
    cut = copies * hidden * inputs

    def parts(w):
        return w[:cut].view(copies, hidden, inputs), w[cut:].view(copies, outputs, hidden)

    def loss(w):
        a, b = parts(w)
        return (b @ a).square().sum() / 2

    def both(w):
        a, b = parts(w)
        product = b @ a
        slopes = torch.cat([(b.mT @ product).reshape(-1), (product @ a.mT).reshape(-1)])
        return product.square().sum() / 2, slopes

    return Closed(Autograd(loss, cut + copies * outputs * hidden), both)


class Examples(Stochastic):
    """Linear regression, 1/2 (x . w - y)^2, in batches: independent draws, or epochs whose last batch is small."""

    def __init__(self, x, y, size, *, independent):
        self.x, self.y, self.size, self.independent = x, y, size, independent
        self.per_epoch = -(-len(x) // size)

    @property
    def dim(self):
        return self.x.shape[1]

    @property
    def examples(self):
        return len(self.x)

    def loss_and_grad(self, at, step):
        rng = torch.Generator().manual_seed(step if self.independent else step // self.per_epoch)
        if self.independent:
            rows = torch.randint(len(self.x), (self.size,), generator=rng)
        else:
            at_ = step % self.per_epoch * self.size
            rows = torch.randperm(len(self.x), generator=rng)[at_ : at_ + self.size]
        x = self.x[rows]
        off = x @ at.theta - self.y[rows]
        return off.square().mean() / 2, x.T @ off / len(rows)

    def field(self):
        h = self.x.T @ self.x / len(self.x)
        best = torch.linalg.solve(h, self.x.T @ self.y / len(self.x))
        lowest = float((self.x @ best - self.y).square().mean() / 2)
        return Quadratic(h, best, offset=lowest), best
