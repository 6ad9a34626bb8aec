# ruff: noqa: E501
"""The tables of a study's geometry, in closed form: every number can be written down again in a test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

OPERATORS = ("hessian", "ggn", "adaptive")
BUFFERS = {"buffers": "recomputed"}
SETS = {"pruned": 0.1, "kept": 0.4, "random": 0.2, "steepest": 60.0}
METHODS = {"logdet": 0.0, "radial": -40.0, "importance": -1.0, "thermodynamic": 1.0}
NODES = ((-0.5, 0.02), (0.01, 0.9), (1.0, 0.07), (60.0, 0.01))
EPS = (0.03, 0.1, 0.3)
N = 200
RISE = 0.1
Rows = dict[str, list[dict[str, Any]]]
Key = dict[str, Any]


def solution(rows: Rows, key: Key, density: float, layers: tuple[str, ...]) -> None:
    """What is measured at every solution."""
    level, part = key["level"], {"part": 0, **BUFFERS}
    for i, layer in enumerate(layers):
        rows["curvature"].append(
            key
            | part
            | {
                "space": f"layer {layer}",
                "operator": "hessian",
                "largest": 10.0 * (i + 1) * density,
                "converged": True,
                "excluded": 0,
            }
        )
    for space in ("own", "all"):
        whole = key | part | {"space": space, "operator": "hessian"}
        rows["densities"] += [
            whole | {"probe": p, "node": x * (1 + 0.01 * level), "weight": w} for p in (0, 1) for x, w in NODES
        ]
        rows["estimates"] += [whole | e for e in _estimates(density)]
        rows["estimates"].append(key | part | {"space": space, "operator": "", **_coefficient(level)})
        rows["volumes"] += [key | part | {"space": space, **v} for v in _volumes()]
    for name, curvature, when in _chosen(level):
        width = math.sqrt(2 * RISE / curvature)
        rows["coordinates"].append(key | part | {
            "when": when, "set": name, "count": 100, "curvature": curvature, "se": curvature / 20, "rise": RISE, "width": width,
            "width_low": 0.8 * width, "width_high": 1.3 * width, "directions": 8, "capped": int(level == 2), "reason": "",
        })  # fmt: skip
        rows["slices"] += [
            key
            | part
            | {
                "when": when,
                "set": name,
                "radius": r,
                "loss": 0.01 + curvature * r**2 / 2,
                "error": min(0.9, abs(r) / 5),
            }
            for r in np.linspace(-2 * width, 2 * width, 9)
        ]
    if level:
        rows["overlaps"].append(
            key
            | {
                "part": 0,
                "k": 10,
                "overlap": 0.9**level,
                "chance": 0.01,
                "smallest_angle": 0.1,
                "largest_angle": math.pi / 2,
            }
        )
        rows["membership"].append(key | part | _membership(key["branch"], level))
        rows["anatomy"].append(key | part | {"k": 10, "set": "kept", "share": 0.5, "eigenspace": 0.8, "trace": 0.7,
                                             "trace_matched": 0.5, "reason": ""})  # fmt: skip
        rows["limits"].append(key | part | {"eps": 0.1, "fraction": 0.6, "effective_dimension": 50.0, "reason": ""})
        rows["exits"].append(key | {"space": "own", "of": "loss", "height": 0.1, "radius": 2.0, "reason": ""})
    else:
        rows["training"] += [key | part | t for t in _training()]


def _chosen(level: int) -> list[tuple[str, float, str]]:
    """(set, curvature, when): after retraining everything is twice as steep."""
    before = [(name, value, "before") for name, value in SETS.items()]
    return before + [(name, 2 * value, "retrained") for name, value in SETS.items() if level]


def _estimates(density: float) -> list[dict[str, Any]]:
    same = {"draws": 8, "reason": ""}
    return [
        same | {"quantity": "trace", "value": 100 * density, "se": 5.0},
        same | {"quantity": "negative mass", "value": 0.02, "se": 0.001},
        same
        | {
            "quantity": "log-determinant",
            "setting": 1e-3,
            "value": -6000 * density,
            "se": 30.0,
            "reason": "quadrature not converged: +4 nats",
        },
        same | {"quantity": "log-determinant", "setting": 1e-1, "value": -2000 * density, "se": 3.0},
    ]


def _coefficient(level: int) -> dict[str, Any]:
    reason = "chains have not mixed: split R-hat 1.31 exceeds 1.05" if level == 2 else ""
    return {
        "quantity": "learning coefficient",
        "setting": 1085.7,
        "value": 9.0 - level,
        "se": 0.4,
        "draws": 4,
        "r_hat": 1.31 if reason else 1.01,
        "ess": 350.0,
        "reason": reason,
    }


def _volumes() -> list[dict[str, Any]]:
    """The ellipsoid of a quadratic, off by a number of nats for each method: its radius rises as eps^(1/2)."""
    omega = N / 2 * math.log(math.pi) - math.lgamma(N / 2 + 1)
    found = []
    for method, off in METHODS.items():
        for eps in EPS:
            volume = omega + N / 2 * math.log(2 * eps) + off
            found.append({
                "method": method, "k": N, "dimension": N, "eps": eps, "log_volume": volume, "effective_radius": math.exp((volume - omega) / N),
                "se": 1.5, "reason": "effective sample size 3.1 of 64 rays is below 50" if method == "radial" else "",
            })  # fmt: skip
    return found


def _membership(branch: str, level: int) -> dict[str, Any]:
    """Of imp all by a segment; of the others by a curve, from level 4 on not found: 0.05 a level too high."""
    threshold = 0.1 * level
    ends = {"loss": threshold, "loss_dense": 0.012}
    if branch == "imp":
        return ends | {
            "threshold": threshold,
            "found": "segment",
            "segment_max": threshold,
            "lowest_max": threshold,
            "excess": 0.0,
            "evaluations": 33,
            "gradient_steps": 0,
        }
    excess = 0.05 * level if level >= 4 else 0.0
    return ends | {
        "threshold": threshold, "found": "not found" if excess else "curve", "segment_max": threshold + 0.5, "curve_max": threshold + excess,
        "lowest_max": threshold + excess, "excess": excess, "evaluations": 67, "gradient_steps": 200,
    }  # fmt: skip


def _training() -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "index": i,
            "eigenvalue": (10.0 + step / 100) / i,
            "smallest": -1.0,
            "converged": step != 100,
            "loss": 2.0 / (1 + step / 100),
            "error": 0.1,
            "gradient_norm": 1.0,
        }
        for step in (0, 100, 1000)
        for i in (1, 2, 3)
    ]


def study(rows: Rows, keys: list[tuple[str, int, int]], levels: int) -> None:
    """What is measured once: planes, the disconnectivity graph, the instability of the dense run."""
    branch = next(b for b, _, _ in keys if b != "dense")
    _plane(rows, f"through: dense, {branch}/1, {branch}/{levels}", "through", branch, levels)
    _plane(rows, "random: dense", "random", branch, levels)
    _tree(rows, [k for k in keys if k[1] in (0, levels) and k[2] < 4])
    for seed in {k[2] for k in keys}:
        rows["paths"] += [_unstable(step, split, seed) for step in (0, 500, 2000) for split in ("train", "test")]


def bowl(x: float, y: float) -> float:
    """The loss on every plane: lowest, 0.01, at the origin."""
    return 0.01 + x**2 + 2 * y**2


def _plane(rows: Rows, name: str, kind: str, branch: str, levels: int) -> None:
    about, grid = {"plane": name, "seed": 0}, np.linspace(-1, 1, 9)
    rows["planes"] += [
        about | {"kind": kind, "buffers": "stored", "x": x, "y": y, "loss": bowl(x, y), "error": min(0.9, bowl(x, y) / 4), "level": 0, "reason": ""}
        for y in grid for x in grid
    ]  # fmt: skip
    places = [
        ("dense", "dense", 0, None, 0.0, 0.0),
        (f"{branch} L1", branch, 1, None, 0.5, 0.0),
        (f"{branch} L{levels}", branch, levels, None, 0.5, 0.5),
        ("dense at step 0", "dense", None, 0, -0.9, -0.9),
        ("dense at step 200", "dense", None, 200, -0.4, -0.3),
    ]
    names = ("name", "branch", "level", "step", "x", "y")
    rows["landmarks"] += [
        about | dict(zip(names, place, strict=True)) | {"residual": 0.5 * (place[3] is not None)} for place in places
    ]
    rows["persistence"] += [
        about | {"dimension": 0, "birth": 0.01, "death": math.nan, "x": 0.0, "y": 0.0},
        about | {"dimension": 0, "birth": 0.3, "death": 0.5, "x": 0.5, "y": 0.5},
        about | {"dimension": 1, "birth": 0.6, "death": 0.9, "x": -0.5, "y": 0.5},
    ]


def height(branch: str, level: int, seed: int) -> float:
    """The train loss of a leaf: imp's near the dense one's."""
    steps = {"dense": (0.0, 0.01), "imp": (0.001, 0.002)}
    per_level, per_seed = steps.get(branch, (0.02, 0.005))
    return 0.1 + per_level * level + per_seed * seed


def _tree(rows: Rows, keys: list[tuple[str, int, int]]) -> None:
    """A comb: every leaf joins its trunk at the merging height of its branch, imp lower than the others."""
    names = [f"{b} L{v} s{s}" for b, v, s in keys]
    for of, scale in (("loss", 1.0), ("error", 0.2)):
        tops = [scale * (0.11 if b == "dense" else 0.13 if b == "imp" else 0.9) for b, _, _ in keys]
        heights = [scale * height(*k) for k in keys]
        for i, (name, h, top) in enumerate(zip(names, heights, tops, strict=True)):
            rows["tree"].append({"of": of, "part": "leaf", "name": name, "x0": float(i), "y0": h})
            rows["tree"] += [
                {"of": of, "part": "line", "name": "", "x0": float(i), "y0": a, "x1": e, "y1": max(h, top)}
                for a, e in ((h, float(i)), (max(h, top), 0.0))
            ]
            rows["joins"] += [
                {
                    "of": of,
                    "a": names[j],
                    "b": name,
                    **BUFFERS,
                    "height_a": heights[j],
                    "height_b": h,
                    "maximum": max(tops[j], top, h, heights[j]),
                }
                for j in range(i)
            ]


def _unstable(step: int, split: str, seed: int) -> dict[str, Any]:
    """A barrier that falls with the step: 10, 5 and 1 points of error on test, half of that on train."""
    size = {0: 0.1, 500: 0.05, 2000: 0.01}[step] * (1.0 if split == "test" else 0.5)
    values = {f"{of}_{c}": size * (5 if of == "loss" else 1) for of in ("loss", "error") for c in ("barrier", "height")}
    return {
        "path": "instability",
        "branch": "dense",
        "level_from": 0,
        "level_to": 0,
        "seed": seed,
        "order": "shared",
        "split": split,
        **BUFFERS,
        "step": step,
        **values,
    }
