"""Arithmetic of a study, in a process that has another: nothing of the surroundings reaches the numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from sublevel.numerics import arithmetic

EIGENVALUES = """
import hashlib
import numpy as np
from sublevel.numerics import arithmetic
a = np.random.default_rng(0).standard_normal((400, 400))
with arithmetic(1):
    print(hashlib.sha256(np.linalg.eigh(a + a.T)[1].tobytes()).hexdigest())
"""


def blas_threads() -> set[int]:
    np.linalg.eigvalsh(np.eye(3))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_job_in_this_process_leaves_its_arithmetic_as_it_was() -> None:
    tiny, threads, blas = torch.full((1,), 1e-310, dtype=torch.float64), torch.get_num_threads(), blas_threads()
    with arithmetic(threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert float(tiny * 1.0) == 0
    assert torch.get_num_threads() == threads
    assert float(tiny * 1.0) > 0
    assert blas_threads() == blas


def test_the_threads_of_blas_are_the_studys() -> None:
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("this BLAS has one thread")
        with arithmetic(1):
            assert blas_threads() == {1}
        assert blas_threads() == {2}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_eigenvalues_do_not_depend_on_the_surroundings(name: str) -> None:
    """With two threads the last bits of 400 rows are others, on processors where two threads are used."""
    seen = {
        subprocess.run(
            [sys.executable, "-c", EIGENVALUES], env={**os.environ, name: n}, capture_output=True, text=True, check=True
        ).stdout
        for n in ("1", "2")
    }
    assert len(seen) == 1
