"""From a study to the graph of all its cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from sublevel.engine.graph import Graph
from sublevel.errors import ConfigError, unknown
from sublevel.prune import score_function
from sublevel.space import Space
from sublevel.study import branches, measurements  # noqa: F401 - branches registers them
from sublevel.study.builder import BRANCHES, OPTIONS, Builder, Solution
from sublevel.study.given import Given
from sublevel.study.given import assemble as assemble_given
from sublevel.study.levels import check_levels
from sublevel.study.solutions import BranchSpec, Order, SolutionsSpec, label
from sublevel.study.spec import StudySpec
from sublevel.train.recipe import LONGEST


def assemble(spec: StudySpec, space: Space, examples: int, given: Sequence[Given] = ()) -> tuple[Graph, list[Solution]]:
    """The graph of all cells of a study, and its solutions, the dense one first within a seed.

    If there are ``given`` points, they are measured and nothing is trained. Raises ConfigError for an unknown branch,
    option or criterion, and for impossible sizes.
    """
    graph, solutions, builders = Graph(), [], {}
    if given:
        solutions, builder = assemble_given(spec, space, graph, list(given))
        measurements.add(measurements.Scene(spec, space, graph, solutions, {builder.seed: builder}), spec.geometry)
        return graph, solutions
    check(spec, space, examples)
    left = [mark for steps in measurements.marks(spec.geometry).values() for mark in steps]
    for seed in spec.seeds:
        base = builders[seed] = Builder(spec, space, examples, graph, seed, order=spec.order, left=left)
        solutions.append(base.dense())
        for chosen in spec.branches:
            order = chosen.order or spec.order
            options = OPTIONS[chosen.name] | dict(chosen.options)
            b = replace(base, name=chosen.name, label=label(spec, chosen), order=order, options=options)
            solutions += [
                b.solve(chosen.name, level)
                for level in (range(1, spec.levels + 1) if chosen.levels is None else chosen.levels)
            ]
    measurements.add(measurements.Scene(spec, space, graph, solutions, builders), spec.geometry)
    return graph, solutions


def check(spec: StudySpec, space: Space, examples: int) -> None:
    """Check a study before anything is written. Raises ConfigError for what cannot run."""
    score_function(spec.criterion)
    for chosen in spec.branches:
        check_branch(chosen)
        check_label(spec, chosen)
    if spec.train.batch_size > examples:
        raise ConfigError(f"train.batch_size {spec.train.batch_size} is larger than the {examples} training examples")
    per_epoch = spec.train.steps_per_epoch(examples)
    steps, rewind = spec.train.steps(examples), spec.rewind.steps(per_epoch)
    if steps > LONGEST:
        raise ConfigError(f"train.length {spec.train.length} is {steps:,} steps; allowed: {LONGEST:,}")
    if not steps:
        raise ConfigError(f"train.length {spec.train.length} has no step: an epoch has {per_epoch}")
    if rewind >= steps:
        raise ConfigError(
            f"rewind {spec.rewind} is step {rewind}, past the end: training has {steps} steps of {per_epoch} an epoch"
        )
    for name in ("warmup", "checkpoints", "trajectory", "milestones"):
        at = getattr(spec.train, name)
        for mark in at if isinstance(at, tuple) else (at,):
            if mark.steps(per_epoch) > steps:
                raise ConfigError(f"train.{name}: {mark} is step {mark.steps(per_epoch)}, past the end at step {steps}")
    _check_marks(spec, per_epoch, rewind)
    check_levels(spec, space)


def _check_marks(spec: StudySpec, per_epoch: int, rewind: int) -> None:
    """Raise ConfigError for a checkpoint of the dense network before its own training starts."""
    for name, at in {"train.checkpoints": spec.train.checkpoints, **measurements.marks(spec.geometry)}.items():
        for mark in at:
            if spec.dense_start == "rewind" and mark.steps(per_epoch) < rewind:
                raise ConfigError(
                    f"{name}: {mark} is step {mark.steps(per_epoch)}, before step {rewind}, where the dense network's "
                    'own training starts (dense_start = "rewind")'
                )


def check_branch(chosen: BranchSpec) -> None:
    """Raise ConfigError for an unknown branch or option."""
    if chosen.name not in BRANCHES:
        raise unknown("branch", chosen.name, BRANCHES, "branches")
    allowed = OPTIONS[chosen.name]
    for option, value in chosen.options.items():
        if option not in allowed:
            raise unknown(f"option of branch {chosen.name!r}", option, allowed or ["none"])
        if type(value) is not type(allowed[option]):
            kind = type(allowed[option]).__name__
            raise ConfigError(f"option {option!r} of branch {chosen.name!r} is a {kind}, got {value!r}")


def check_label(spec: SolutionsSpec, chosen: BranchSpec) -> None:
    """Raise ConfigError for a label that names the solutions of another branch, asked for or needed by others."""
    own = label(spec, chosen.model_copy(update={"label": ""}))
    taken = {"dense", *BRANCHES, *(f"{name}-{order}" for name in BRANCHES for order in get_args(Order))}
    if chosen.label in taken - {own}:
        raise ConfigError(
            f"branch {chosen.name!r}: {chosen.label!r} already names other solutions; give it another label"
        )
