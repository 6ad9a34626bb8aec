"""Multiple eigenvalues that a search may miss, and log-determinants from four probes: how often each is wrong unsaid.

Eigenvalues: trials over spectra with copies (n from 168 to 100,000, float32 and float64); wrong is a pair that is off
by more than its bound and called converged. Log-determinants: the share of 95% t intervals that hold the truth.

python benchmarks/estimators.py [TRIALS_PER_SPECTRUM SEEDS WORKERS]
"""

from __future__ import annotations

import sys
from multiprocessing import get_context
from pathlib import Path

import torch

from common import record, spread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "geometry" / "curvature"))
from hard_spectra import LOG_DETERMINANTS, MULTIPLE, covered, searched

from sublevel.geometry.curvature.missed import MISSED


def main(trials: int = 200, seeds: int = 1000, workers: int = 2) -> None:
    """Run both and record them."""
    with get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        rows = pool.starmap(of_copies, [(i, trials) for i in range(len(MULTIPLE))], chunksize=1)
        eigenvalues = dict(zip(map(str, MULTIPLE), rows, strict=True))
        rows = pool.starmap(of_intervals, [(name, seeds) for name in LOG_DETERMINANTS], chunksize=1)
        coverage = dict(zip(LOG_DETERMINANTS, rows, strict=True))
    result = {
        "trials": trials * len(MULTIPLE),
        "wrong and called converged": sum(row["wrong and called converged"] for row in eigenvalues.values()),
        "declared chance of missing": MISSED,
        "lowest coverage of 95% intervals": min(row["covered"] for row in coverage.values()),
    }
    record("estimators", __file__, result | {"eigenvalues": eigenvalues, "log-determinants": coverage})


def of_copies(number: int, trials: int) -> dict:
    """Trials of one spectrum."""
    found = [searched(MULTIPLE[number], seed) for seed in range(trials)]
    return {
        "trials": trials,
        "wrong and called converged": sum(wrong for _, wrong in found),
        "not converged": sum(not spectrum.converged for spectrum, _ in found),
        "products": spread([spectrum.products for spectrum, _ in found]),
        "of them for missing eigenvalues": spread([spectrum.search_products for spectrum, _ in found]),
    }


def of_intervals(name: str, seeds: int) -> dict:
    """Intervals of one spectrum, four probes of forty steps each."""
    found = [covered(name, seed) for seed in range(seeds)]
    flagged = sum(bool(reason) for _, reason in found)
    return {"seeds": seeds, "covered": sum(inside for inside, _ in found) / seeds, "with a reason": flagged}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
