"""The command plan: the plan of a run, or the differences between two studies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sublevel.cli.options import RUNS, Device, Memory, Out, Set, StoreAt, announce, raw_study
from sublevel.cli.output import clock, say
from sublevel.errors import ConfigError

if TYPE_CHECKING:
    from sublevel.study.differences import Difference
    from sublevel.study.study import Study

NEEDS_CODE = ("cells", "what is cached", "time", "memory", "disk")
"""Parts of a plan that need the study's own code."""


def plan(
    study: str | None = None,
    *,
    diff: tuple[str, str] | None = None,
    overrides: Set = (),
    jobs: int | None = None,
    code: bool = True,
    out: Out = RUNS,
    store: StoreAt = None,
    device: Device = "auto",
    memory: Memory = None,
) -> None:
    """Show the plan of a run: cells, cached ones, time, memory and disk, and your own code that would run.

    Counting the cells imports the study's own network; --no-code shows the study without importing anything.

    Parameters
    ----------
    study
        A preset (demo, mini, paper, paper-vgg16) or a study file.
    diff
        Show instead the differences between two studies, and the number of shared cells: presets, study files, or
        runs. --set then overrides keys of the second.
    code
        Import the study's own code (network, loss, training loop). Without it, the parts that need it are left out.
    """
    from sublevel.study.differences import difference
    from sublevel.study.named_code import own_code
    from sublevel.study.spec import parse
    from sublevel.study.study import Study

    if diff is not None:
        if study is not None:
            raise ConfigError(f"plan takes one study, or two after --diff; got {study!r} with them")
        show_difference(difference(*diff, overrides=overrides, out=out, device=device, code=code))
        return
    if study is None:
        raise ConfigError("plan takes a study: a preset or a study file; or two after --diff")
    document = raw_study(study, overrides)
    if not code and own_code(resolved := parse(document, study).document()):
        show_without_code(resolved)
        return
    chosen = Study(document, out=out, store=store, device=device, memory=memory)
    announce(chosen)
    show_plan(chosen, jobs)


def show_plan(study: Study, jobs: int | None) -> None:
    """Print the plan of a study."""
    plan = study.plan(jobs)
    table = Table("cells", "all", "cached", "failed before", "to run", box=None, pad_edge=False)
    for kind, row in plan.cells.items():
        table.add_row(kind, *(str(row[c]) for c in ("all", "cached", "failed", "to run")))
    say(f"study {study.spec.name}: {study.problem.splits.origin}")
    say(f"network {study.spec.model.name}: {study.problem.space.dim:,} parameters")
    say(plan.prunable)
    for line in _fidelity(study.spec.document()):
        say(line)
    say(table)
    say(f"time: about {clock(plan.seconds)} on {plan.jobs} jobs (by {plan.judged_by})")
    say(
        f"memory: about {plan.memory / 2**30:.1f} GiB per worker and {plan.data / 2**30:.1f} GiB of data for all; "
        f"disk: about {plan.disk / 2**20:.0f} MiB more"
    )
    say(f"memory of a worker: {', '.join(f'{name} {size / 1e9:.2f} GB' for name, size in plan.memory_parts.items())}")
    for note in plan.notes:
        say(f"note: {note}")


def show_without_code(document: Mapping[str, Any]) -> None:
    """Print a resolved study without importing any of its code."""
    from sublevel.study.named_code import format_named_code

    for name in ("name", "model", "data", "loss", "loop", "levels", "seeds"):
        say(f"{name}: {json.dumps(document.get(name))}")
    say(f"branches: {', '.join(branch['label'] or branch['name'] for branch in document['branches'])}")
    for line in (*_fidelity(document), *format_named_code(document)):
        say(line)
    say(f"left out, because it needs that code: {', '.join(NEEDS_CODE)}")


def _fidelity(document: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a study's fidelity sets, and those that the study overrides."""
    from sublevel.study.fidelity import followed

    found = list(followed(document))
    name = document["fidelity"]
    yield f"fidelity {name}: {', '.join(f'{key} = {json.dumps(rule)}' for key, value, rule in found if value == rule)}"
    for key, value, rule in found:
        if value != rule:
            yield f"  but {key} = {json.dumps(value)}, set by this study ({name}: {json.dumps(rule)})"


def show_difference(found: Difference) -> None:
    """Print the differences between two studies."""
    for title, rows in (("field", found.fields), ("cells", found.cells)):
        columns = found.names if title == "field" else (*found.names, "in both")
        table = Table(title, *columns, box=None, pad_edge=False)
        for name, row in rows.items():
            table.add_row(name, *map(str, row))
        if rows:
            say(table)
        elif title == "field":
            say("no field differs")
    say(f"cells are not compared: {found.reason}" if found.reason else f"networks in both: {found.networks}")
