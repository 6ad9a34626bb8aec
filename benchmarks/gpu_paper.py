"""The protocol of arXiv 2403.15022 on one GPU, in slices of some minutes: ResNet-20 on CIFAR-10.

    python benchmarks/gpu_paper.py --data cifar10-jpeg.tar.xz --state state --out out

Needs torch, numpy and safetensors, and this package on PYTHONPATH. The data are an archive of JPEG images in
`train/<class>/*.jpg` and `test/<class>/*.jpg`, or the folder of the binary version of CIFAR-10. A slice goes on where
the archives in --state leave off, in the middle of a training to the same bits, and writes what it did as one archive
and tables into --out; copy that archive beside the others, and run the next. When nothing is left it says so, and
exits with 0; else with 75.

What it computes, in this order: imp for every seed; reinit, random-prune and oneshot at the chosen levels; the largest
Hessian eigenvalues; the segments between successive solutions and to the dense one. The tables have the names and
columns of a study's. The steps are captured as one CUDA graph where twenty of them end where those of the eager engine
do; the record says what was used.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from parity import apart
from slices import Archive, OutOfTime, Slice, about_of
from sublevel.data import load as source
from sublevel.geometry import paths
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.problem import Problem
from sublevel.prune import counts, select
from sublevel.prune.scores import magnitude, random
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.train.recipe import Duration, Recipe

UNFINISHED = 75
"""The exit code of a slice after which work is left (EX_TEMPFAIL)."""

RESERVE = 20.0
"""Seconds of a slice that are kept for measuring and writing."""


@dataclass(frozen=True)
class Settings:
    """What is computed. Everything but the defaults is for trying the script out."""

    model: str = "resnet-20"
    width: int = 16
    train_size: int = 0
    epochs: int = 160
    rewind: int = 2000
    levels: int = 10
    seeds: int = 3
    chosen: tuple[int, ...] = (3, 6, 10)
    size: int = 10_000
    k: int = 20
    points: int = 21
    tf32: bool = False
    bf16: bool = False

    def recipe(self, engine: str) -> Recipe:
        """The paper's: SGD at 0.1 with momentum 0.9, a tenth of it after a half and three quarters."""
        drops = tuple(Duration(self.epochs * share, "ep") for share in (0.5, 0.75))
        return Recipe(
            length=Duration(self.epochs, "ep"), schedule="milestones", milestones=drops, crop=4, flip=True,
            engine=engine, tf32=self.tf32, bf16=self.bf16,
        )  # fmt: skip


