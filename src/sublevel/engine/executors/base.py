"""What an executor is: jobs and answers are JSON strings, in the shape of ``concurrent.futures``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sublevel.engine.job import Progress


class Executor(Protocol):
    """Runs jobs; about ``slots`` of them at once. Results go through the store alone."""

    @property
    def slots(self) -> int:
        """How many jobs run at once; it may change while a study runs, as machines come and go."""
        ...

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Start a job; the future holds its answer, or WorkerDied. ``progress`` may be called from any thread."""
        ...

    def shutdown(self) -> None:
        """End everything, running jobs too. Cells are whole or absent, so nothing is lost but their time."""
        ...


class WorkerDied(Exception):
    """A worker process ended without an answer: killed, out of memory, or with its machine."""


@dataclass(frozen=True)
class Setting:
    """What an executor is made for: where the store and the run's folder are, and what a cell takes.

    ``jobs`` is how many cells to run at once (None: as many as there is room for), ``gpus`` what each takes of one (0
    where the study runs on the CPU), ``visible`` the GPUs of this machine, ``options`` what the study asks of Slurm.
    """

    store: str
    folder: Path
    threads: int
    jobs: int | None = None
    gpus: float = 0.0
    visible: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def own_paths() -> list[str]:
    """The folders outside the installation from which this process imports: those of the user's modules."""
    roots = tuple(os.path.realpath(p) + os.sep for p in {sys.prefix, sys.base_prefix})
    found = [os.path.abspath(p or os.getcwd()) for p in sys.path]
    return [p for p in dict.fromkeys(found) if not (os.path.realpath(p) + os.sep).startswith(roots)]


def import_from(paths: list[str]) -> None:
    """Import from these folders too, before the installation and in their order."""
    sys.path[:] = [*paths, *(p for p in sys.path if p not in paths)]
