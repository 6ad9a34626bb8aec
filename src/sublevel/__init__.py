"""sublevel: why winning tickets win.

Find sparse subnetworks by iterative magnitude pruning and by every baseline, and dissect the solutions through the
geometry of the loss landscape.

>>> import torch
>>> import sublevel as sl
>>> field = sl.Quadratic(torch.tensor([4.0, 1.0]))
>>> round(float(sl.curvature.top_eigenvalues(field, torch.zeros(2), k=1).values[0]), 5)
4.0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sublevel._version import __version__ as __version__
from sublevel.errors import check_working_folder as _check_working_folder

_NAMES = {
    "Problem": "sublevel.problem:Problem",
    "Study": "sublevel.study.study:Study",
    "Result": "sublevel.study.result:Result",
    "open": "sublevel.study.result:Result",
    "compare": "sublevel.study.compare:compare",
    "measure": "sublevel.study.measured:measure",
    "answer": "sublevel.study.measured:answer",
    "Ticket": "sublevel.tickets:Ticket",
    "Tickets": "sublevel.loop:Tickets",
    "load_ticket": "sublevel.tickets:load_ticket",
    "Point": "sublevel.space:Point",
    "Space": "sublevel.space:Space",
    "Field": "sublevel.field:Field",
    "Quadratic": "sublevel.field:Quadratic",
    "Wells": "sublevel.field:Wells",
    "ErrorRate": "sublevel.field:ErrorRate",
    "Stochastic": "sublevel.field:Stochastic",
    "EveryExample": "sublevel.field:EveryExample",
    "EmpiricalRisk": "sublevel.risk:EmpiricalRisk",
    "Likelihood": "sublevel.field:Likelihood",
    "MiniBatches": "sublevel.risk:MiniBatches",
    "Recipe": "sublevel.train.recipe:Recipe",
    "SublevelError": "sublevel.errors:SublevelError",
    "curvature": "sublevel.geometry.curvature:",
    "paths": "sublevel.geometry.paths:",
    "planes": "sublevel.geometry.planes:",
    "topology": "sublevel.geometry.topology:",
    "volume": "sublevel.geometry.volume:",
    "distance": "sublevel.geometry.distance:",
    "plot": "sublevel.plot:",
}
"""Public names and where they are defined; imported when first used, so that ``sublevel --help`` is quick."""

if TYPE_CHECKING:
    from sublevel import plot
    from sublevel.errors import SublevelError
    from sublevel.field import ErrorRate, EveryExample, Field, Likelihood, Quadratic, Stochastic, Wells
    from sublevel.geometry import curvature, distance, paths, planes, topology, volume
    from sublevel.loop import Tickets
    from sublevel.problem import Problem
    from sublevel.risk import EmpiricalRisk, MiniBatches
    from sublevel.space import Point, Space
    from sublevel.study.compare import compare
    from sublevel.study.measured import answer, measure
    from sublevel.study.result import Result
    from sublevel.study.result import Result as open
    from sublevel.study.study import Study
    from sublevel.tickets import Ticket, load_ticket
    from sublevel.train.recipe import Recipe

__all__ = [
    "EmpiricalRisk", "ErrorRate", "EveryExample", "Field", "Likelihood", "MiniBatches", "Point", "Problem", "Quadratic",
    "Recipe", "Result", "Space", "Stochastic", "Study", "SublevelError", "Ticket", "Tickets", "Wells", "answer",
    "compare", "curvature", "distance", "load_ticket", "measure", "open", "paths", "planes", "plot", "topology",
    "volume",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'sublevel' has no attribute {name!r}")
    _check_working_folder()
    module, _, attribute = _NAMES[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
