"""Lanczos in a fixed number of vectors finds the eigenvalues of a run without a limit."""

from __future__ import annotations

import pytest
import torch

import sublevel as sl
from sublevel.geometry.curvature.restarted import fewest_rows, restarted_eigenpairs

F64 = torch.float64
N = 300
DRAW = torch.Generator().manual_seed(0)
SPECTRA = {
    "outliers": torch.cat([torch.linspace(9, 30, 8, dtype=F64), torch.linspace(-1, 1, N - 8, dtype=F64)]),
    "decay": 40 * 0.9 ** torch.arange(N, dtype=F64) - 0.5,
    "copies": torch.cat([torch.tensor([7.0, 7, 7, 5, 5, 3], dtype=F64), torch.linspace(0, 1, N - 6, dtype=F64)]),
    "negative": torch.cat([torch.linspace(-30, -20, 5, dtype=F64), torch.linspace(-1, 8, N - 5, dtype=F64) ** 3 / 50]),
    "few": torch.cat([torch.tensor([4.0, 2.0, 1.0], dtype=F64), torch.zeros(N - 3, dtype=F64)]),
}  # fmt: skip


def quadratic(spectrum: torch.Tensor, dtype: torch.dtype = F64) -> sl.Quadratic:
    q = torch.linalg.qr(torch.randn(N, N, dtype=F64, generator=torch.Generator().manual_seed(1)))[0]
    return sl.Quadratic((q * spectrum @ q.T).to(dtype))


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rows", [11, 25])
def test_it_finds_the_eigenvalues_of_a_run_without_a_limit(name: str, rows: int):
    spectrum, at = SPECTRA[name].sort(descending=True).values, torch.zeros(N, dtype=F64)
    found = sl.curvature.top_eigenvalues(quadratic(spectrum), at, k=6, rows=rows, negative=2)
    assert found.converged, found.stop
    torch.testing.assert_close(found.values, spectrum[:6], rtol=1e-6, atol=1e-6)
    assert bool((found.residuals <= found.bounds).all())
    residuals = torch.stack(
        [quadratic(spectrum).hvp(at, v) - t * v for v, t in zip(found.vectors, found.values, strict=True)]
    )
    torch.testing.assert_close(residuals.norm(dim=1), found.residuals, rtol=1e-3, atol=1e-9)
    usual = sl.curvature.top_eigenvalues(quadratic(spectrum), at, k=6, negative=2)
    torch.testing.assert_close(found.values, usual.values, rtol=1e-6, atol=1e-6)
    if name == "negative":
        torch.testing.assert_close(found.smallest, spectrum.flip(0)[:2], rtol=1e-6, atol=1e-6)
        assert found.negative_count >= 2


def test_in_float32_and_in_a_subspace():
    spectrum = SPECTRA["decay"]
    field, mask = quadratic(spectrum, torch.float32), torch.rand(N, generator=DRAW) < 0.5
    found = sl.curvature.top_eigenvalues(field, torch.zeros(N), k=5, rows=16, mask=mask)
    dense = torch.from_numpy(sl.curvature.hessian(field, torch.zeros(N), mask).matrix())
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(dense).flip(0)[:5], rtol=1e-4, atol=1e-4)
    assert found.converged, found.stop
    assert not bool(found.vectors[:, ~mask].any())


def test_too_few_vectors_and_an_operator_that_is_not_symmetric():
    field, at = quadratic(SPECTRA["decay"]), torch.zeros(N, dtype=F64)
    with pytest.raises(ValueError, match=r"6 eigenvalues need at least 10 vectors in memory, got 9"):
        sl.curvature.top_eigenvalues(field, at, k=6, rows=9, negative=1)
    assert fewest_rows(6, 1) == 10
    few = sl.curvature.top_eigenvalues(field, at, k=6, rows=10, steps=2)
    assert not few.converged
    assert few.stop.startswith("steps: no convergence within")
    unchecked = sl.curvature.top_eigenvalues(field, at, k=6, rows=12, restarts=0)
    assert unchecked.stop.startswith("restarts: no search")
    assert not unchecked.converged
    skew = torch.randn(N, N, dtype=F64, generator=DRAW)
    starts = torch.randn(20, N, dtype=F64, generator=DRAW)
    how = {"k": 2, "tolerance": 1e-6, "rows": 12, "steps": 5}
    found = restarted_eigenpairs(lambda v: skew @ v, lambda i: starts[i].clone(), **how)
    assert found.stop.startswith("not symmetric")
    assert found.converged == [False, False]
