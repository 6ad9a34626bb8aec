"""Peak memory of transformers: cross-entropy over a large vocabulary, and eigenvalues within a limit.

Each side runs in a process of its own, and its peak is VmHWM of /proc/self/status after everything is imported.

- ``plain``, ``chunks``: loss, gradient and a Hessian product of a language model with 50,257 tokens, with the scores in
  one tensor and in chunks. The numbers, in float32, differ by rounding.
- ``free``, ``limited``: the 4 largest eigenvalues of a GPT-2 of 10 million parameters, without a limit and within the
  share of 16 GB that 10 of 124 million parameters have (beside what a process takes in any case).
- ``plan``: what `sublevel plan --memory 16GB` says of GPT-2 with 124 million parameters.

    python benchmarks/transformer_memory.py [plain] [chunks] [free] [limited] [plan]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common import RECORDS, record

LIMIT, LARGE = 16e9, 124_439_808
"""Bytes of the limit, and parameters of the network that it is for."""

K = 4
"""Eigenvalues within the share of the limit."""


def resident(name: str = "VmHWM") -> int:
    """Bytes that this process has in memory: at most so far (VmHWM), or now (VmRSS)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


class Words(nn.Module):
    """A small body, and a head over a large vocabulary."""

    def __init__(self, vocabulary: int = 50_257, width: int = 32) -> None:
        super().__init__()
        self.embedding, self.mixing = nn.Embedding(vocabulary, width), nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores [N, T, V]."""
        return self.head(torch.tanh(self.mixing(self.embedding(tokens))))


def vocabulary(side: str) -> dict[str, Any]:
    """One pass of each kind over 8 examples of 64 tokens in one batch."""
    import sublevel as sl
    from sublevel import heads

    if side == "plain":
        heads.LARGE = 10**9
    torch.manual_seed(0)
    net = Words()
    x, y = torch.randint(0, 50_257, (2, 8, 64))
    field = sl.EmpiricalRisk(sl.Space.of(net), net, x, y, batch_size=8)
    at, v = field.space.point(net), torch.randn(field.dim)
    before, out = resident("VmRSS"), {}
    out["loss"] = field.loss(at)
    out["gradient"] = float(field.grad(at).double() @ v.double())
    out["product"] = float(field.hvp(at, v).double() @ v.double())
    out["norms"] = [float(field.grad(at).double().norm()), float(field.hvp(at, v).double().norm())]
    return {**out, "peak_above_start_gb": (resident() - before) / 1e9, "scores_gb": 8 * 64 * 50_257 * 4 / 1e9}


def folder(path: Path, **sizes: Any) -> str:
    """A GPT-2 with random weights, and tokens beside it."""
    import transformers

    torch.manual_seed(0)
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    net.save_pretrained(path / "net")
    draw = np.random.default_rng(0)
    (path / "tokens").mkdir()
    for name, n in (("train", 4096), ("val", 512)):
        draw.integers(0, net.config.vocab_size, n).astype(np.uint16).tofile(path / "tokens" / f"{name}.bin")
    return str(path / "net")


def problem(path: Path, length: int) -> Any:
    """The problem of a folder."""
    import sublevel as sl

    how = {"length": length, "windows": 2}
    name = f"hf:{path / 'net'}"
    return sl.Problem(name, data="tokens", root=path / "tokens", data_options=how, validation=0, prunable="matrices")


def eigenvalues(path: str, side: str) -> dict[str, Any]:
    """The largest eigenvalues, in a process whose memory is read."""
    import sublevel as sl
    from sublevel.study import costs
    from sublevel.study.memory_limit import limited
    from sublevel.train.recipe import Recipe

    torch.set_num_threads(1)
    p = problem(Path(path), 8)
    base = costs.process(p)
    limit = base + (LIMIT - base) * p.space.dim / LARGE
    at, rows, batch = p.init(0), None, p.field_batch
    if side == "limited":
        given = [{"name": "a", "path": str(path)}]
        study = sl.Study(p, name="m", given=given, geometry={"spectra": {"k": K, "negative": 0}})
        spectra = limited(study.spec, p, int(limit)).spec.geometry.spectra
        rows, batch = spectra.rows, spectra.batch or batch
    field, began, started = p.field("train", batch_size=batch), time.process_time(), resident("VmRSS")
    found = sl.curvature.top_eigenvalues(field, at, k=K, negative=0, rows=rows)
    return {
        "parameters": p.space.dim, "limit_gb": limit / 1e9, "rows": rows, "batch": batch,
        "values": found.values.tolist(), "bounds": found.bounds.tolist(), "residuals": found.residuals.tolist(),
        "converged": found.converged, "stop": found.stop, "products": found.products,
        "cpu_seconds": time.process_time() - began, "start_gb": started / 1e9, "peak_gb": resident() / 1e9,
        "vector_gb": costs.vector_bytes(p, Recipe()) / 1e9, "process_gb": base / 1e9,
        "batch_gb": costs.batch_bytes(p, Recipe(), batch) / 1e9,
    }  # fmt: skip


def plan(path: str) -> dict[str, Any]:
    """What a plan says of GPT-2's own size within 16 GB."""
    import sublevel as sl

    p = problem(Path(path), 64)
    net = f"{path}/net"
    study = sl.Study(
        p, name="m", given=[{"name": "gpt2", "path": net}], out=f"{path}/runs", memory="16GB",
        geometry={"spectra": {"k": 20, "negative": 0, "spaces": ["all"]}, "density": {}},
    )  # fmt: skip
    found = study.plan(jobs=1)
    return {
        "parameters": p.space.dim, "memory_gb": found.memory / 1e9,
        "parts_gb": {name: size / 1e9 for name, size in found.memory_parts.items()},
        "rows": study.spec.geometry.spectra.rows, "batch": study.spec.geometry.spectra.batch, "notes": found.notes,
        "peak_of_the_plan_gb": resident() / 1e9,
    }  # fmt: skip


def child(*arguments: str) -> dict[str, Any]:
    """A part of this script in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--in", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


PARTS = ("plain", "chunks", "free", "limited", "plan")


def main(*parts: str) -> None:
    """Run the parts that are named, or all, and add them to the record of today."""
    before = RECORDS / f"{date.today().isoformat()}-transformer-memory.json"
    out: dict[str, Any] = json.loads(before.read_text())["parts"] if before.exists() else {}
    for part in parts or PARTS:
        if part in ("plain", "chunks"):
            out[part] = child("vocabulary", part)
            continue
        with tempfile.TemporaryDirectory() as place:
            sizes = {"vocab_size": 2048, "n_positions": 64, "n_embd": 320, "n_layer": 8, "n_head": 8}
            folder(Path(place), **(sizes if part != "plan" else {}))
            out[part] = child(*(("plan", place) if part == "plan" else ("eigenvalues", place, part)))
    if {"free", "limited"} <= set(out):
        pairs = zip(out["free"]["values"], out["limited"]["values"], strict=True)
        out["largest relative difference of free and limited"] = max(abs(a - b) / abs(a) for a, b in pairs)
    record("transformer-memory", __file__, {"parts": out})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in"]:
        print(
            json.dumps({"vocabulary": vocabulary, "eigenvalues": eigenvalues, "plan": plan}[sys.argv[2]](*sys.argv[3:]))
        )
    else:
        main(*sys.argv[1:])
