"""A new thing is one file: added to a copy of the package, it is in the study, the documentation and the report.

The copy has one file more for each kind of thing and nothing else is edited. One process runs a study with all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny_runs

ROOT = Path(__file__).parents[2]

FILES = {
    "data/stripes.py": '''
        import torch
        from sublevel.data.sources import Dataset, source

        @source("stripes")
        def stripes(root, *, noise: float = 0.1):
            """Points in the plane; the class is the sign of the first coordinate."""
            x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
            y = (x[:, 0] > 0).long()
            return Dataset("stripes", x[:80], y[:80], x[80:], y[80:], ("left", "right"), "points that were drawn")
    ''',
    "models/zoo/narrow.py": '''
        from sublevel.models.registry import model
        from torch import nn

        @model("narrow")
        def narrow(input_shape, classes, *, width: int = 6):
            """One narrow hidden layer."""
            return nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, classes))
    ''',
    "prune/cubed.py": '''
        from sublevel.prune.registry import score

        @score("cubed")
        def cubed(point, field, generator):
            """The cube of the magnitude."""
            return point.theta.abs() ** 3
    ''',
    "study/branches/early.py": '''
        from sublevel.study.builder import branch

        @branch("early", criterion="")
        def early(b, level):
            """Pruned at step k by the weights there, and trained on."""
            mask = b.prune(b.rewound, None, level, b.label)
            return b.train(level, start={"point": b.rewound}, mask=mask, pruned=b.rewound)
    ''',
    "study/measurements/sharpness.py": '''
        from pydantic import Field
        from sublevel.space import Point
        from sublevel.study.cells import Context, Output, cell, used
        from sublevel.study.measurements.base import Scene, measurement
        from sublevel.study.options import Examples
        from sublevel.tables import SOLUTION, table

        class SharpnessSpec(Examples):
            """The rise of the loss at a distance ``rho`` along the gradient."""

            rho: float = Field(default=0.05, gt=0)

        SHARPNESS = table("sharpness", SOLUTION, "part, 'buffers', 'sign', rho\\nrise: of the train loss")
        """How steep the loss is along its gradient."""

        def cells(scene: Scene, block: SharpnessSpec) -> None:
            for s in scene.admitted(block):
                scene.add("sharpness", s, options=block, inputs={"point": s.end})

        def compute(c: Context, options: SharpnessSpec, *, point: str, part: int = 0) -> Output:
            field, at = c.field(options, part), c.point(point)
            g = field.grad(at)
            rise = field.loss(Point(at.theta + options.rho * g / g.norm(), at.buffers)) - field.loss(at)
            sign = "up" if rise > 0 else "down"
            return Output({"buffers": field.policy, "sign": sign, "rho": options.rho, "rise": rise})

        def rows(study, labels, entry):
            yield "sharpness", {**labels, **entry["values"]}

        def cost(inputs, sizes):
            return 2 * used(inputs, sizes)

        cell("sharpness", 1, compute, options=SharpnessSpec, rows=rows, cost=cost)
        measurement("sharpness", SharpnessSpec, cells)
    ''',
    "geometry/volume/mean_curvature.py": '''
        from math import log
        from sublevel.geometry.curvature import trace
        from sublevel.geometry.volume.estimators import Option, Volume, estimator, log_unit_ball, undefined

        PROBES = {"signs": Option(8, least=2, argument="probes")}

        @estimator("mean-curvature", options=PROBES, cost=lambda options, heights: 3 * options["probes"])
        def mean_curvature(field, theta, *, mask=None, probes: int = 20):
            """The ball of the mean curvature."""
            found = trace(field, theta, mask=mask, probes=probes)
            n = len(theta.theta) if mask is None else int(mask.sum())

            def at(eps):
                if found.value <= 0:
                    return undefined(n, eps, "the trace is not positive")
                radius = (2 * eps * n / found.value) ** 0.5
                return Volume(log_unit_ball(n) + n * log(radius), radius, n, eps, diagnostics={"probes": probes})

            return at
    ''',
    "claims/early.py": '''
        from sublevel.claims import ClaimPart, claim, compared

        @claim("C99", "Pruning early is no worse than iterative pruning.", figure="sharpness")
        def early(tables):
            measured = compared(tables, "early", "imp", "test error")
            words = {"holds": "no worse", "fails": "worse"}
            yield ClaimPart(name="early - imp", unit="test error", measured=measured, high=0.1, **words)
    ''',
    "report/figures/sharpness.py": '''
        from sublevel.report.describe import Figure, view
        from sublevel.report.figures.common import density_panels
        from sublevel.report.figures.registry import figure
        from sublevel.report.prepare import with_density

        @figure("Curvature", "rise along the gradient", "sharpness")
        def sharpness(tables):
            """The rise against density."""
            frame = with_density(tables["sharpness"], tables["levels"])
            assert set(frame["sign"]) <= {"up", "down"}, "a column of text reaches the figure as text"
            panels = density_panels(frame, [("rise", "Rise of the loss", 1.0, False)])
            words = {"title": "Rise along the gradient", "how": "How.", "trap": "Trap."}
            return Figure(key="sharpness", views=[view(panels)], **words)
    ''',
}  # fmt: skip
"""What is added, by the path of its file in the package."""

RUN = """
import importlib.util, json, sys
import sublevel as sl

