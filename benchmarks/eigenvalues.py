"""Largest eigenvalues against dense float64 Hessians on every test case, buffer policy and mask.

python benchmarks/eigenvalues.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from common import record

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from cases import CASES_BY_POLICY, dense
from sublevel.geometry.curvature import top_eigenvalues


def main() -> None:
    """Compare, and record the largest deviation relative to lambda_1 per case."""
    torch.set_num_threads(1)
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
    worst = max(float(row["deviation / lambda_1"]) for row in results.values())
    record("eigenvalues", __file__, {"target": 1e-6, "worst deviation / lambda_1": f"{worst:.1e}", "cases": results})


if __name__ == "__main__":
    main()
