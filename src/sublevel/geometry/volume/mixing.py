"""Diagnostics of mixing: split R-hat and the effective sample size."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np


def split_r_hat(traces: np.ndarray) -> float:
    """Split R-hat of traces [chains, draws] (Gelman et al. 2013, section 11.4): near 1 if the chains agree.

    sqrt(((m - 1)/m W + B/m) / W), with the variance W within and B between the halves of the chains, of m draws each.
    nan for fewer than four draws, 1 for constant traces.

    >>> round(split_r_hat(np.array([[0.0, 1.0, 0.0, 1.0], [5.0, 6.0, 5.0, 6.0]])), 3)
    4.143
    """
    halves = _halves(traces)
    if halves.shape[1] < 2:
        return nan
    within, total = _variances(halves)
    return sqrt(total / within) if within > 0 else (1.0 if total == 0 else float("inf"))


def effective_sample_size(traces: np.ndarray) -> float:
    """The number of independent draws with the same error of the mean as the traces [chains, draws].

    M m / (1 + 2 sum_t rho_t) over the halves of the chains, with their joint autocorrelations, truncated by Geyer's
    initial monotone sequence (Vehtari et al. 1903.08008, section 3.2). It is small if the chains disagree.

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
    spectrum = np.fft.rfft(halves - halves.mean(axis=1, keepdims=True), n=2 * m, axis=1)
    autocovariance = np.fft.irfft(np.abs(spectrum) ** 2, n=2 * m, axis=1)[:, :m] / m
    rho = 1 - (within - autocovariance.mean(axis=0) * m / (m - 1)) / total
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
    """The variance within chains, and the total variance estimated from within and between."""
    m = halves.shape[1]
    within = float(halves.var(axis=1, ddof=1).mean())
    return within, (m - 1) / m * within + float(halves.mean(axis=1).var(ddof=1))