study = sl.Study(json.loads(sys.argv[1]), out="runs")
plan = study.plan(jobs=1)
result = study.run(jobs=1, figures=False)
spec = importlib.util.spec_from_file_location("generate", sys.argv[2])
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
json.dump({
    "package": sl.__file__,
    "cells": plan.cells,
    "tables": {name: table.to_dict("records") for name, table in result.tables.items()},
    "docs": {name: write() for name, write in generate.GENERATED.items() if name not in ("commands", "margins")},
    "page": (result.folder / "report.html").read_text(encoding="utf-8"),
    "model": result.document["about"]["model"],
}, open("found.json", "w"))
"""

STUDY = {
    "name": "one",
    "levels": 1,
    "fraction": 0.5,
    "rewind": "2it",
    "seeds": [0, 1],
    "data": {"name": "stripes", "validation": 20},
    "model": {"name": "narrow", "options": {"width": 5}},
    "branches": ["imp", {"name": "early", "options": {"criterion": "cubed"}}],
    "train": {"length": "6it", "batch_size": 20},
    "geometry": {
        "sharpness": {"rho": 0.1},
        "volumes": {"methods": ["mean-curvature"], "signs": 3, "spaces": ["own"], "eps": [0.1]},
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a study with all of them gave, in a copy of the package that has a file more for each."""
    folder = tmp_path_factory.mktemp("one")
    package = folder / "site" / "sublevel"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "sublevel", package, copy_function=os.symlink, ignore=ignored)
    for name, text in FILES.items():
        assert not (package / name).exists()
        (package / name).write_text("\n".join(line.removeprefix(" " * 8) for line in text.splitlines()))
    command = [sys.executable, "-c", RUN, json.dumps(STUDY), str(ROOT / "docs" / "generate.py")]
    environment = tiny_runs.environment(PYTHONPATH=str(folder / "site"))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads((folder / "found.json").read_text())
    assert answer["package"] == str(package / "__init__.py")
    return answer


@pytest.mark.slow
def test_a_measurement(found: dict[str, Any]) -> None:
    rows = found["tables"]["sharpness"]
    assert {(row["branch"], row["seed"]) for row in rows} >= {("dense", 0), ("imp", 1), ("early-cubed", 1)}
    assert all(row["rho"] == 0.1 and row["sign"] == ("up" if row["rise"] > 0 else "down") for row in rows)
    assert found["cells"]["sharpness"]["all"] == len(rows)
    assert "### `geometry.sharpness`\n\nThe rise of the loss at a distance `rho`" in found["docs"]["blocks"]
    assert "| `rho` | `0.05` |" in found["docs"]["blocks"]
    assert "## sharpness\n\nHow steep the loss is along its gradient.\n\nOf a [solution]" in found["docs"]["tables"]
    assert "| `rise` | of the train loss |" in found["docs"]["tables"]


@pytest.mark.slow
def test_a_volume_estimator(found: dict[str, Any]) -> None:
    rows = [row for row in found["tables"]["volumes"] if row["method"] == "mean-curvature"]
    assert len(rows) == len(found["tables"]["sharpness"])
    assert any(row["log_volume"] == row["log_volume"] for row in rows), "none is a number"
    assert "| `signs` | `8` |" in found["docs"]["blocks"]


@pytest.mark.slow
def test_a_branch_and_a_score(found: dict[str, Any]) -> None:
    level = next(row for row in found["tables"]["levels"] if row["branch"] == "early-cubed")
    assert (level["base"], level["criterion"], level["density"]) == ("early", "cubed", 0.5)
    assert "| `early` | Pruned at step k" in found["docs"]["branches"]
    assert "| `cubed` | The cube of the magnitude. |" in found["docs"]["scores"]
    assert "early-cubed" in found["page"]


@pytest.mark.slow
def test_a_network_and_a_data_set(found: dict[str, Any]) -> None:
    assert found["model"]["name"] == "narrow"
    assert found["model"]["parameters"] == 2 * 5 + 5 + 5 * 2 + 2
    assert "| `narrow` | One narrow hidden layer. |" in found["docs"]["models"]
    assert "| `stripes` | Points in the plane" in found["docs"]["sources"]
    assert "points that were drawn" in found["page"]


@pytest.mark.slow
def test_a_claim(found: dict[str, Any]) -> None:
    verdict = next(row for row in found["tables"]["verdicts"] if row["claim"] == "C99")
    assert verdict["verdict"] != "not measured"
    assert "| C99 | Pruning early is no worse than iterative pruning. |" in found["docs"]["claims"]
    assert "Pruning early is no worse than iterative pruning." in found["page"]


@pytest.mark.slow
def test_a_figure(found: dict[str, Any]) -> None:
    assert "Rise along the gradient" in found["page"]
