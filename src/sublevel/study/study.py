"""A study: a spec joined with its problem, ready to be planned or run."""

from __future__ import annotations

import math
import os
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sublevel.display import Shown
from sublevel.engine.events import Listener, Stream
from sublevel.engine.executors import LOCAL, TORCHRUN, Executor, Workers
from sublevel.engine.graph import Graph, Node, Outcome
from sublevel.engine.job import Job
from sublevel.engine.log import Log
from sublevel.engine.schedule import MakeJob, Schedule
from sublevel.engine.store import Document, Store, canonical, digest, roots, user_address
from sublevel.engine.store.address import relative
from sublevel.errors import ConfigError
from sublevel.files import check_writable, write_text
from sublevel.foreign import bounded
from sublevel.own_code import contained
from sublevel.problem import Problem
from sublevel.study import costs, manifest, placement
from sublevel.study.assemble import assemble
from sublevel.study.branches import about
from sublevel.study.builder import Solution
from sublevel.study.catalogue import KINDS, key, numerics
from sublevel.study.checks import check, check_loop
from sublevel.study.compute import FUNCTION
from sublevel.study.cost_history import CostHistory
from sublevel.study.documents import merged
from sublevel.study.given import Given, files, gathered
from sublevel.study.memory_limit import Limited, limited, parse_memory
from sublevel.study.notes import ALONE, notes
from sublevel.study.placement import device_for
from sublevel.study.plan import Plan, make
from sublevel.study.result import LIVE, Result
from sublevel.study.shortened import read_with_levels
from sublevel.study.spec import parse
from sublevel.study.trackers import check_trackers, trackers
from sublevel.study.watching import summary, watcher

RUNS = "sublevel-runs"


