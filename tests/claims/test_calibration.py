"""The verdicts keep their level on null tables, and see what is there.

The short form of benchmarks/calibration.py: fewer tables, and bounds that chance alone passes in 1 of 10,000 runs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from known_effects import KEYS, Field, study

from sublevel.claims.decide import judged

TABLES = 200
MOST = 0.05 + 3.7 * math.sqrt(0.05 * 0.95 / TABLES)

QUICK = ("C1", "C3", "C12")
LEAST = {"C7": 0.0, "C11": 0.6}
"""Share supported at 2 sd with five seeds that each claim must reach; others 80%. C7 has to estimate its threshold."""


def marked(claims):
    return [pytest.param(c, marks=() if c in QUICK else pytest.mark.full) for c in claims]


def share(claim: str, shifts: dict, others: float, tables: int = TABLES, **field: Any) -> float:
    rng = np.random.default_rng(sum(map(ord, claim)))
    drawn = (study(rng, shifts, others=others, claims=(claim,), field=Field(**field)) for _ in range(tables))
    return sum(judged(each, [claim])[0].verdict == "supported" for each in drawn) / tables


def mixed(shift: float) -> dict:
    signs = np.array([1.0, 1.0, -1.0])
    return {key: tuple(signs * shift) for key in KEYS["C11"]}


def null(claim: str) -> dict:
    """The last part on its bound; C6 at both moments, as each has a density of its own."""
    return dict.fromkeys(KEYS[claim] if claim == "C6" else KEYS[claim][-1:], 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("claim", marked(c for c in KEYS if c != "C11"))
def test_at_most_one_null_table_in_twenty_is_supported(claim):
    assert share(claim, null(claim), others=6.0) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("claim", marked(KEYS))
def test_an_effect_of_two_standard_deviations_is_seen_by_five_seeds(claim):
    found = share(claim, mixed(2.0) if claim == "C11" else {}, others=2.0, tables=100)
    least = LEAST.get(claim, 0.8)
    assert found >= least - 3.7 * math.sqrt(least * (1 - least) / 100)


@pytest.mark.full
@pytest.mark.parametrize(("claim", "key"), [("C8", "loss rise shared"), ("C12", "middle rise")])
def test_noisy_end_points_make_no_barrier(claim, key):
    assert share(claim, {key: 0.0}, others=6.0, end_sd=8e-3) <= MOST


@pytest.mark.full
def test_flagged_volumes_and_lost_seeds_support_nothing_more():
    assert share("C5", {"volume apart": 0.0}, others=6.0, flagged=0.2) <= MOST
    assert share("C2", {"reinit": 0.0}, others=6.0, lost=0.1) <= MOST


@pytest.mark.full
def test_an_end_loss_on_the_true_quantile_is_rarely_inside():
    assert share("C7", {"inside": 0.0}, others=12.0) <= MOST


@pytest.mark.full
@pytest.mark.parametrize("claim", ["C2", "C3", "C10"])
def test_an_opposite_sign_at_one_density_supports_no_claim(claim):
    """Held at two densities and opposed at one: depends on the density, and is never called supported."""
    assert share(claim, dict.fromkeys(KEYS[claim], (-6.0, 6.0, 6.0)), others=6.0) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize(
    "null", [{"match": (6, 6, 0)}, pytest.param({"error barrier shared": (6, 0, -6)}, marks=pytest.mark.full)]
)
def test_if_and_only_if_keeps_its_level(null):
    assert share("C11", mixed(6.0) | null, others=6.0) <= MOST


@pytest.mark.full
@pytest.mark.parametrize("shift", [0.0, 10.0])
def test_equivalence_keeps_its_level_at_either_margin(shift):
    """Ten standard deviations from the upper margin of 0.5 points lies the lower one."""
    assert share("C12", {"small error": shift}, others=5.0) <= MOST
