"""The verdicts keep their level on null tables, and see an effect of two standard deviations with five seeds.

The short form of benchmarks/calibration.py: fewer tables, and bounds that chance alone passes in 1 of 10,000 runs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from sublevel.claims import verdicts
from sublevel.claims.synthetic import KEYS, study

TABLES = 200
MOST = 0.05 + 3.7 * math.sqrt(0.05 * 0.95 / TABLES)
LEAST = 0.8 - 3.7 * math.sqrt(0.8 * 0.2 / TABLES)


QUICK = ("C1", "C3", "C6", "C10", "C12")


def marked(claims):
    return [pytest.param(c, marks=() if c in QUICK else pytest.mark.full) for c in claims]


def share(claim: str, shifts: dict, others: float, tables: int = TABLES) -> float:
    rng = np.random.default_rng(int(claim[1:]))
    drawn = (study(rng, shifts, others=others, claims=(claim,)) for _ in range(tables))
    return sum(verdicts(each, [claim])["verdict"].item() == "supported" for each in drawn) / tables


def mixed(shift: float) -> dict:
    signs = np.array([1.0, 1.0, -1.0])
    return {key: tuple(signs * shift) for key in KEYS["C11"]}


@pytest.mark.slow
@pytest.mark.parametrize("claim", marked(c for c in KEYS if c != "C11"))
def test_at_most_one_null_table_in_twenty_is_supported(claim):
    assert share(claim, {KEYS[claim][-1]: 0.0}, others=6.0) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("claim", marked(KEYS))
def test_an_effect_of_two_standard_deviations_is_seen_by_five_seeds(claim):
    assert share(claim, mixed(2.0) if claim == "C11" else {}, others=2.0, tables=100) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize(
    "null", [{"match": (6, 6, 0)}, pytest.param({"error barrier shared": (6, 0, -6)}, marks=pytest.mark.full)]
)
def test_if_and_only_if_keeps_its_level(null):
    assert share("C11", mixed(6.0) | null, others=6.0) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 10.0])
def test_equivalence_keeps_its_level_at_either_margin(shift):
    """Ten standard deviations from the upper margin of 0.5 points lies the lower one."""
    assert share("C12", {"small error": shift}, others=5.0) <= MOST
