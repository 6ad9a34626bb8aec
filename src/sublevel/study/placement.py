"""Where a study's cells run: its executor by name, refused where it cannot be meant."""

from __future__ import annotations

import math
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from sublevel.engine import executors
from sublevel.engine.executors import LOCAL, Executor
from sublevel.errors import ConfigError
from sublevel.study.compute import compute

if TYPE_CHECKING:
    from sublevel.study.study import Study


def jobs(study: Study) -> int:
    """Jobs at once on this machine unless told otherwise: cores / threads, or one for each GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // study.spec.threads) if study.problem.device == "cpu" else max(1, len(gpus(study)))


def gpus(study: Study) -> tuple[str, ...]:
    """The GPUs of this machine that the study may use."""
    return executors.visible(study.problem.device, torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def check(study: Study, executor: Executor | str, asked: int | None, max_hours: float | None = None) -> None:
    """ConfigError for an executor, a number of jobs or a length of time that cannot be meant."""
    if asked is not None and asked < 1:
        raise ConfigError(f"jobs must be at least 1, got {asked}")
    if max_hours is not None and not 0 < max_hours < math.inf:
        raise ConfigError(f"max_hours is a number of hours above 0, got {max_hours:g}")
    if not isinstance(executor, str):
        return
    executors.check(executor)
    _check_together(study.spec.processes, executor)
    if executor != LOCAL and not study.problem.portable:
        raise ConfigError(
            f"executor {executor} runs cells in other processes, and the network is defined where they cannot "
            "import it: put it in a module of its own"
        )


def _check_together(processes: int, executor: str) -> None:
    """As many processes train together as the study says, which is part of its results' identity."""
    from sublevel.engine.executors.torchrun import started

    there = started() if executor == executors.TORCHRUN else 1
    if there == processes:
        return
    command = f"torchrun --nproc-per-node {max(2, processes)} -m sublevel.cli run ... --executor torchrun"
    if executor != executors.TORCHRUN:
        raise ConfigError(f"the study says processes = {processes}: start it with {command}")
    if not there:
        raise ConfigError(f"the executor torchrun is for processes that torchrun has started: {command}")
    raise ConfigError(f"torchrun has started {there} processes, and the study says processes = {processes}")


def make(study: Study, name: str, asked: int | None, waiting: int) -> Executor:
    """The executor for so many waiting cells."""
    usual = study.jobs if name == LOCAL else None
    wanted = usual if asked is None else asked
    setting = executors.Setting(
        store=study.store_at,
        folder=study.folder.resolve(),
        threads=study.spec.threads,
        jobs=wanted and min(wanted, waiting),
        gpus=0.0 if study.problem.device == "cpu" else study.spec.run.gpus,
        visible=gpus(study),
        options=study.spec.run.slurm,
    )
    here = partial(compute, problem=study.problem)
    return executors.make(name, setting, here, here=not study.problem.portable)


def helped(executor: str) -> bool:
    """Whether this process was there to help another one, which runs the study; it has done so when this returns."""
    from sublevel.engine.executors import torchrun

    if executor != executors.TORCHRUN or not torchrun.helps():
        return False
    torchrun.serve()
    return True


def seconds(max_hours: float | None, started: float) -> float:
    """What is left of the time, for a run that started at ``started``."""
    return math.inf if max_hours is None else started + 3600 * max_hours - time.time()


def called(executor: Executor | str) -> str:
    """The name of an executor for people."""
    return executor if isinstance(executor, str) else type(executor).__name__