class Study(Shown):
    """A study: what is trained, pruned and measured.

    ``Study("demo")`` and ``Study("my.toml")`` read a preset or a file; ``Study(problem, levels=10, ...)`` takes a
    `Problem` and the keys of a study file as keywords. ``store`` is where the results are, a folder or a URL (default:
    ``sublevel-runs/.store`` in the working directory), ``out`` the folder of runs. Keywords override the keys of a
    preset or file; those in ``train``, ``data`` and ``model`` one by one. ``memory``, such as ``16GB``, limits a
    worker: Lanczos restarts within it, and measurements that do not fit are left out with a note.

    Raises ConfigError, DataError or ModelError for a study that cannot run, before anything is written.
    """

    def __init__(
        self,
        source: str | Mapping[str, Any] | Problem = "demo",
        *,
        out: str | Path = RUNS,
        store: str | Path | None = None,
        device: str = "auto",
        memory: str | None = None,
        **keys: Any,
    ) -> None:
        limit = None if memory is None else parse_memory(memory)
        if isinstance(source, Problem):
            taken = {"data", "model", "loss", "loop"} & set(keys)
            if taken:
                raise ConfigError(f"the problem already sets {', '.join(sorted(taken))}")
            spec = source.spec()
            fixed = {name: getattr(spec, name) for name in ("data", "model", "loss", "loop")}
            self.spec = parse(merged(fixed | {"train": {"dtype": spec.dtype}}, keys))
            self.problem = source.on(device_for(device, source.device), self.spec.train.dtype)
            self._home = source.device
        else:
            if isinstance(source, str):
                document, _ = read_with_levels(source, keys.get("levels"))
            else:
                document = dict(source)
            self.spec = parse(merged(document, keys), source if isinstance(source, str) else "")
            self.problem, self._home = Problem.of(self.spec.problem(device_for(device))), "cpu"
        self._limited: Limited | None = None
        if limit is not None:
            with contained():
                self._limited = limited(self.spec, self.problem, limit)
            self.spec = self._limited.spec
        self.out = Path(os.path.abspath(out))  # the user's code may change the working folder
        self.store_at = user_address(store if store is not None else self.out / ".store")
        try:
            bounded(relative(self.store_at, self.folder))
        except ValueError as error:
            raise ConfigError(f"the store in {self.store_at!a} cannot be named in a manifest: {error}") from None

    @property
    def folder(self) -> Path:
        """The folder of the run's outputs."""
        return self.out / self.spec.name

    @cached_property
    def cells(self) -> tuple[Graph, list[Solution]]:
        """The graph of all cells, and the solutions among them."""
        with contained():
            check(self.problem, self.spec)
        graph, solutions = assemble(self.spec, self.problem.space, len(self.problem.splits.train), self._given)
        check_loop(self.problem, graph)
        manifest.check_size(self.spec.document(), self.problem, graph)
        return graph, solutions

    @cached_property
    def numerics(self) -> dict[str, Any]:
        """The numerics class of every cell."""
        return numerics(self.problem.device, self.spec.train.dtype, self.spec.threads, self.spec.processes)

    def _facts(self) -> dict[str, object]:
        s = self.spec
        return {
            "": s.name,
            "network": self.problem.name,
            "branches": [b.label or b.name for b in s.branches],
            "levels": s.levels,
            "seeds": len(s.seeds),
            "folder": os.path.relpath(self.folder),
        }

    def plan(self, jobs: int | None = None) -> Plan:
        """The plan of a run; nothing is written."""
        placement.check(self.spec, self.problem, LOCAL, jobs)
        history = self._cost_history()
        schedule = self._schedule(Store(self.store_at), history)
        keep = None if self._limited is None else self._limited.keep_bytes
        how: dict[str, Any] = {"jobs": jobs or self.jobs, "history": history, "notes": self.notes(), "keep": keep}
        return make(self.spec, self.problem, schedule, **how)

    @property
    def jobs(self) -> int:
        """Jobs at once on this machine by default: cores / threads, or one for each GPU."""
        return placement.jobs(self.spec.threads, self.problem.device)

    def run(
        self,
        *,
        jobs: int | None = None,
        executor: Executor | str = LOCAL,
        listener: Listener | None = None,
        track: Sequence[str] = (),
        max_hours: float | None = None,
        report: bool = True,
        figures: bool = True,
        progress: bool = True,
    ) -> Result:
        """Compute the cells that are not in the store, write tables and report, and return the result.

        ``figures`` writes every figure for print (half a second each); the page shows all of them in any case. Results
        do not depend on ``jobs``, the number of cells at once (default: cores / threads, or the room on a cluster), nor
        on the ``executor``: worker processes here, ``ray``, ``ray://HOST:PORT``, ``slurm``, or your own. A failed cell
        is reported, and only the cells that need it are skipped. A ``listener`` is called with every `Event`, and so
        are the trackers named in ``track`` (``tensorboard``, ``wandb``). After ``max_hours`` no cell starts; running
        cells finish. In a notebook or on a terminal a bar shows the ``progress`` and the time left, unless
        there is a ``listener``.
        """
        started = time.monotonic()
        placement.check(self.spec, self.problem, executor, jobs, max_hours)
        check_trackers(track)
        _ = self.cells
        for note in self.notes() if listener is None else ():
            if not (note == ALONE and jobs == 1):
                warnings.warn(note, stacklevel=2)
        store = self._writable_store()
        damaged = set(store.damaged())
        problem, history = self._description(store), self._cost_history()
        called = executor if isinstance(executor, str) else type(executor).__name__
        log = Log(self.folder, {"study": self.spec.name, "executor": called})
        bar = watcher() if progress and listener is None else None
        others = [*trackers(track, self.folder, self.spec), *(each for each in (listener, bar) if each is not None)]
        schedule = self._schedule(store, history, Stream(log, history, *others))
        waiting = schedule.look()
        roots.begin(store, self._root(schedule.outcomes, problem, finished=False))
        with schedule.logged():
            if waiting or executor == TORCHRUN:  # its other processes wait for a message
                seconds = math.inf if max_hours is None else started + 3600 * max_hours - time.monotonic()
                self._compute(schedule, problem, executor, jobs, seconds)
        aside = sorted(set(store.damaged()) - damaged)
        roots.finish(store, self._root(schedule.outcomes, problem, finished=True))
        self._write_manifest(schedule.outcomes, problem, seconds=time.monotonic() - started, damaged=aside)
        home = self.problem
        if home.device != self._home:
            home = home.on(self._home, self.spec.train.dtype)
        result = Result(self.folder, problem=home)
        if problem is None:
            LIVE[str(self.folder.resolve())] = home
        if report:
            result.write(figures=figures)
        if bar is not None:
            failed, last = sum(c["status"] == "failed" for c in result.unfinished), result.document["last_run"]
            words = summary(last["computed"], len(result.document["cells"]), last["seconds"], failed)
            bar.end(words, result.folder / "report.html" if report else None)
        return result

    def _writable_store(self) -> Store:
        """The store, with the given points. Raises StoreError if it or the run's folder is read-only."""
        store = Store(self.store_at)
        store.check_writable()
        check_writable(self.folder)
        for data in (d for each in self._given for d in (each.point, each.mask) if d is not None):
            store.put(data)
        return store

    def _compute(
        self, schedule: Schedule, problem: Document | None, executor: Executor | str, jobs: int | None, seconds: float
    ) -> None:
        """Compute the cells that are not in the store on the executor, and shut it down in any case."""
        if isinstance(executor, str):
            executor = placement.make(
                self.spec, self.problem, executor, jobs, len(schedule.look()), store=self.store_at, folder=self.folder
            )
        try:
            splits = self.problem.share() if isinstance(executor, Workers) else None
            schedule.run(executor, self._jobs(problem, splits), seconds)
        finally:
            executor.shutdown()

    def notes(self) -> list[str]:
        """Notes for the user on how this study runs."""
        found = notes(self.spec, self.problem, self._given, cached=self._fingerprint is not None)
        return [*(self._limited.notes if self._limited else ()), *found]

    @cached_property
    def _given(self) -> list[Given]:
        """The points that were trained elsewhere, read and checked."""
        found = gathered(self.spec.given, self.problem)
        if found:
            from sublevel.field import check_deterministic

            few = min(64, len(self.problem.splits.train))
            with contained():
                check_deterministic(self.problem.field("train", size=few), found[0].at.to(self.problem.device))
        return found

    @cached_property
    def _fingerprint(self) -> dict[str, Any] | None:
        return self.problem.fingerprint()

    def _description(self, store: Store) -> Document | None:
        """The problem as JSON for other processes, with the kind of its device; the executor chooses which one."""
        if not self.problem.portable:
            return None
        tensors = self.problem.own_tensors()
        spec = self.problem.spec(stored=None if tensors is None else store.put_tensors(tensors))
        return spec.model_copy(update={"device": torch.device(self.problem.device).type}).document()

    def _root(self, outcomes: Mapping[str, Outcome], problem: Document | None, finished: bool) -> roots.Root:
        """The root of the study, for garbage collection."""
        keys = [o.key for o in outcomes.values() if o.entry]
        return roots.of_run(self.spec.document(), self.numerics, keys, problem, finished)

    def _write_manifest(
        self, outcomes: Mapping[str, Outcome], problem: Document | None, *, seconds: float, damaged: Sequence[str]
    ) -> None:
        """Write the manifest: the cells with their keys, and the versions and hardware of the run."""
        settled = [outcomes[name] for name in self.cells[0].nodes]
        computed = len({o.key for o in settled if o.status == "done"})
        document = {
            "study": self.spec.document(),
            "store": relative(self.store_at, self.folder),
            "cells": [manifest.cell(o) for o in settled],
            "numerics": self.numerics,
            "problem": problem,
            "about": {
                **manifest.about_problem(self.problem),
                **manifest.about_cells(settled),
                **manifest.made_with(self.folder, computed, self.problem.device),
                "notes": self.notes(),
                "branches": about(chosen.name for chosen in self.spec.branches),
                **({"checkpoints": files(self.spec.given, self._given)} if self.spec.given else {}),
            },
            "last_run": {"seconds": round(seconds, 3), "computed": computed, "damaged": list(damaged)},
        }
        write_text(self.folder / manifest.MANIFEST, manifest.text(document))

    def _cost_history(self) -> CostHistory:
        """The run times of such cells on this machine."""
        of = {"problem": self._fingerprint or self.problem.name, "numerics": self.numerics}
        return CostHistory(self.out, of, costs.units(self.problem))

    def _schedule(self, store: Store, history: CostHistory, tell: Listener = lambda event: None) -> Schedule:
        identity = self._fingerprint or {"uncached": uuid.uuid4().hex}

        def keyed(node: Node, inputs: Any) -> str:
            return key(node.kind, inputs, identity, self.numerics)

        return Schedule(self.cells[0], store, keyed, history.model(), tell)

    def _jobs(self, problem: Document | None, splits: str | None) -> MakeJob:
        """The function that makes the job of a cell, for processes that find the ``splits`` by name."""
        identity = self._fingerprint and digest(canonical(self._fingerprint))
        context = {"problem": problem, "identity": identity, "splits": splits, "threads": self.spec.threads}
        if self._limited is not None:
            context["keep_bytes"] = self._limited.keep_bytes

        def job(node: Node, name: str, inputs: Any) -> Job:
            labels = {**node.labels, "cell": node.id, "study": self.spec.name}
            together = KINDS[node.kind].trains
            return Job(name, node.kind, inputs, labels, self.store_at, FUNCTION, context, together)

        return job
