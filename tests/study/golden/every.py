"""Studies with every measurement: one that sets every option, one that sets none, one of points trained elsewhere."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, Any] = {
    "legs": {"size": 60, "levels": [1], "buffers": ["stored"]},
    "prunings": {"size": 60, "draws": 3},
    "spectra": {
        "k": 2,
        "size": 30,
        "parts": 2,
        "policy": "batch",
        "operators": ["hessian", "ggn", "adaptive"],
        "layers": True,
        "tolerance": 1e-3,
        "steps": 50,
        "restarts": 1,
        "negative": 2,
        "exclude_dead": True,
        "eps": 0.2,
    },
    "density": {
        "probes": 2,
        "steps": 8,
        "size": 60,
        "parts": 2,
        "spaces": ["next", "own"],
        "operator": "ggn",
        "damping": [0.5, 0.01],
        "exclude_dead": True,
    },
    "coordinates": {
        "branches": ["dense", "imp"],
        "probes": 4,
        "directions": 2,
        "rise": 0.2,
        "diagonal": ["hessian", "ggn"],
        "exact": 3,
        "size": 60,
        "parts": 2,
    },
    "overlaps": {"k": 2, "size": 60, "parts": 2},
    "anatomy": {"k": 2, "probes": 4, "size": 60, "parts": 2},
    "limits": {"eps": [0.05, 0.5], "probes": 3, "steps": 8, "operator": "hessian", "size": 60, "parts": 2},
    "exits": {
        "of": ["train loss", "test error"],
        "spaces": ["next", "own"],
        "loss": [0.2],
        "error": [0.05, 0.2],
        "rays": 3,
        "radius": 50.0,
        "growth": 1.2,
        "size": 60,
        "policy": "recomputed",
    },
    "training": {"branches": ["dense"], "k": 1, "size": 60, "parts": 2},
    "volumes": {
        "methods": ["logdet", "radial", "importance", "llc", "thermodynamic"],
        "eps": [0.1, 0.2],
        "spaces": ["own", "next"],
        "levels": [1],
        "rays": 4,
        "radius": 50.0,
        "damping": 0.01,
        "k": 2,
        "probes": 2,
        "steps": 8,
        "chains": 2,
        "draws": 10,
        "burn_in": 5,
        "gamma": 10.0,
        "size": 60,
        "parts": 2,
        "exclude_dead": True,
    },
    "pairs": {
        "k": 2,
        "size": 60,
        "parts": 2,
        "policy": "stored",
        "eps": 0.2,
        "operators": ["ggn", "hessian", "adaptive"],
        "match": 0.2,
        "damping": [0.1],
        "probes": 2,
        "quadrature": 8,
        "rays": 4,
        "radius": 50.0,
        "tolerance": 1e-3,
        "steps": 50,
        "restarts": 1,
    },
    "connect": {"bends": 2, "iterations": 5, "points": 5, "batch_size": 20, "size": 60, "parts": 2},
    "planes": {
        "through": [["dense", "imp/1", "reinit/1"]],
        "random": ["dense"],
        "eigen": ["imp/1"],
        "seeds": None,
        "policy": "stored",
        "points": 3,
        "refine": 0,
        "radius": 0.5,
        "tolerance": 0.1,
        "size": 60,
    },
    "topology": {"points": 3, "refine": 0, "size": 60, "buffers": "averaged"},
    "paths": {
        "points": 3,
        "refine": 0,
        "size": 60,
        "buffers": ["batch", "averaged"],
        "from_start": {},
        "start_to_dense": {},
        "aligned": {"branches": ["reinit"]},
        "orders": {"branches": ["imp"]},
        "instability": {"steps": ["0it", "2it"], "orders": 2},
    },
}
"""Every option of every measurement at another value than its default, where it has one."""

TRAINED: dict[str, Any] = {
    "name": "every",
    "seeds": [3],
    "levels": 2,
    "fraction": 0.4,
    "rewind": "2it",
    "branches": ["imp", "oneshot", "reinit"],
    "train": {"epochs": 2, "batch_size": 50, "lr": 0.05, "trajectory": ["3it"]},
}

SET = TRAINED | {"geometry": OPTIONS}
BARE = TRAINED | {"geometry": {name: {} for name in OPTIONS}}
GIVEN = {
    "name": "given",
    "given": [{"name": "one", "path": "one.safetensors"}, {"name": "two", "path": "two.safetensors"}],
    "geometry": {name: {} for name in OPTIONS}
    | {"planes": {"random": ["one"]}, "paths": {"successive": {}, "aligned": {}}},
}

ONE = {"branches": ["imp"], "levels": [1]}
"""The solution that is measured where every branch is trained."""

RUN: dict[str, Any] = {
    "name": "golden",
    "seeds": [3],
    "levels": 2,
    "fraction": 0.4,
    "rewind": "2it",
    "train": {"length": "6it", "batch_size": 50, "lr": 0.05, "trajectory": ["3it"], "dtype": "float64"},
    "geometry": {
        **{name: block | {"parts": 1} | ONE for name, block in OPTIONS.items() if "parts" in block},
        **{name: OPTIONS[name] | ONE for name in ("legs", "prunings", "exits")},
        "spectra": OPTIONS["spectra"]
        | ONE
        | {"parts": 1, "operators": ["hessian", "adaptive"], "steps": 20, "restarts": 0},
        "coordinates": OPTIONS["coordinates"] | ONE | {"parts": 1, "directions": 1, "diagonal": ["ggn"]},
        "training": OPTIONS["training"] | {"parts": 1},
        "volumes": OPTIONS["volumes"] | ONE | {"parts": 1, "spaces": ["own"], "eps": [0.1]},
        "pairs": OPTIONS["pairs"] | ONE | {"parts": 1, "operators": ["adaptive"], "steps": 20, "restarts": 0},
        "connect": OPTIONS["connect"] | {"parts": 1, "branches": ["reinit"], "levels": [1]},
        "planes": OPTIONS["planes"] | {"random": [], "eigen": ["imp/1"]},
        "topology": OPTIONS["topology"] | {"branches": ["dense", "imp"]},
        "paths": {
            **OPTIONS["paths"],
            "buffers": ["averaged"],
            **dict.fromkeys(("successive", "to_dense", "from_start", "start_to_dense", "orders"), ONE),
            "aligned": {"branches": ["reinit"], "levels": [1]},
            "instability": {"steps": ["2it"]},
        },
    },
}
"""A study that is run: every branch at level 1, imp at level 2 too."""
