# ruff: noqa: E501
"""Plausible tables of a study with known numbers, for given seeds, levels and branches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import synthetic_claims as claimed
import synthetic_geometry as geometry

import sublevel.study.tables  # noqa: F401 - declares the tables of all measurements
from sublevel.tables import TABLES

BRANCHES = ("imp", "oneshot", "finetune", "reinit", "random-prune", "random-imp")
PENALTY = {
    "imp": 0.0,
    "oneshot": 0.006,
    "finetune": 0.008,
    "lr-rewind": 0.002,
    "reinit": 0.02,
    "random-prune": 0.035,
    "random-imp": 0.03,
}
LAYERS = (
    "conv1.weight",
    "layer1.0.conv1.weight",
    "layer1.0.conv2.weight",
    "layer2.0.conv1.weight",
    "layer3.0.conv1.weight",
    "fc.weight",
)
PRUNABLE = 270_896
HEIGHTS = {
    "successive": 0.05,
    "to-dense": 0.25,
    "to-dense-aligned": 0.2,
    "from-start": 0.0,
    "start-to-dense": 0.01,
    "orders": 0.15,
}
ALPHAS = np.linspace(0, 1, 21)


def empty() -> dict[str, pd.DataFrame]:
    """Every table of the schema with its columns and no rows."""
    return {name: pd.DataFrame(columns=list(table.columns)) for name, table in TABLES.items()}


def make(
    seeds: int = 3, levels: int = 10, branches: tuple[str, ...] = BRANCHES, curves: int = 20
) -> dict[str, pd.DataFrame]:
    """A whole study: every table filled, noise fixed by one seed."""
    draw = np.random.default_rng(0)
    keys = [("dense", 0, s) for s in range(seeds)]
    keys += [(b, v, s) for b in branches for v in range(1, levels + 1) for s in range(seeds)]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for branch, level, seed in keys:
        key = {"branch": branch, "level": level, "seed": seed}
        density = 0.8**level
        rows["levels"].append(key | _level(branch, level, density, draw))
        rows["layers"] += [key | _layer(i, name, density) for i, name in enumerate(LAYERS)]
        rows["history"] += [key | _epoch(e, curves, draw) for e in range(1, curves + 1)] if level in (0, levels) else []
        for operator in geometry.OPERATORS:
            base = {"operator": operator, "part": 0}
            rows["spectra"] += [key | base | r for r in _spectrum(level, draw)]
            rows["curvature"] += [key | base | _curvature(space, level, draw) for space in ("own", "all", "next")]
        rows["volumes"] += [key | _volume(space, branch, level, draw) for space in ("own", "all", "next")]
        if level:
            rows["legs"] += [key | r for r in _legs(level, draw)]
            _paths(rows, branch, level, seed, draw)
        geometry.solution(rows, key, density, LAYERS)
        claimed.solution(rows, key)
    geometry.study(rows, keys, levels)
    claimed.sweep(rows, seeds, lambda name, density: _level(name, 1, density, draw))
    rows["claims"] = _claims(seeds)
    rows["verdicts"] = claimed.verdicts(seeds)
    return {name: pd.DataFrame(rows[name], columns=list(TABLES[name].columns)) for name in TABLES}


ABSENT = {"claims", "verdicts", "membership", "landmarks", "legs", "prunings"}
"""Tables that have no row where nothing was trained or pruned."""


def given() -> dict[str, pd.DataFrame]:
    """The tables of three checkpoints that were trained elsewhere: a study's networks under names of their own."""
    names = {0: "first", 1: "pruned", 2: "other"}
    found = {}
    made: dict[str, Any] = make(1, 2, ("imp",))  # pyright: ignore[reportAssignmentType]
    for name, table in made.items():
        if "branch" in table and len(table):
            table = table[table["branch"].isin(["dense", "imp"])]
            table = table.assign(branch=table["level_to" if "level_to" in table else "level"].map(names))
        if "path" in table:
            table = table[table["path"] == "to-dense"]
        for column in {"a", "b", "name"} & set(table.columns):
            table[column] = table[column].str.replace(
                r"(dense|imp) L(\d)", lambda m: f"{names[int(m[2])]} L{m[2]}", regex=True
            )
        found[name] = table.iloc[:0] if name in ABSENT else table
    found["levels"]["base"] = "given"
    return found


