"""Spectra that estimators went wrong on, and what a trial of each comes to. Shared with benchmarks/estimators.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats

from sublevel.field import Quadratic
from sublevel.geometry.curvature import Spectrum, log_determinant_of, spectral_density, top_eigenvalues

F32, F64 = torch.float32, torch.float64


@dataclass(frozen=True)
class Multiple:
    """A spectrum with multiple eigenvalues among or beside the k largest: ``values(generator)``."""

    name: str
    k: int
    values: Callable[[torch.Generator], torch.Tensor]

    def __str__(self) -> str:
        return self.name


def of(*parts: tuple[float, int], dtype: torch.dtype = F32) -> Callable[[torch.Generator], torch.Tensor]:
    """Eigenvalues with how often each stands."""
    return lambda rng: torch.cat([torch.full((count,), value, dtype=dtype) for value, count in parts])


def over_noise(*parts: tuple[float, int], noise: float, n: int, dtype: torch.dtype = F32):
    """The same over n eigenvalues drawn between 0 and ``noise``."""
    return lambda rng: torch.cat([of(*parts, dtype=dtype)(rng), noise * torch.rand(n, generator=rng, dtype=dtype)])


MULTIPLE = [
    Multiple("1, .02 twice, 0; n = 1e5, float32", 3, of((1.0, 1), (0.02, 2), (0.0, 99_997))),
    Multiple("the same over a bulk of 1e-5", 3, over_noise((1.0, 1), (0.02, 2), noise=1e-5, n=99_997)),
    Multiple("1.001 twice, 1 300 times, 0; float32", 2, of((1.001, 2), (1.0, 300), (0.0, 700))),
    Multiple("1 + 1e-5 twice, 1 3000 times; float64", 2, of((1 + 1e-5, 2), (1.0, 3000), dtype=F64)),
    Multiple("the same, its first alone", 1, of((1 + 1e-5, 2), (1.0, 3000), dtype=F64)),
    Multiple("integers, n = 168, float32", 8, lambda rng: torch.randint(0, 60, (168,), generator=rng).to(F32)),
    Multiple("integers, n = 300, float64", 8, lambda rng: torch.randint(0, 200, (300,), generator=rng).to(F64)),
    Multiple(
        "3, 2 twice, 1 three times over a bulk of .5; n = 1e4, float64",
        6,
        over_noise((3.0, 1), (2.0, 2), (1.0, 3), noise=0.5, n=9994, dtype=F64),
    ),
    Multiple("5e-3, 2e-3 twice beside -1e6; float64", 3, of((-1e6, 4), (5e-3, 1), (2e-3, 2), (0.0, 1000), dtype=F64)),
    Multiple("40, 4 twice in units of 1e-200; float64", 3, of((40e-200, 1), (4e-200, 2), (1e-202, 997), dtype=F64)),
]


def searched(spec: Multiple, seed: int) -> tuple[Spectrum, bool]:
    """The spectrum from a start, and whether a pair is wrong that is called converged: off by more than its bound."""
    h = spec.values(torch.Generator().manual_seed(seed))
    found = top_eigenvalues(Quadratic(h), torch.zeros_like(h), k=spec.k, seed=seed)
    truth = h.double().sort(descending=True).values[: spec.k]
    off = (found.values - truth).abs() > 1.01 * found.bounds
    return found, bool((off & torch.tensor(found.pair_converged)).any())


def _bulk(low: float, high: float, n: int) -> torch.Tensor:
    return torch.logspace(low, high, n, dtype=F64)


LOG_DETERMINANTS: dict[str, tuple[torch.Tensor, float]] = {
    "a few outliers": (torch.cat([torch.full((998,), 1e-2, dtype=F64), torch.full((2,), 1e4, dtype=F64)]), 1e-3),
    "many outliers": (torch.cat([_bulk(-2, -1, 360), _bulk(0, 2, 40)]), 1e-1),
    "decades": (_bulk(-2, 1, 400), 1e-2),
    "a bulk with negative values": (
        torch.cat([_bulk(0.5, 3, 6), torch.linspace(-0.05, 0.5, 394, dtype=F64)]),
        1e-1,
    ),
    "low rank and noise": (
        torch.cat([_bulk(0, 3, 12), 1e-3 * torch.linspace(0, 1, 388, dtype=F64)]),
        1e-3,
    ),
    "flat": (torch.linspace(0.9, 1.1, 400, dtype=F64), 1e-3),
}
"""Spectra by name, each with a damping: six kinds that a log-determinant's interval must cover."""


def covered(name: str, seed: int, *, probes: int = 4, steps: int = 40) -> tuple[bool, str]:
    """Whether the 95% t interval from a few probes holds the log-determinant, and the reason not to trust it."""
    h, damping = LOG_DETERMINANTS[name]
    truth = float((h.clamp_min(0) + damping).log().sum())
    spectrum = spectral_density(Quadratic(h), torch.zeros_like(h), probes=probes, steps=steps, seed=seed)
    found = log_determinant_of(spectrum, damping)
    wide = float(stats.t.ppf(0.975, probes - 1)) * found.se + 1e-9 * abs(truth)
    return abs(found.value - truth) <= wide, found.reason
