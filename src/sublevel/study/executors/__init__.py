"""Executors: where jobs run. By name: ``local``, ``ray``, ``ray://HOST:PORT``, ``slurm`` or ``torchrun``."""

from __future__ import annotations

from typing import Any

from sublevel.errors import unknown
from sublevel.study.executors.base import Executor, Progress, Setting, WorkerDied
from sublevel.study.executors.local import InProcess, Workers, visible

__all__ = [
    "LOCAL",
    "NAMES",
    "TORCHRUN",
    "Executor",
    "InProcess",
    "Progress",
    "Setting",
    "WorkerDied",
    "Workers",
    "check",
    "make",
    "visible",
]

LOCAL = "local"
TORCHRUN = "torchrun"
NAMES = (LOCAL, "ray", "ray://HOST:PORT", "slurm", TORCHRUN)


def check(name: str) -> None:
    """ConfigError for a name that no executor has."""
    if name not in (LOCAL, "ray", "slurm", TORCHRUN) and not name.startswith("ray://"):
        raise unknown("executor", name, NAMES)


def make(name: str, setting: Setting, problem: Any, here: bool) -> Executor:
    """The executor of that name; ``here`` where only this process can build the problem."""
    if name == "slurm":
        from sublevel.study.executors.slurm import Slurm

        return Slurm(setting)
    if name == TORCHRUN:
        from sublevel.study.executors.torchrun import Torchrun

        return Torchrun(setting)
    if name != LOCAL:
        from sublevel.study.executors.ray import Ray

        return Ray(name, setting)
    jobs = setting.jobs or 1
    return InProcess(problem) if jobs == 1 or here else Workers(jobs, setting.threads, setting.visible)
