"""Executors: where jobs run. By name: ``local``, ``ray``, ``ray://HOST:PORT``, ``slurm`` or ``torchrun``."""

from __future__ import annotations

from sublevel.engine.executors.base import Executor, Setting, WorkerDied
from sublevel.engine.executors.local import InProcess, Workers, visible
from sublevel.engine.job import Compute
from sublevel.errors import unknown

__all__ = [
    "LOCAL", "NAMES", "TORCHRUN", "Executor", "InProcess", "Setting", "WorkerDied", "Workers", "check", "make",
    "visible",
]  # fmt: skip

LOCAL = "local"
TORCHRUN = "torchrun"
NAMES = (LOCAL, "ray", "ray://HOST:PORT", "slurm", TORCHRUN)


def check(name: str) -> None:
    """Raise ConfigError for an unknown executor."""
    if name not in (LOCAL, "ray", "slurm", TORCHRUN) and not name.startswith("ray://"):
        raise unknown("executor", name, NAMES)


def make(name: str, setting: Setting, compute: Compute | None = None, here: bool = False) -> Executor:
    """The executor of that name. In this process jobs call ``compute``; ``here`` forces them into this process."""
    if name == "slurm":
        from sublevel.engine.executors.slurm import Slurm

        return Slurm(setting)
    if name == TORCHRUN:
        from sublevel.engine.executors.torchrun import Torchrun

        return Torchrun(setting)
    if name != LOCAL:
        from sublevel.engine.executors.ray import Ray

        return Ray(name, setting)
    jobs = setting.jobs or 1
    return InProcess(compute) if jobs == 1 or here else Workers(jobs, setting.threads, setting.visible)
