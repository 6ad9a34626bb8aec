"""The tridiagonal matrix of a Lanczos run: its eigenpairs and its Gauss rules."""

from __future__ import annotations

import numpy as np


def eigenpairs(diagonal: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [m], ascending, and eigenvectors [m, m], as columns.

    ``side`` [m] ends with the entry that leads out of the matrix, which is not part of it.

    >>> eigenpairs(np.array([1.0, 1.0]), np.array([0.5, 9.0]))[0].tolist()
    [0.5, 1.5]
    """
    values, s = np.linalg.eigh(np.diag(diagonal) + np.diag(side[:-1], 1) + np.diag(side[:-1], -1))
    return values, s


def gauss_rule(diagonal: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, ascending, and weights of the Gauss rule: Ritz values and squared first components."""
    values, s = eigenpairs(diagonal, side)
    return values, s[0] ** 2


def radau_rule(diagonal: np.ndarray, side: np.ndarray, node: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, ascending, and weights of the Gauss-Radau rule with one more node at ``node`` (Golub 1973, section 2).

    Take a spectrum above ``node`` and a function with negative even and positive odd derivatives, such as a logarithm.
    Then this rule lies below the integral and Gauss's rule above it (Golub and Meurant 1994).
    """
    a = diagonal - node
    matrix = np.diag(a) + np.diag(side[:-1], 1) + np.diag(side[:-1], -1)
    unit = np.zeros(len(a))
    unit[-1] = side[-1] ** 2
    last = node + np.linalg.lstsq(matrix, unit, rcond=1e-15)[0][-1]
    return gauss_rule(np.append(diagonal, last), np.append(side, 0.0))
