"""The command doctor: is this installation sound?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from sublevel.cli.output import say


def doctor() -> int:
    """Look at this installation: versions, hardware, a known answer."""
    from sublevel.study.machine import machine, versions

    for name, value in (versions() | machine()).items():
        say(f"{name:12} {value}")
    problems = [*_broken_torchvision(), *_wrong_curvature()]
    for problem in problems:
        say(f"problem: {problem}", style="red")
    say("all is well" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def _broken_torchvision() -> Iterator[str]:
    if find_spec("torchvision") is not None:
        try:
            __import__("torchvision")
        except Exception as error:
            yield f"torchvision is installed but does not import ({error}); packages that look for it will break"


def _wrong_curvature() -> Iterator[str]:
    """The spectrum of a quadratic with a double eigenvalue, by the same code that measures networks."""
    import torch

    from sublevel.field import Quadratic
    from sublevel.geometry.curvature import top_eigenvalues

    known = torch.tensor([5.0, 5.0, 3.0, 1.0, -2.0], dtype=torch.float64)
    found = top_eigenvalues(Quadratic(known), torch.zeros(5, dtype=torch.float64), k=3).values
    if not torch.allclose(found, known[:3], atol=1e-9):
        yield f"the largest eigenvalues of a known matrix came out as {found.tolist()}, expected {known[:3].tolist()}"
