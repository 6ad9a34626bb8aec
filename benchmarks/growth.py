"""How cost grows: with width, depth and data of one training, with levels and jobs of a study.

    python benchmarks/growth.py       # about four minutes; draws records/DATE-growth.svg beside its record

One thread per training, least of some repetitions. The exponent is the slope of a straight line through the logarithms:
1 is in proportion. Studies are small on purpose; their start-up (seconds) is in their times.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import matplotlib

from common import RECORDS, alone, images, record
from sublevel.problem import Problem
from sublevel.train.recipe import Duration, Recipe

matplotlib.use("svg")
import matplotlib.pyplot as plt

WIDTHS, DEPTHS, SIZES, LEVELS, JOBS = (4, 8, 16, 32), (8, 14, 20, 32), (1000, 2000, 4000, 8000), (2, 4, 8), (1, 2)
STUDY = """
name = "growth"
levels = {levels}
seeds = 2
branches = ["imp", "oneshot"]
[data]
name = "fashion-mnist-small"
train_size = 4000
[model]
name = "lenet-300-100"
[train]
epochs = 4
lr = 0.05
[geometry.legs]
"""


def training(model: str, examples: int, shape: tuple[int, ...], steps: int | None = None, **options: int) -> float:
    """Least seconds of an epoch, or of so many steps."""
    x, y = images(shape, examples)
    problem = Problem(model, train=(x, y), test=(x[:10], y[:10]), validation=0, options=options)
    recipe, start, best = Recipe(length=Duration(1, "ep")), problem.init(0), math.inf
    rates = None if steps is None else [0.01] * steps
    for _ in range(4):
        began = time.perf_counter()
        problem.trained(start, recipe=recipe, seed=0, rates=rates)
        best = min(best, time.perf_counter() - began)
    return best


def study(levels: int, jobs: int) -> float:
    """Seconds of a study's run, start-up and all, without figures."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "growth.toml").write_text(STUDY.format(levels=levels))
        command = [sys.executable, "-m", "sublevel.cli", "run", "growth.toml", "--jobs", str(jobs), "--no-figures"]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def exponent(found: Mapping[int, float]) -> float:
    """The slope of log seconds on log size."""
    x, y = [math.log(k) for k in found], [math.log(v) for v in found.values()]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


PARTS: dict[str, tuple[tuple[int, ...], Callable[[int], float], str]] = {
    "width": (WIDTHS, lambda w: training("resnet-8", 128, (3, 32, 32), 1, width=w), "seconds of a step, ResNet-8"),
    "depth": (DEPTHS, lambda d: training(f"resnet-{d}", 128, (3, 32, 32), 1), "seconds of a step, width 16"),
    "examples": (SIZES, lambda n: training("lenet-300-100", n, (1, 28, 28)), "seconds of an epoch, perceptron"),
    "levels": (LEVELS, lambda n: study(n, 1), "seconds of a study, one job"),
    "jobs": (JOBS, lambda n: study(LEVELS[-1], n), f"seconds of a study of {LEVELS[-1]} levels"),
}


def draw(found: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """A panel for each part, both axes logarithmic."""
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    figure, axes = plt.subplots(1, len(found), figsize=(3 * len(found), 2.8), layout="constrained")
    for axis, (name, values) in zip(axes, found.items(), strict=True):
        axis.loglog(list(values), list(values.values()), "o-", color="#35618f")
        axis.set_xticks(list(values), [str(v) for v in values], minor=False)
        axis.minorticks_off()
        axis.set_xlabel(name)
        axis.set_ylabel(PARTS[name][2])
        axis.set_title(f"exponent {exponent(values):.2f}", fontsize=10)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, draw and record."""
    os.environ["OMP_NUM_THREADS"] = "1"
    alone()
    found = {name: {size: of(size) for size in sizes} for name, (sizes, of, _) in PARTS.items()}
    draw(found, RECORDS / f"{date.today().isoformat()}-growth.svg")
    results = {n: {"what": PARTS[n][2], "seconds": v, "exponent": exponent(v)} for n, v in found.items()}
    record("growth", __file__, {"threads": 1, "results": results})


if __name__ == "__main__":
    main()
