"""The command doctor: check this installation."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec

from sublevel.cli.output import say

AGREE = 1e-4
"""Largest allowed difference between GPU and CPU in float32, relative to the vector: rounding without TF32."""


def doctor() -> int:
    """Check this installation: versions, hardware, and known results."""
    from sublevel.study.machine import machine, versions
    from sublevel.study.placement import device_for

    device = device_for("auto")
    about = versions() | machine(device) | {"engine": "eager (train.engine = auto)", "precision": "float32, TF32 off"}
    for name, value in about.items():
        say(f"{name:12} {value}")
    problems = [*_wrong_curvature(), *_unused_gpu()]
    if find_spec("torchvision") is not None:
        try:
            __import__("torchvision")
        except Exception as error:
            problems.append(f"torchvision is installed but cannot be imported ({error}); packages that use it fail")
    if device != "cpu":
        problems += _wrong_gpu(device)
    for problem in problems:
        say(f"problem: {problem}", style="red")
    say("no problems" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def _wrong_curvature() -> Iterator[str]:
    """Check the spectrum of a quadratic with a double eigenvalue, by the code that measures networks."""
    import torch

    from sublevel.field import Quadratic
    from sublevel.geometry.curvature import top_eigenvalues

    known = torch.tensor([5.0, 5.0, 3.0, 1.0, -2.0], dtype=torch.float64)
    found = top_eigenvalues(Quadratic(known), torch.zeros(5, dtype=torch.float64), k=3).values
    if not torch.allclose(found, known[:3], atol=1e-9):
        yield f"the largest eigenvalues of a known matrix are {found.tolist()}, expected {known[:3].tolist()}"


def _unused_gpu() -> Iterator[str]:
    """Find a GPU that a PyTorch without CUDA cannot use."""
    import torch

    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if listed.returncode == 0 and listed.stdout.startswith("GPU"):
            yield (
                f"there is a GPU ({listed.stdout.splitlines()[0].partition(' (')[0]}), but this PyTorch is a CPU "
                "build: install one for CUDA (https://pytorch.org/get-started)"
            )


def _wrong_gpu(device: str) -> Iterator[str]:
    """Compare a training step and a Hessian product of a small ResNet on the GPU with the CPU."""
    import torch

    from sublevel.problem import Problem
    from sublevel.rng import generator
    from sublevel.train.recipe import Duration, Recipe

    recipe = Recipe(length=Duration(1, "it"), batch_size=64, lr=0.1)
    found: dict[str, list[torch.Tensor]] = {}
    try:
        for place in ("cpu", device):
            problem = Problem("resnet-8", train_size=100, test_size=10, validation=0, device=place)
            start = problem.init(0)
            end = problem.trained(start, recipe=recipe, seed=0).end.theta - start.theta
            v = torch.randn(problem.space.dim, generator=generator(0, "probe")).to(place)
            found[place] = [end.cpu(), problem.field("train").hvp(start, v).cpu()]
    except RuntimeError as error:
        yield f"{device} fails: {str(error).splitlines()[0]}"
        return
    for what, here, there in zip(("training step", "Hessian product"), found[device], found["cpu"], strict=True):
        apart = float((here - there).norm() / there.norm())
        say(f"{what:15} on {device} against the CPU: relative difference {apart:.0e}")
        if not apart < AGREE:
            yield f"a {what} on {device} differs from the CPU's by {apart:.1e} of its norm"