def repeated(seeds: int, levels: int, branches: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """A study as large as ``make`` would give, sooner: one seed drawn, and copied under other numbers."""
    one = make(1, levels, branches)
    return {name: pd.concat([f.assign(seed=s) for s in range(seeds)]) if "seed" in f else f for name, f in one.items()}


def _level(branch: str, level: int, density: float, draw: np.random.Generator) -> dict[str, Any]:
    worse = PENALTY.get(branch, 0.01) * level / 4 + 0.0006 * level**2 * (density < 0.3)
    error = 0.084 + worse + 0.0015 * draw.standard_normal()
    chance = density
    return {
        "density": density, "remaining": round(density * PRUNABLE), "prunable": PRUNABLE,
        "train_loss": 0.012 + worse * 2 + 0.0008 * draw.standard_normal(), "train_error": 0.002 + worse / 2,
        "validation_loss": 0.32 + worse, "validation_error": error + 0.001, "test_loss": 0.31 + worse, "test_error": error,
        "buffers": "stored", "gradient_norm": 0.02 * (1 + level) * math.exp(0.2 * draw.standard_normal()),
        "gradient_norm_own": 0.01, "weight_norm": 40 - 1.6 * level + 0.2 * draw.standard_normal(), "collapsed_layers": 0,
        "dead_filters": max(0, level - 6) * (branch != "random-prune"), "max_bn_gain": 12.0,
        "overlap_imp": 1.0 if branch in ("imp", "reinit") else chance + 0.4 * (1 - chance) * (branch == "oneshot"),
        "overlap_chance": chance, "steps": 62_560,
    }  # fmt: skip


def _layer(index: int, name: str, density: float) -> dict[str, Any]:
    kept = density ** (0.4 + 0.25 * index)
    return {"layer": name, "index": index, "prunable": 9000, "remaining": round(9000 * kept), "density": kept}


def _epoch(epoch: int, epochs: int, draw: np.random.Generator) -> dict[str, Any]:
    fall = math.exp(-5 * epoch / epochs)
    return {
        "step": 391 * epoch, "epoch": epoch, "lr": 0.1, "train_loss": 0.02 + 1.9 * fall + 0.01 * draw.standard_normal(),
        "validation_loss": 0.33 + 1.4 * fall + 0.02 * draw.standard_normal(), "validation_error": 0.085 + 0.5 * fall,
    }  # fmt: skip


def _spectrum(level: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for space, factor in (("own", 1.0), ("all", 1.4), ("next", 0.9)):
        base = {"space": space, "buffers": "recomputed", "residual": 1e-5}
        top = 60 * factor * (1 + 0.15 * level) * math.exp(0.1 * draw.standard_normal())
        for i in range(1, 11):
            found.append(base | {"end": "largest", "index": i, "eigenvalue": top / i**0.9, "converged": i < 10})
        for i in range(1, 4):
            found.append(base | {"end": "smallest", "index": i, "eigenvalue": -1.2 / i, "converged": True})
    return found


def _curvature(space: str, level: int, draw: np.random.Generator) -> dict[str, Any]:
    factor = {"own": 1.0, "all": 1.4, "next": 0.9}[space]
    return {
        "space": space, "buffers": "recomputed", "dimension": PRUNABLE, "examples": 10_000, "excluded": 0,
        "largest": 60 * factor * (1 + 0.15 * level) * math.exp(0.1 * draw.standard_normal()), "smallest": -1.2 - 0.1 * level,
        "negative_count": 3, "negative_mass": 0.01, "gradient_norm": 0.02, "products": 60, "converged": level != 3, "stop": "residuals",
    }  # fmt: skip


def _volume(space: str, branch: str, level: int, draw: np.random.Generator) -> dict[str, Any]:
    defined = not (branch == "finetune" and level > 8)
    radius = (
        (0.11 - 0.004 * level) * {"own": 1.0, "all": 0.9, "next": 1.05}[space] * (1 + 0.03 * draw.standard_normal())
    )
    return {
        "space": space, "buffers": "recomputed", "method": "top-k", "k": 10, "dimension": 10, "eps": 0.1,
        "log_volume": 10 * math.log(radius) + 0.93 if defined else math.nan, "effective_radius": radius if defined else math.nan,
        "se": math.nan, "nonstationarity": 0.02 * level, "stationary": 0.02 * level <= 0.1,
        "reason": "" if defined else "lambda_10 <= 0",
    }  # fmt: skip


def _legs(level: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for split in ("train", "test"):
        for leg, buffers in (("prune", "stored"), ("prune", "recomputed"), ("retrain", "recomputed")):
            jump = 0.05 * level * (3 if buffers == "stored" else 1) * math.exp(0.1 * draw.standard_normal())
            low = 0.012 if split == "train" else 0.31
            start, end = (low, low + jump) if leg == "prune" else (low + 1.2, low)
            found.append({
                "leg": leg, "split": split, "buffers": buffers, "loss_start": start, "loss_end": end, "error_start": start / 4,
                "error_end": end / 4, "distance": (4.0 if leg == "prune" else 22.0) + 0.3 * draw.standard_normal(),
                "cosine": 0.97 if leg == "prune" else 0.62, "sign_agreement": 0.9, "norm_start": 40.0, "norm_end": 38.0,
            })  # fmt: skip
    return found


def _paths(
    rows: dict[str, list[dict[str, Any]]], branch: str, level: int, seed: int, draw: np.random.Generator
) -> None:
    for kind, height in HEIGHTS.items():
        for split, low in (("train", 0.012), ("test", 0.31)):
            key = {
                "path": kind, "branch": branch, "level_from": {"successive": level - 1, "to-dense": 0, "to-dense-aligned": 0}.get(kind, level),
                "level_to": level, "seed": seed, "order": "shared", "split": split, "buffers": "recomputed",
            }  # fmt: skip
            bump = height * level * math.exp(0.1 * draw.standard_normal())
            fall = 1.0 if "start" in kind else 0.0
            loss = low + bump * 4 * ALPHAS * (1 - ALPHAS) + fall * (1 - ALPHAS) ** 2
            rows["profiles"] += [
                key | {"alpha": a, "loss": v, "error": v / 5} for a, v in zip(ALPHAS, loss, strict=True)
            ]
            both = {
                f"loss_{c}": v for c, v in (("height", bump), ("barrier", bump), ("rise", bump), ("max", low + bump))
            }
            error = {
                f"error_{c}": v / 5
                for c, v in (("height", bump), ("barrier", bump), ("rise", bump), ("max", low + bump))
            }
            rows["paths"].append(key | both | error | {"points": 21, "distance": 20.0, "subspace": str(level - 1)})


def _claims(seeds: int) -> list[dict[str, Any]]:
    base = {"level": 10, "density": 0.107, "n": seeds, "p": 0.012, "p_exact": 2.0 ** (1 - seeds)}
    first = "IMP with rewinding matches dense accuracy down to a density, which it names"
    return [
        base | {"claim": "C1", "statement": first, "comparison": "imp - dense, test error", "unit": "points", "effect": 0.31, "low": -0.12, "high": 0.74, "reading": "undecided: the interval reaches past the margin of 0.5"},
        base | {"claim": "C1", "statement": first, "comparison": "imp - dense, test error", "level": 4, "density": 0.41, "unit": "points", "effect": 0.04, "low": -0.21, "high": 0.29, "reading": "matches within 0.5 points"},
        base | {"claim": "C2", "statement": "imp's mask from a new initialisation, or a random mask, does worse", "comparison": "reinit - imp, test error", "unit": "points", "effect": 5.1, "low": 4.4, "high": 5.8, "reading": "worse"},
        base | {"claim": "C2", "statement": "", "comparison": "random-prune - imp, test error", "unit": "points", "effect": 8.7, "low": 7.9, "high": 9.5, "reading": "worse"},
        base | {"claim": "C3", "statement": "Iterative beats one-shot at the same count", "comparison": "oneshot - imp, test error", "unit": "points", "effect": 1.52, "low": 0.98, "high": 2.06, "reading": "worse"},
        base | {"claim": "C4", "statement": "Rewinding beats fine-tuning", "comparison": "finetune - imp, train loss", "unit": "nats", "effect": 0.0402, "low": -0.0031, "high": 0.0835, "reading": "undecided"},
    ]  # fmt: skip


def failures() -> pd.DataFrame:
    """One diverged training run."""
    row = {
        "branch": "reinit",
        "level": 7,
        "seed": 2,
        "cell": "ab12",
        "kind": "train",
        "error": "Diverged: the train loss was nan at step 1204 (learning rate 0.1)",
    }
    return pd.DataFrame([row], columns=list(TABLES["failures"].columns))


def summary(name: str = "paper") -> dict[str, Any]:
    """A summary with every key."""
    return {
        "name": name, "sublevel": "0.1.0",
        "study": {"levels": 10, "fraction": 0.2, "rewind": "2000it", "branches": list(BRANCHES), "data": {"name": "cifar10"}, "train": {"epochs": 160, "lr": 0.1, "milestones": [31280, 46920]}},
        "versions": {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.3.0"},
        "hardware": {"device": "cpu", "cores": 8, "processor": "a processor", "memory_gib": 31.2},
        "seconds": {"total": 5423.0, "cells": {"train": 5000.2, "evaluate": 40.0, "curvature": 380.0}},
        "cells": {"done": 812, "failed": 0},
        "data": {"origin": "an archive checked by its hash", "classes": ["airplane", "automobile", "bird"], "input_shape": [3, 32, 32], "train": 45000, "validation": 5000, "test": 10000, "mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]},
        "model": {"name": "resnet20", "parameters": 272_474, "prunable": PRUNABLE},
        "numerics": {"dtype": "float32", "tf32": False, "threads": 1},
        "branches": {"oneshot": {"summary": "one-shot pruning", "cite": ""}, "reinit": {"summary": "imp's mask from a new start", "cite": "renda2020comparing"}},
        "notes": ["The sample of training images for curvature is the same at every level."],
    }  # fmt: skip
