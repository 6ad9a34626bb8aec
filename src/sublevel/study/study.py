"""A study: a spec joined with its problem, ready to be planned or run."""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sublevel.engine.events import Log, Several
from sublevel.engine.executors import LOCAL, TORCHRUN, Executor, Workers
from sublevel.engine.graph import Graph, Node
from sublevel.engine.job import Job
from sublevel.engine.schedule import TIME, Listener, Outcome, Schedule, urgencies
from sublevel.engine.store import Store, canonical, digest, roots, user_address
from sublevel.errors import ConfigError
from sublevel.own_code import contained
from sublevel.problem import Problem
from sublevel.study import costs, placement
from sublevel.study.assemble import assemble
from sublevel.study.builder import Solution
from sublevel.study.cells import TRAININGS, key, numerics
from sublevel.study.checks import check, check_loop
from sublevel.study.compute import FUNCTION
from sublevel.study.cost_history import Spent, Weigh
from sublevel.study.documents import merged, read
from sublevel.study.given import Given, gathered
from sublevel.study.plan import Plan, make
from sublevel.study.problems import device_for, is_own
from sublevel.study.result import Result, check_writable, write_manifest
from sublevel.study.spec import parse
from sublevel.study.trackers import check_trackers, trackers

RUNS = "sublevel-runs"


