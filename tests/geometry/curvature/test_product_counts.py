"""How many operator products twenty eigenvalues take, beside ARPACK's at the same residual.

ARPACK neither computes residuals nor looks for copies of multiple eigenvalues. Residuals cost one product here, which
is counted; what the search for copies costs is held to a bound of its own.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from cases import dense, named, spread
from sublevel.geometry.curvature.top_eigenpairs import top_eigenpairs

F64 = torch.float64
K = 20


def diagonal(*values):
    h = torch.tensor(values, dtype=F64)
    return len(h), lambda v: v * h


def net(name):
    h = dense(named(name), "stored")[2]
    return len(h), lambda v: v @ h


OPERATORS = {
    "outliers over a bulk of eight decades": diagonal(*spread(-8, -1, 2970), *spread(-0.7, 1.5, 30)),
    "ten outliers, the other ten in the bulk": diagonal(*spread(-6, 0, 2990), *np.linspace(3, 40, 10)),
    "a fifth negative": diagonal(*(-v for v in spread(-7, 0, 600)), *spread(-8, -1, 2370), *spread(-0.7, 1.5, 30)),
    "a perceptron": net("wide"),
    "a convolution": net("convolution"),
}


def draw(n, seed):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=F64)


def arpack(operator, n, bound, seed):
    """The fewest products of eigsh, over its tolerances, with true residuals of at most ``bound``."""
    for exponent in np.arange(-1, -14, -0.25):
        count = 0

        def product(x):
            nonlocal count
            count += 1
            return operator(torch.from_numpy(np.array(x).reshape(-1))).numpy()

        linear = LinearOperator((n, n), matvec=product, dtype=np.float64)
        values, vectors = eigsh(linear, k=K, which="LA", tol=10.0**exponent, v0=draw(n, seed).numpy())
        taken, v = count, torch.from_numpy(vectors.T.copy())
        if (operator(v) - torch.from_numpy(values)[:, None] * v).norm(dim=1).max() <= bound:
            return taken
    raise AssertionError("no tolerance is enough")


@pytest.mark.parametrize("tolerance", [1e-5, 1e-7])
@pytest.mark.parametrize("name", OPERATORS)
def test_no_more_products_than_arpack(name, tolerance):
    n, operator = OPERATORS[name]
    for seed in (0, 10):
        options = {"k": K, "tolerance": tolerance, "steps": 400}
        found = top_eigenpairs(operator, lambda run, seed=seed: draw(n, seed + run), restarts=0, **options)
        searched = top_eigenpairs(operator, lambda run, seed=seed: draw(n, seed + run), **options)
        assert found.stop == "restarts: no search for copies of eigenvalues was made"
        assert searched.stop == "converged"
        theirs = arpack(operator, n, float(found.residuals.max()), seed)
        assert found.products == found.pair_products + 1
        assert found.products <= 1.05 * theirs
        assert searched.products <= 1.8 * theirs
