"""Largest eigenvalues: how far from dense float64 ones, and how many products beside scipy's eigsh (ARPACK).

Accuracy on every test case, buffer policy and mask. Products for the top twenty of diagonal spectra and of two networks
over several starts; ARPACK is given the tolerance that takes it the fewest for true residuals as small as ours. It does
not look for copies of multiple eigenvalues: the search is counted beside, with and without.

python benchmarks/eigenvalues.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from common import record, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "geometry" / "curvature"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from test_product_counts import OPERATORS, K, arpack, draw

from cases import CASES_BY_POLICY, dense
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.geometry.curvature.top_eigenpairs import top_eigenpairs

STARTS = (0, 10, 20, 30, 40)
TOLERANCES = (1e-5, 1e-7)


def main() -> None:
    """Measure both, and record the worst of each."""
    torch.set_num_threads(1)
    cases, products = accuracy(), {f"{name}, {t:g}": beside_arpack(name, t) for name in OPERATORS for t in TOLERANCES}
    ratios = {kind: [row["ratio"][kind]["max"] for row in products.values()] for kind in ("search", "with copies")}
    worst = max(float(row["deviation / lambda_1"]) for row in cases.values())
    targets = {"deviation / lambda_1": 1e-6, "products of a search / eigsh": 1.05}
    result = {"targets": targets, "worst deviation / lambda_1": f"{worst:.1e}"}
    result |= {f"largest products / eigsh, {kind}": max(found) for kind, found in ratios.items()}
    record("eigenvalues", __file__, result | {"k": K, "products": products, "cases": cases})


def accuracy() -> dict[str, dict]:
    """The largest deviation from dense eigenvalues per case, policy, mask and k."""
    results = {}
    for case, policy in CASES_BY_POLICY:
        for name, mask in case.masks().items():
            hessian = dense(case, policy)[2]
            if mask is not None:
                hessian = hessian[mask][:, mask]
            exact = torch.linalg.eigvalsh(hessian).flip(0)
            for k in (5, len(hessian) // 4, len(hessian)):
                found = top_eigenvalues(case.field(policy), case.point, k=k, mask=mask)
                results[f"{case}, {policy}, mask {name}, k = {k}"] = {
                    "dimension": len(hessian),
                    "products": found.products,
                    "deviation / lambda_1": f"{float((found.values - exact[:k]).abs().max() / exact[0]):.1e}",
                    "converged": found.converged,
                }
    return results


def beside_arpack(name: str, tolerance: float) -> dict:
    """Products of both at the same residual, over the starts; everything of ours counts, residuals too."""
    n, operator = OPERATORS[name]
    counts: dict[str, list[float]] = {"search": [], "with copies": [], "eigsh": []}
    for seed in STARTS:
        for kind, restarts in (("search", 0), ("with copies", 3)):
            start = lambda run, seed=seed: draw(n, seed + run)  # noqa: E731
            found = top_eigenpairs(operator, start, k=K, tolerance=tolerance, steps=400, restarts=restarts)
            counts[kind].append(found.products)
        counts["eigsh"].append(arpack(operator, n, float(found.residuals.max()), seed))
    ratio = {
        kind: spread([ours / theirs for ours, theirs in zip(counts[kind], counts["eigsh"], strict=True)])
        for kind in ("search", "with copies")
    }
    return {"dimension": n, "products": {kind: spread(found) for kind, found in counts.items()}, "ratio": ratio}


if __name__ == "__main__":
    main()