class Paper:
    """The cells, each computed once."""

    def __init__(self, problem: Problem, settings: Settings, archive: Archive, slice_: Slice, engine: str) -> None:
        self.problem, self.settings, self.archive, self.slice = problem, settings, archive, slice_
        self.recipe = settings.recipe(engine)

    def tasks(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """All of them, by name, in their order."""
        s = self.settings
        seeds, branches = range(s.seeds), ("reinit", "random-prune", "oneshot")
        chosen = [level for level in s.chosen if level <= s.levels]
        for seed in seeds:
            for level in range(s.levels + 1):
                yield self._solution("imp" if level else "dense", level, seed)
        for seed in seeds:
            for branch in branches:
                for level in chosen:
                    yield self._solution(branch, level, seed)
        for seed in seeds:
            for branch, level in [("dense", 0), *(("imp", n) for n in chosen), *(("reinit", n) for n in chosen)]:
                yield f"spectrum/{branch}/{level}/{seed}", lambda b=branch, n=level, i=seed: self.spectrum(b, n, i)
        for seed in seeds:
            for level in range(1, s.levels + 1):
                for kind in ("successive", "to-dense"):
                    yield f"path/{kind}/{level}/{seed}", lambda k=kind, n=level, i=seed: self.path(k, n, i)

    def _solution(self, branch: str, level: int, seed: int) -> tuple[str, Callable[[], None]]:
        return f"solution/{branch}/{level}/{seed}", lambda: self.solution(branch, level, seed)

    def run(self) -> bool:
        """Go on until nothing is left (True) or the time is up (False)."""
        for name, compute in self.tasks():
            if name in self.archive.known:
                continue
            if self.slice.left < 0:
                return False
            print(f"{name}  ({self.slice.left:.0f} s left)", flush=True)
            try:
                compute()
            except OutOfTime:
                return False
        return True

    def mask(self, branch: str, level: int, seed: int) -> Tensor:
        """Imp's and oneshot's masks by magnitude, random-prune's at random; all with imp's exact counts."""
        space, keep = self.problem.space, counts(self.problem.space, 0.2, level)
        draw = generator(seed, f"prune:{level}")
        score = random if branch == "random-prune" else magnitude
        end, parent = self.end(*(("imp", level - 1, seed) if branch == "imp" and level > 1 else ("dense", 0, seed)))
        return select(space, score(end.to("cpu"), None, draw), parent.cpu(), keep)

    def solution(self, branch: str, level: int, seed: int) -> None:
        """Train one network, and evaluate it on all training and test examples."""
        self.slice.task, p = f"{branch}/{level}/{seed}", self.problem
        mask, start, first = None, p.init(seed), 0
        if branch == "reinit":
            mask, start = self.end("imp", level, seed)[1], p.init(seed, f"reinit:{level}")
        elif branch != "dense":
            mask, first = self.mask(branch, level, seed).to(p.device), self.settings.rewind
            start = self.point(f"start/{seed}").to(p.device)
        began, marks = time.monotonic(), [self.settings.rewind] if branch == "dense" else []
        done = p.trained(
            start, recipe=self.recipe, seed=seed, mask=mask, first=first, checkpoints=marks, checkpointer=self.slice
        )
        seconds = time.monotonic() - began
        row: dict[str, Any] = {"branch": branch, "level": level, "seed": seed}
        row["density"] = 1.0 if mask is None else float(mask[p.space.prunable.to(mask.device)].float().mean())
        for split in ("train", "test"):
            seen = p.field(split).evaluate(done.end)
            row |= {f"{split}_loss": seen.loss, f"{split}_error": seen.error}
        row |= {"seconds_of_last_slice": seconds, "train_loss_augmented": done.history[-1]["train_loss"]}
        for step, point in done.checkpoints.items():
            self.put(f"start/{seed}", point, None, {"step": step})
        self.put(f"solution/{branch}/{level}/{seed}", done.end, mask, row)

    def spectrum(self, branch: str, level: int, seed: int) -> None:
        """The largest eigenvalues of the Hessian on the subset, in the solution's own subspace."""
        end, mask = self.end(branch, level, seed)
        began = time.monotonic()
        found = top_eigenvalues(self.problem.field("train", size=self.settings.size), end, k=self.settings.k, mask=mask)
        row = {"branch": branch, "level": level, "seed": seed, "seconds": time.monotonic() - began}
        row |= {"products": found.products, "converged": found.converged, "values": found.values.tolist()}
        row |= {"residuals": found.residuals.tolist()}
        self.archive.put(f"spectrum/{branch}/{level}/{seed}", json.dumps(row).encode())

    def path(self, kind: str, level: int, seed: int) -> None:
        """The segment from the level before, or from the dense solution."""
        other = ("imp", level - 1, seed) if kind == "successive" and level > 1 else ("dense", 0, seed)
        field_ = self.problem.field("train", size=self.settings.size)
        ends = self.end(*other)[0], self.end("imp", level, seed)[0]
        found = paths.segment(field_, *ends, points=self.settings.points, refine=2)
        rows = [
            {"kind": kind, "level": level, "seed": seed, "alpha": float(a), "loss": float(loss), "error": float(error)}
            for a, loss, error in zip(found.alphas, found.loss, found.error, strict=True)
        ]
        self.archive.put(f"path/{kind}/{level}/{seed}", json.dumps(rows).encode())

    def put(self, name: str, point: Point, mask: Tensor | None, row: dict[str, Any]) -> None:
        """A point, its zeros left out."""
        kept = torch.ones_like(point.theta, dtype=torch.bool) if mask is None else mask
        found = {"values": point.theta[kept], **{f"buffer:{n}": b for n, b in point.buffers.items()}}
        found["mask"] = torch.from_numpy(np.packbits(kept.cpu().numpy()))
        content = save({n: t.cpu().contiguous() for n, t in found.items()}, metadata={"about": json.dumps(row)})
        self.archive.put(name, content)

    def end(self, branch: str, level: int, seed: int) -> tuple[Point, Tensor]:
        """A solution's point on the device, and its mask."""
        name = f"solution/{branch}/{level}/{seed}"
        return self.point(name).to(self.problem.device), self.kept(name).to(self.problem.device)

    def point(self, name: str) -> Point:
        """The way back from `put`."""
        found, kept = load(self.archive.known[name]), self.kept(name)
        theta = torch.zeros(len(kept))
        theta[kept] = found["values"]
        return Point(theta, {n.removeprefix("buffer:"): b for n, b in found.items() if n.startswith("buffer:")})

    def kept(self, name: str) -> Tensor:
        """Its mask."""
        bits = load(self.archive.known[name])["mask"].numpy()
        return torch.from_numpy(np.unpackbits(bits)[: self.problem.space.dim].astype(bool))


def images(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test images and labels of an archive of JPEG images, or of CIFAR-10's binary files."""
    if path.is_dir():
        data = source("cifar10", root=path)
        return (data.train_x, data.train_y), (data.test_x, data.test_y)
    import jpeg

    files: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(".jpg"):
                file = tar.extractfile(member)
                files["/".join(Path(member.name).parts[-3:])] = file.read() if file else b""
    classes = sorted({name.split("/")[1] for name in files})
    found = []
    for split in ("train", "test"):
        names = sorted(name for name in files if name.startswith(f"{split}/"))
        x = torch.from_numpy(jpeg.decode([files[name] for name in names])).permute(0, 3, 1, 2).contiguous()
        found.append((x, torch.tensor([classes.index(name.split("/")[1]) for name in names])))
    return found[0], found[1]


def tables(archive: Archive) -> dict[str, str]:
    """What is known as CSV files."""
    levels = [about_of(c) for name, c in archive.known.items() if name.startswith("solution/")]
    spectra = [json.loads(c) for name, c in archive.known.items() if name.startswith("spectrum/")]
    flat = [
        {k: v for k, v in row.items() if k not in ("values", "residuals")} | {"index": i, "value": v, "residual": r}
        for row in spectra
        for i, (v, r) in enumerate(zip(row["values"], row["residuals"], strict=True), start=1)
    ]
    profiles = [row for name, c in archive.known.items() if name.startswith("path/") for row in json.loads(c)]
    found = {}
    for name, rows in {"levels": levels, "spectra": flat, "paths": profiles}.items():
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["nothing yet"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        found[f"{name}.csv"] = file.getvalue()
    return found


def engine_for(problem: Problem, settings: Settings) -> tuple[str, float | str]:
    """``graph`` where its twenty steps end where eager ones do, and the distance between them; else ``eager``."""
    if problem.device == "cpu":
        return "eager", 0.0
    distance = apart(problem, settings.recipe("eager"))
    return ("graph" if isinstance(distance, float) and distance < 1e-4 else "eager"), distance


def main(arguments: list[str]) -> int:
    """One slice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="archive of images, or folder of the binary files")
    parser.add_argument("--state", type=Path, default=Path("state"), help="the archives of earlier slices")
    parser.add_argument("--out", type=Path, help="where this slice's archive and the tables go (default: --state)")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, default in asdict(Settings()).items():
        how = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        if isinstance(default, tuple):
            how = {"type": int, "nargs": "+", "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    given = vars(parser.parse_args(arguments))
    settings = Settings(**{name: given[name] for name in asdict(Settings())})
    settings = replace(settings, chosen=tuple(settings.chosen))
    began, out = time.monotonic(), given["out"] or given["state"]
    archive = Archive.read(given["state"])
    wanted = json.dumps(asdict(settings)).encode()
    if archive.known.setdefault("settings", wanted) != wanted:
        print(f"{given['state']} holds results of other settings: {archive.known['settings'].decode()}")
        return 2
    archive.put("settings", wanted)
    train, test = images(given["data"])
    problem = Problem(
        settings.model, train=train, test=test, validation=0, train_size=settings.train_size or None,
        options={"width": settings.width}, device=given["device"],
    )  # fmt: skip
    if given["device"] != "cpu":
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    engine, distance = engine_for(problem, settings)
    paper = Paper(problem, settings, archive, Slice(archive, began + 60 * given["minutes"] - RESERVE), engine)
    finished = paper.run()
    if finished:
        archive.put("under-way", b"")
    print(f"wrote {archive.write(out)}")
    for name, text in tables(archive).items():
        (out / name).write_text(text, encoding="utf-8")
    hardware = torch.cuda.get_device_name() if given["device"] != "cpu" else "CPU"
    record = {"date": date.today().isoformat(), "script": "gpu_paper.py", "hardware": hardware}
    record |= {"torch": torch.__version__, "engine": engine, "graph against eager, 20 steps": distance}
    record |= {"settings": asdict(settings), "slices": archive.slices + 1, "finished": finished}
    (out / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("finished" if finished else "work is left: run the next slice")
    return 0 if finished else UNFINISHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
