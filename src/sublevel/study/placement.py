"""Where the cells of a study run: the device, and the executor by name."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path

import torch

from sublevel.engine import executors
from sublevel.engine.executors import LOCAL, TORCHRUN, Executor
from sublevel.errors import ConfigError
from sublevel.problem import Problem
from sublevel.problem.checks import check_device
from sublevel.study.compute import compute
from sublevel.study.spec import StudySpec


def device_for(asked: str, own: str = "cpu") -> str:
    """The device of a name: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``. Raises ConfigError if it cannot be used.

    ``auto`` is the problem's ``own`` device if that is a GPU, otherwise a GPU if there is one, otherwise the CPU.
    """
    if asked == "auto":
        asked = "cuda" if own == "cpu" and torch.cuda.is_available() else own
    try:
        torch.zeros(1, device=check_device(asked))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {asked!r} cannot be used: {str(error).splitlines()[0]}") from None
    return asked


def jobs(threads: int, device: str) -> int:
    """Jobs at once on this machine by default: cores / threads, or one for each GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads if device == "cpu" else len(gpus(device)))


def gpus(device: str) -> tuple[str, ...]:
    """The GPUs of this machine that a study on ``device`` may use."""
    return executors.visible(device, torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def check(
    spec: StudySpec, problem: Problem, executor: Executor | str, asked: int | None, max_hours: float | None = None
) -> None:
    """Raise ConfigError for an impossible executor, number of jobs or time limit."""
    if asked is not None and asked < 1:
        raise ConfigError(f"jobs must be at least 1, got {asked}")
    if max_hours is not None and not 0 < max_hours < math.inf:
        raise ConfigError(f"max_hours is a number of hours above 0, got {max_hours:g}")
    if not isinstance(executor, str):
        return
    executors.check(executor)
    _check_together(spec.processes, executor)
    if executor != LOCAL and not problem.portable:
        raise ConfigError(
            f"executor {executor} runs cells in other processes, and the network is defined where they cannot "
            "import it: put it in a module of its own"
        )


def _check_together(processes: int, executor: str) -> None:
    """Raise ConfigError unless as many processes train together as the study says, which is part of the key."""
    from sublevel.engine.executors.torchrun import started

    there = started() if executor == TORCHRUN else 1
    if there == processes:
        return
    command = f"torchrun --nproc-per-node {max(2, processes)} -m sublevel.cli run ... --executor torchrun"
    if executor != TORCHRUN:
        raise ConfigError(f"the study says processes = {processes}: start it with {command}")
    if not there:
        raise ConfigError(f"the executor torchrun is for processes that torchrun has started: {command}")
    raise ConfigError(f"torchrun has started {there} processes, and the study says processes = {processes}")


def make(
    spec: StudySpec, problem: Problem, name: str, asked: int | None, waiting: int, *, store: str, folder: Path
) -> Executor:
    """The executor of a name, for a number of waiting cells."""
    usual = jobs(spec.threads, problem.device) if name == LOCAL else None
    wanted = usual if asked is None else asked
    setting = executors.Setting(
        store=store,
        folder=folder.resolve(),
        threads=spec.threads,
        jobs=wanted and min(wanted, waiting),
        gpus=0.0 if problem.device == "cpu" else spec.run.gpus,
        visible=gpus(problem.device),
        options=spec.run.slurm,
    )
    return executors.make(name, setting, partial(compute, problem=problem), here=not problem.portable)


def helped(executor: str) -> bool:
    """Serve as a helper of another process, which runs the study; True if torchrun started this process for that."""
    from sublevel.engine.executors import torchrun

    if executor != TORCHRUN or not torchrun.helps():
        return False
    torchrun.serve()
    return True
