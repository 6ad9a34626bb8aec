"""The paper's protocol in slices, in a tiny form on the CPU: what is cut anywhere ends with the same bytes."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_runs import python

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TINY = [
    *("--model", "resnet-8", "--width", "2", "--epochs", "4", "--rewind", "2", "--levels", "2", "--seeds", "1"),
    *("--chosen", "2", "--size", "16", "--k", "1", "--points", "3", "--device", "cpu", "--minutes", "60"),
]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("gpu", "gpu_paper", "jpeg", "parity", "slices"):
        sys.modules.pop(name, None)


def jpeg_of(image: np.ndarray, **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **how)
    return file.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Two classes that differ in colour, 100 and 20 images."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("images") / "images.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for split, count in (("train", 100), ("test", 20)):
            for i in range(count):
                image = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                image[..., i % 2] += 100
                content = jpeg_of(image, quality=75)
                member = tarfile.TarInfo(f"cifar/{split}/{'ab'[i % 2]}/{i:03}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with (folder / f"{table}.csv").open() as file:
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]


def test_slices_end_where_one_run_does(archive: Path, tmp_path: Path, monkeypatch) -> None:
    import gpu_paper

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    given = ["--data", str(archive), *TINY]
    assert gpu_paper.main([*given, "--state", str(whole)]) == 0

    steps = iter(range(10**6))
    monkeypatch.setattr(gpu_paper.Slice, "left", property(lambda self: 1.0 - next(steps) % 17 // 16 * 2.0))
    for _ in range(40):  # every seventeenth look at the clock says that the time is up
        code = gpu_paper.main([*given, "--state", str(cut)])
        if code == 0:
            break
        assert code == gpu_paper.UNFINISHED
    record = json.loads((cut / "record.json").read_text())
    assert record["finished"]
    assert record["slices"] > 2
    for table in ("levels", "spectra", "paths"):
        assert rows(cut, table) == rows(whole, table)
        assert rows(whole, table)

    levels = rows(whole, "levels")
    assert [(row["branch"], row["level"]) for row in levels] == [
        ("dense", "0"), ("imp", "1"), ("imp", "2"), ("reinit", "2"), ("random-prune", "2"), ("oneshot", "2"),
    ]  # fmt: skip
    assert len({row["density"] for row in levels[2:]}) == 1, "all have imp's count"
    ends = {row["alpha"]: row for row in rows(whole, "paths") if (row["kind"], row["level"]) == ("to-dense", "2")}
    assert {"0.0", "1.0"} <= set(ends)
    said = gpu_paper.main([*given, "--state", str(cut), "--seeds", "2"])
    assert said == 2, "results of other settings are not gone on with"


def test_many_images_are_decoded_as_pillow_does() -> None:
    import jpeg

    rng = np.random.default_rng(1)
    smooth = np.cumsum(rng.normal(0, 8, (12, 29, 37, 3)), axis=1).clip(-120, 120) + 120
    images = smooth.astype(np.uint8)
    for how in ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"quality": 50, "optimize": True}):
        files = [jpeg_of(image, **how) for image in images]
        want = np.stack([np.asarray(Image.open(io.BytesIO(f)).convert("RGB")) for f in files]).astype(int)
        got = jpeg.decode(files).astype(int)
        assert np.abs(got - want).max() <= 4
        assert np.abs(got - want).mean() < 0.2
    grey = [jpeg_of(image[..., 0]) for image in images]
    assert (
        np.abs(jpeg.decode(grey)[..., 1].astype(int) - np.asarray([Image.open(io.BytesIO(g)) for g in grey])).max() <= 1
    )


def test_what_is_no_such_image_is_refused() -> None:
    import jpeg

    image = jpeg_of(np.zeros((32, 32, 3), np.uint8) + 77)
    noise = jpeg_of(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    progressive = jpeg_of(np.zeros((32, 32, 3), np.uint8), progressive=True)
    for damaged, word in (
        (b"\x89PNG....", "not a JPEG"), (image[:100], "ends in its header"), (progressive, "baseline"),
        (noise[:-200] + b"\xff\xd9", "no code"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            jpeg.decode([damaged])
    with pytest.raises(ValueError, match="several sizes"):
        jpeg.decode([image, jpeg_of(np.zeros((16, 16, 3), np.uint8))])


def test_the_benchmark_of_a_gpu_runs_on_a_cpu(tmp_path: Path, capsys) -> None:
    import gpu

    tiny = ["--device", "cpu", "--tiny", "--models", "lenet-300-100", "resnet-8", "--networks", "2"]
    assert gpu.main([*tiny, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    training = found["training"]["lenet-300-100"]
    assert training["graph against eager after 20 steps, relative distance"] < 1e-5
    assert training["float32, graph, images per second"]["median"] > 0
    assert found["geometry"]["products"] > 2
    capsys.readouterr()
    if not torch.cuda.is_available():
        assert gpu.main(["--out", str(tmp_path)]) == 2
        assert "no CUDA GPU here" in capsys.readouterr().out


def test_the_engines_are_compared_on_the_smaller_last_batch_too(scripts, monkeypatch) -> None:
    import gpu
    import parity
    from sublevel.train.graph import Graphed
    from sublevel.train.weights import Weights

    sizes: dict[type, list[int]] = {Graphed: [], Weights: []}
    for engine in sizes:

        def counted(self, x, y, lr, engine=engine, step=engine.step):
            sizes[engine].append(len(x))
            return step(self, x, y, lr)

        monkeypatch.setattr(engine, "step", counted)
    bench = gpu.Bench("cpu", tiny=True)
    assert parity.apart(bench.problem("lenet-300-100"), bench.recipe("lenet-300-100"), 4) < 1e-5
    assert sizes == {Graphed: [128, 2, 128, 2], Weights: [128, 2, 128, 2]}


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {allowed!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import gpu, gpu_paper, torch
x, y = torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10
gpu.Problem("resnet-20", train=(x, y), test=(x, y), validation=0).splits
"""


def test_both_need_torch_numpy_and_safetensors_alone(tmp_path: Path) -> None:
    """Of what the package declares, that is."""
    project = tomllib.loads((BENCHMARKS.parent / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[]", need)[0] for need in project["dependencies"]} - {"torch", "numpy", "safetensors"}
    assert len(names) > 8
    blocked = sorted({"pillow": "PIL"}.get(name, name) for name in names - {"fsspec"})  # which torch itself needs
    done = python("-c", BLOCKED.replace("{allowed!r}", repr(blocked)), BENCHMARKS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
