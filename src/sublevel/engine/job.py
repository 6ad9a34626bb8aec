"""A job: everything that another process needs to compute one cell, as one JSON string."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from sublevel.engine.partial import Partial
from sublevel.engine.store import Document, Store

Progress = Callable[[dict[str, Any]], None]
"""Takes the progress reports of a cell, as JSON."""


@dataclass(frozen=True)
class Job:
    """One cell. ``key``, ``kind``, ``inputs`` and ``labels`` become part of its entry in the ``store``, an address.

    ``function`` is the import path of its `Compute`. ``context`` is further JSON for that function, not kept in the
    entry. Several processes may compute a cell ``together`` (see the executor torchrun).
    """

    key: str
    kind: str
    inputs: Mapping[str, Any]
    labels: Mapping[str, Any]
    store: str
    function: str
    context: Mapping[str, Any] = field(default_factory=dict)
    together: bool = False

    def text(self) -> str:
        """The job as JSON.

        >>> job = Job("ab" * 32, "sum", {"of": [1, 2]}, {}, "/store", "mine:add")
        >>> Job.of(job.text()) == job
        True
        """
        return json.dumps(vars(self))

    @classmethod
    def of(cls, text: str) -> Job:
        """The inverse of `text`. TypeError or ValueError for an invalid job."""
        return cls(**json.loads(text))

    @property
    def compute(self) -> Compute:
        """The function, imported."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


Compute = Callable[[Job, Store, Partial, Progress], tuple[Document, Mapping[str, Mapping[str, Any]]]]
"""Computes a cell: the JSON of its entry (``values``, ``version``), and named tensors for each of its objects.

Its arguments are the job, the store to load from, the saved state of an earlier attempt, and a callback for progress.
It writes no results: the worker does.
"""
