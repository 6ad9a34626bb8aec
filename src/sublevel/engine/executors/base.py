"""The protocol of executors, in the shape of ``concurrent.futures``: jobs and answers are JSON strings."""

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
        """The number of jobs at once. It may change during a run, as machines come and go."""
        ...

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Start a job. Its future returns the answer or raises WorkerDied. Any thread may call ``progress``."""
        ...

    def shutdown(self) -> None:
        """Stop all workers, and running jobs with them. Entries are written atomically, so only time is lost."""
        ...


class WorkerDied(Exception):
    """A worker process ended without an answer: it was killed, ran out of memory, or its machine failed."""


@dataclass(frozen=True)
class Setting:
    """The settings of an executor: the address of the store, the run's folder, and the resources of a cell.

    ``jobs`` is the number of cells at once (None: as many as fit), ``gpus`` the share of a GPU per cell (0 on the CPU),
    ``visible`` the GPUs of this machine, ``options`` the study's options for Slurm.
    """

    store: str
    folder: Path
    threads: int
    jobs: int | None = None
    gpus: float = 0.0
    visible: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def own_paths() -> list[str]:
    """The folders on ``sys.path`` outside the Python installation, which hold the user's modules."""
    roots = tuple(os.path.realpath(p) + os.sep for p in {sys.prefix, sys.base_prefix})
    found = [os.path.abspath(p or os.getcwd()) for p in sys.path]
    return [p for p in dict.fromkeys(found) if not (os.path.realpath(p) + os.sep).startswith(roots)]


def import_from(paths: list[str]) -> None:
    """Put these folders at the front of ``sys.path``."""
    sys.path[:] = [*paths, *(p for p in sys.path if p not in paths)]
