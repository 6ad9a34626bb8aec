"""The command plan: what a run would do, and in what two studies differ."""

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
"""What a plan says that only the study's own code tells."""


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
    """Say what a run would do: cells, what is cached, time, memory and disk, own code that would run.

    To count the cells the study's own network is imported; --no-code shows the study without importing anything.

    Parameters
    ----------
    study
        A preset (demo, mini, paper, paper-vgg16) or a study file.
    diff
        Say instead in what two studies differ, and how many cells they share: presets, study files, or runs. --set
        then overrides keys of the second.
    code
        Import the study's own code (network, loss, training loop). Without it, what needs the code is left out.
    """
    from sublevel.study.differences import difference
    from sublevel.study.named_code import own_code
    from sublevel.study.spec import parse
    from sublevel.study.study import Study

    if diff is not None:
        if study is not None:
            raise ConfigError(f"plan takes one study, or two after --diff; got {study!r} beside them")
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
    """Print a resolved study, of which nothing is imported."""
    from sublevel.study.named_code import format_named_code

    for name in ("name", "model", "data", "loss", "loop", "levels", "seeds"):
        say(f"{name}: {json.dumps(document.get(name))}")
    say(f"branches: {', '.join(branch['label'] or branch['name'] for branch in document['branches'])}")
    for line in (*_fidelity(document), *format_named_code(document)):
        say(line)
    say(f"left out, for they need that code: {', '.join(NEEDS_CODE)}")


def _fidelity(document: Mapping[str, Any]) -> Iterator[str]:
    """What a resolved study's fidelity stands for, and where the study says something else."""
    from sublevel.study.fidelity import followed

    found = list(followed(document))
    name = document["fidelity"]
    yield f"fidelity {name}: {', '.join(f'{key} = {json.dumps(rule)}' for key, value, rule in found if value == rule)}"
    for key, value, rule in found:
        if value != rule:
            yield f"  but {key} = {json.dumps(value)}, as this study says ({name}: {json.dumps(rule)})"


def show_difference(found: Difference) -> None:
    """Print in what two studies differ."""
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