class Study:
    """Everything that is trained, pruned and measured, and with what.

    ``Study("demo")`` and ``Study("my.toml")`` read a preset or a file; ``Study(problem, levels=10, ...)`` takes a
    `Problem` and the keys of a study file as keywords. ``store`` is where the results are, a folder or a URL (default:
    ``sublevel-runs/.store`` in the working directory), ``out`` the folder of runs. Keywords override the keys of a
    preset or file; those in ``train``, ``data`` and ``model`` one by one.

    Raises ConfigError, DataError or ModelError for what cannot be run, before anything is written.
    """

    def __init__(
        self,
        source: str | Mapping[str, Any] | Problem = "demo",
        *,
        out: str | Path = RUNS,
        store: str | Path | None = None,
        device: str = "auto",
        **keys: Any,
    ) -> None:
        if isinstance(source, Problem):
            taken = {"data", "model", "loss", "loop"} & set(keys)
            if taken:
                raise ConfigError(f"the problem already says {', '.join(sorted(taken))}")
            spec = source.spec()
            fixed = {name: getattr(spec, name) for name in ("data", "model", "loss", "loop")}
            self.spec = parse(merged(fixed | {"train": {"dtype": spec.dtype}}, keys))
            self.problem = source.on(device_for(device, source.device), self.spec.train.dtype)
        else:
            document = read(source) if isinstance(source, str) else dict(source)
            self.spec = parse(merged(document, keys), source if isinstance(source, str) else "")
            self.problem = Problem.of(self.spec.problem(device_for(device)))
        self.out = Path(os.path.abspath(out))  # code of the user's own may leave the working folder
        self.store_at = user_address(store if store is not None else self.out / ".store")

    @property
    def folder(self) -> Path:
        """Where the run's outputs go."""
        return self.out / self.spec.name

    @cached_property
    def cells(self) -> tuple[Graph, list[Solution]]:
        """The graph of all cells, and the solutions among them."""
        with contained():
            check(self.problem, self.spec)
        graph, solutions = assemble(self.spec, self.problem.space, len(self.problem.splits.train), self._given)
        check_loop(self.problem, graph)
        return graph, solutions

    @cached_property
    def numerics(self) -> dict[str, Any]:
        """The numerics class of every cell."""
        return numerics(self.problem.device, self.spec.train.dtype, self.spec.threads, self.spec.processes)

    def plan(self, jobs: int | None = None) -> Plan:
        """What a run would do and cost; nothing is written."""
        placement.check(self, LOCAL, jobs)
        spent = self._spent()
        schedule = self._schedule(Store(self.store_at), spent.weigh())
        return make(self, schedule, schedule.look(), jobs or self.jobs, spent)

    @property
    def jobs(self) -> int:
        """Jobs at once on this machine unless told otherwise: cores / threads, or one for each GPU."""
        return placement.jobs(self)

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
    ) -> Result:
        """Run what is not in the store, write tables and report, return the result.

        Without ``figures`` the page has all of them, and none is written for print (half a second each).
        ``jobs`` cells at once (default: cores / threads, or the room on a cluster) do not change any number, nor does
        the ``executor``: worker processes here, ``ray``, ``ray://HOST:PORT``, ``slurm``, or one of one's own. A failed
        cell is reported, and stops only what needs it. A ``listener`` is told what happens, and so are the trackers
        named in ``track`` (``tensorboard``, ``wandb``). After ``max_hours`` no cell is begun; those that run end.
        """
        started = time.time()
        placement.check(self, executor, jobs, max_hours)
        check_trackers(track)
        _ = self.cells
        for note in self.notes() if listener is None else ():
            warnings.warn(note, stacklevel=2)
        store = Store(self.store_at)
        store.check_writable()
        check_writable(self.folder)
        damaged = set(store.damaged())
        for data in (d for each in self._given for d in (each.point, each.mask) if d is not None):
            store.put(data)
        problem = self._description(store)
        log = Log(self.folder, {"study": self.spec.name, "executor": placement.called(executor)})
        spent = self._spent()
        weigh = spent.weigh()
        told = Several([log, spent, *trackers(track, self), listener or Listener()])
        schedule = self._schedule(store, weigh, told)
        waiting = schedule.look()
        roots.begin(store, self._root(schedule.outcomes, problem, finished=False))
        why = "interrupted"
        try:
            told.begin(len(schedule.outcomes), waiting, {n.id: weigh(n) for n in waiting})
            if waiting or executor == TORCHRUN:  # whose other processes wait to be told
                by = placement.make(self, executor, jobs, len(waiting)) if isinstance(executor, str) else executor
                try:
                    splits = self.problem.share() if isinstance(by, Workers) else None
                    schedule.run(by, self._jobs(problem, splits), placement.seconds(max_hours, started))
                finally:
                    by.shutdown()
            why = TIME if schedule.left else "done"
        except Exception as error:
            why = str(error)
            raise
        finally:
            told.ended(why)
        aside = sorted(set(store.damaged()) - damaged)
        roots.finish(store, self._root(schedule.outcomes, problem, finished=True))
        write_manifest(self, schedule.outcomes, seconds=time.time() - started, damaged=aside, problem=problem)
        result = Result(self.folder, problem=self.problem)
        if report:
            result.write(figures=figures)
        return result

    def notes(self) -> list[str]:
        """What a reader should know about how this study runs."""
        notes = [note for each in self._given for note in each.notes]
        notes += self._of_network()
        if self._fingerprint is None:
            code = ["network", *(name for name in ("loss", "loop") if is_own(getattr(self.problem, name)))]
            notes.append(
                f"the code of the {' or the '.join(code)} cannot be read whole (it was typed, edited since it was "
                "imported, or holds objects that no text tells) and has no version, so its cells are not cached: "
                "give Problem(version=...) to keep them"
            )
        if not self.problem.portable:
            notes.append(
                "the network, or code of your own beside it, is defined where other processes cannot import "
                "it, so cells run one at a time in this process: put it in a module of its own to use several"
            )
        rates = self.spec.train.rates(len(self.problem.splits.train))
        rate = next((r for r in reversed(rates) if r > 0), self.spec.train.lr)
        tunes = any(b.name.startswith("finetune") for b in self.spec.branches)
        if tunes and self.spec.finetune_lr is None and rate < self.spec.train.lr / 1000:
            notes.append(
                f"fine-tuning runs at the schedule's last rate, {rate:.2g}, which hardly moves a weight: "
                "set finetune_lr (chosen on held-out images) to compare with it"
            )
        return notes

    def _of_network(self) -> list[str]:
        """Remarks on parameters that training does not reach, and on a network most of which cannot be pruned."""
        space, notes = self.problem.space, []
        if not self.spec.given and self.problem.loop is None and (unused := self.problem.unused):
            some = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
            notes.append(
                f"the training loss does not depend on {some}: their gradient is 0, and only weight decay moves them"
            )
        if 2 * int(space.prunable.sum()) < space.dim:
            notes.append(
                f"only {space.describe_prunable()}; a density is a share of the prunable ones; prunable = 'matrices' "
                "(--set 'model.prunable=[\"matrices\"]') adds recurrent weights, attention's in_proj and GPT-2's Conv1D"
            )
        return notes

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

    def _description(self, store: Store) -> dict[str, Any] | None:
        """The problem for other processes; which device of its kind it is on is the executor's business."""
        if not self.problem.portable:
            return None
        tensors = self.problem.own_tensors()
        spec = self.problem.spec(stored=None if tensors is None else store.put_tensors(tensors))
        return spec.model_copy(update={"device": torch.device(self.problem.device).type}).document()

    def _root(self, outcomes: Mapping[str, Outcome], problem: Mapping[str, Any] | None, finished: bool) -> roots.Root:
        """What the study reaches, for the collection of garbage."""
        keys = [o.key for o in outcomes.values() if o.entry]
        return roots.of_run(self.spec.document(), self.numerics, keys, problem, finished)

    def _spent(self) -> Spent:
        """What cells like this study's have cost on this machine."""
        of = {"problem": self._fingerprint or self.problem.name, "numerics": self.numerics}
        return Spent(self.out, of, costs.units(self.problem))

    def _schedule(self, store: Store, weigh: Weigh, listener: Listener | None = None) -> Schedule:
        graph, _ = self.cells
        identity = self._fingerprint or {"uncached": uuid.uuid4().hex}

        def keyed(node: Node, inputs: Any) -> str:
            return key(node.kind, inputs, identity, self.numerics)

        return Schedule(graph, store, keyed, urgencies(graph, weigh), listener or Listener())

    def _jobs(self, problem: Mapping[str, Any] | None, splits: str | None) -> Callable[[Node, str, Any], Job]:
        """What makes the job of a cell, for processes that find the ``splits`` by that name."""
        identity = self._fingerprint and digest(canonical(self._fingerprint))
        context = {"problem": problem, "identity": identity, "splits": splits, "threads": self.spec.threads}

        def job(node: Node, name: str, inputs: Any) -> Job:
            labels = {**node.labels, "cell": node.id, "study": self.spec.name}
            together = node.kind in TRAININGS
            return Job(name, node.kind, inputs, labels, self.store_at, FUNCTION, context, together)

        return job
