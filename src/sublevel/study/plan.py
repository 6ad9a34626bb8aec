"""A plan: the cells of a run, and their estimated cost."""

from __future__ import annotations

from dataclasses import dataclass

from sublevel.engine.graph import Node
from sublevel.engine.schedule import Schedule
from sublevel.own_code import contained
from sublevel.problem import Problem
from sublevel.study import costs
from sublevel.study.cost_history import CostHistory
from sublevel.study.named_code import is_code
from sublevel.study.placement import gpus
from sublevel.study.spec import StudySpec

STARTUP = 8.0
"""Seconds until worker processes have imported PyTorch and read the data."""

SMALL = 5_000_000
"""Largest network, in weights, of which several may share a GPU."""

SHARING = "one job for each GPU: a network of this size leaves it idle much of the time; try --jobs 4 for each GPU"
"""The hint that small networks may share a GPU."""


@dataclass(frozen=True)
class Plan:
    """Cells by kind (``all``, ``cached``, ``failed`` before, ``to run``), and the estimated cost of those to run.

    ``seconds`` on ``jobs`` jobs, with the basis of the estimate in ``judged_by``; ``memory`` bytes of one worker, the
    sum of ``memory_parts``, and bytes of the ``data``, which a machine holds once; ``disk`` bytes added to the store;
    ``own_code`` that would be imported; ``prunable``: the part of the network that may be pruned.
    """

    cells: dict[str, dict[str, int]]
    seconds: float
    judged_by: str
    jobs: int
    memory: int
    memory_parts: dict[str, int]
    data: int
    disk: int
    own_code: list[str]
    prunable: str
    notes: list[str]

    @property
    def to_run(self) -> int:
        """The number of cells to run."""
        return sum(kind["to run"] for kind in self.cells.values())


def make(
    spec: StudySpec, problem: Problem, schedule: Schedule, *, jobs: int, history: CostHistory, notes: list[str],
    keep: int | None = None,
) -> Plan:  # fmt: skip
    """The plan of a study, from the entries in the store and the run times of earlier cells."""
    p, waiting = problem, schedule.look()
    alone = p.device == "cpu" or jobs > len(gpus(p.device)) or p.space.dim > SMALL
    parts = {name: size for name, size in costs.memory(p, spec.train, waiting, keep).items() if size}
    cells: dict[str, dict[str, int]] = {}
    for node in schedule.graph.nodes.values():
        row = cells.setdefault(node.kind, {"all": 0, "cached": 0, "failed": 0, "to run": 0})
        outcome = schedule.outcomes.get(node.id)
        row["all"] += 1
        row["to run" if outcome is None else "cached" if outcome.good else "failed"] += 1
    return Plan(
        cells=cells,
        seconds=_seconds(spec, problem, waiting, jobs, history),
        judged_by="a measurement of half a second" if history.rate is None else "what such cells took here before",
        jobs=jobs,
        memory=sum(parts.values()),
        memory_parts=parts,
        data=p.splits.in_memory,
        disk=sum(costs.disk(node, p) for node in waiting),
        own_code=[code for code in (p.model, p.data, p.loss, p.loop) if isinstance(code, str) and is_code(code)],
        prunable=p.space.describe_prunable(),
        notes=notes if alone else [*notes, SHARING],
    )


def _seconds(spec: StudySpec, problem: Problem, waiting: list[Node], jobs: int, history: CostHistory) -> float:
    work = sum(map(history.model(), waiting))
    if not work:
        return 0.0
    busy = min(jobs, len(waiting))
    with contained():
        rate = history.rate or costs.rate(problem, spec.train, spec.threads)
    return work / rate / busy + (STARTUP if busy > 1 else 0.0)
