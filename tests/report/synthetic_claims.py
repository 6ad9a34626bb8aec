# ruff: noqa: E501
"""Verdicts, prunings, pairs of volumes and a sweep of the fraction, with numbers that a test can write down again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

FRACTIONS = (0.05, 0.5, 0.9)
DRAWS = (1, 2, 3)
Rows = dict[str, list[dict[str, Any]]]
Key = dict[str, Any]


def solution(rows: Rows, key: Key) -> None:
    """What is measured at every pruned solution."""
    level = key["level"]
    if not level:
        return
    common = key | {"buffers": "recomputed", "loss_start": 0.012, "error_start": 0.002}
    for draw in (0, *DRAWS):
        rise = 0.01 * level if draw == 0 else 0.05 * level + 0.01 * (draw - 2)
        rows["prunings"].append(common | {
            "chosen_by": "random" if draw else "criterion", "draw": draw, "loss_end": 0.012 + rise, "error_end": 0.002 + rise / 4,
        })  # fmt: skip
    for operator in ("hessian", "adaptive"):
        rows["volume_pairs"] += [key | _pair(pair, operator, level, key["seed"]) for pair in ("matched-loss", "prune")]


def _pair(pair: str, operator: str, level: int, seed: int) -> dict[str, Any]:
    """At matched loss a level costs one nat, at pruning half a nat; seeds differ by a tenth."""
    lost = level * (1.0 if pair == "matched-loss" else 0.5) + 0.1 * (seed - 1)
    return {
        "pair": pair, "operator": operator, "part": 0, "buffers": "recomputed", "k": 10, "eps": 0.1,
        "log_volume": -30.0 - lost, "log_volume_reference": -30.0, "trace_top": 200.0 * (1 + 0.1 * level), "trace_top_reference": 200.0,
        "loss": 0.05, "loss_reference": 0.05 if pair == "matched-loss" else 0.012, "method": "top-k", "setting": 10,
        "weight_norm": 36.0, "weight_norm_reference": 40.0, "nonstationarity": 0.01, "nonstationarity_reference": 0.01,
        "excluded": 0, "converged": True, "reason": "",
    }  # fmt: skip


def error_at(fraction: float) -> float:
    """The test error of a network pruned once by a fraction."""
    return 0.084 + 0.1 * fraction**2


def sweep(rows: Rows, seeds: int, level: Callable[[str, float], dict[str, Any]]) -> None:
    """Branches that prune another fraction, once."""
    for fraction in FRACTIONS:
        for seed in range(seeds):
            key = {"branch": f"step {fraction:g}", "level": 1, "seed": seed}
            about = {"base": "imp", "fraction": fraction, "criterion": "magnitude", "order": "shared"}
            rows["levels"].append(key | level(key["branch"], 1 - fraction) | about | {"test_error": error_at(fraction)})
            for split in ("train", "test"):
                rows["paths"].append({
                    "path": "to-dense", "branch": key["branch"], "level_from": 0, "level_to": 1, "seed": seed, "order": "shared", "split": split,
                    "buffers": "recomputed", "loss_barrier": fraction, "error_barrier": fraction / 10, "loss_height": 0.0, "error_height": 0.0,
                })  # fmt: skip


def verdicts(seeds: int) -> list[dict[str, Any]]:
    """Every verdict, an effect without an interval, and two claims that were not measured."""
    base = {"n": seeds, "p": 0.0123, "p_holm": 0.0615}
    return [
        base | {"claim": "C1", "statement": "IMP with rewinding matches the dense network's test error.", "verdict": "supported", "why": "The whole interval lies below the margin at every level down to 41%.", "sentence": "At 41% of the weights imp's test error is 0.04 points above the dense network's [-0.21, 0.29], 3 seeds.", "effect": 0.04, "low": -0.21, "high": 0.29, "unit": "points", "margin": 0.5, "figure": "accuracy"},
        base | {"claim": "C2", "statement": "IMP's mask from a new initialisation, or a random mask, does worse.", "verdict": "supported", "why": "Both controls are worse at every density.", "sentence": "reinit's test error is 5.1 points above imp's [4.4, 5.8].", "effect": 5.1, "low": 4.4, "high": 5.8, "unit": "points", "p": 0.00004, "p_holm": 0.0002, "figure": "accuracy"},
        base | {"claim": "C4", "statement": "Rewinding beats fine-tuning.", "verdict": "contradicted", "why": "Fine-tuning ends at a lower train loss.", "sentence": "finetune's train loss is 0.031 nats below imp's [-0.052, -0.011].", "effect": -0.0315, "low": -0.052, "high": -0.011, "unit": "nats", "figure": "accuracy"},
        base | {"claim": "C5", "statement": "IMP solutions have less volume in the original space than the dense one at matched loss.", "verdict": "undecided", "why": "The interval holds zero under the adaptive operator.", "sentence": "The log volume differs by -1.2 nats [-3.4, 1.0].", "effect": -1.2, "low": -3.4, "high": 1.0, "unit": "nats", "margin": 0.5, "figure": "volume-pairs"},
        base | {"claim": "C8", "statement": "Successive solutions are separated by a barrier in the train loss, not in the error.", "verdict": "undecided", "why": "One seed.", "sentence": "", "effect": 0.07, "low": math.nan, "high": math.nan, "p": math.nan, "p_holm": math.nan, "unit": "nats", "figure": "no-such-figure"},
        {"claim": "C10", "statement": "Pruning small weights raises the loss less than pruning random ones", "verdict": "not measured", "why": "add [geometry.prunings] to the study"},
        {"claim": "C12", "statement": "A fraction that is too small returns SGD to the same minimum.", "verdict": "not measured", "why": "add the branches imp-0.05 and imp-0.5 at level 1"},
    ]  # fmt: skip
