"""Parameters and first steps that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sublevel.cli.output import say

if TYPE_CHECKING:
    from sublevel.study.study import Study

Set = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative=(), show_default=False, help="Override a key of the study: train.lr=0.05"),
]
Out = Annotated[Path, Parameter(help="Folder of runs")]
StoreAt = Annotated[
    str | None,
    Parameter(name="--store", help="Store of results: a folder, or s3://BUCKET/FOLDER (default: OUT/.store)"),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1")]
Memory = Annotated[
    str | None,
    Parameter(help="Most memory of a worker, such as 16GB: Lanczos restarts within it, what does not fit is left out"),
]
Where = Annotated[
    str, Parameter(name="--executor", help="Where cells run: local, ray, ray://HOST:PORT, slurm, torchrun")
]
Track = Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, help="Also log to tensorboard or wandb")]
Shape = Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative=())]
RUNS = Path("sublevel-runs")


def store_at(out: Path, store: str | None) -> str:
    """The address of the named store, or of the default one."""
    from sublevel.engine.store import user_address

    return user_address(store or out / ".store")


def folder(run: Path) -> Path:
    """The folder of a run, from its folder or its name in sublevel-runs."""
    return run if run.exists() or len(run.parts) > 1 else RUNS / run


def near(path: Path) -> Path:
    """A path relative to the working folder, if it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def raw_study(target: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The raw study of a preset or a file, with overrides; ``levels`` shortens a preset."""
    from sublevel.study.documents import override
    from sublevel.study.shortened import read_with_levels

    document, said = read_with_levels(target, override({}, *overrides).get("levels"))
    if said:
        say(f"note: {said}")
    return override(document, *overrides)


def announce(study: Study) -> None:
    """Print which code of the study will be imported; none of it has been yet."""
    from sublevel.study.named_code import format_named_code

    for line in format_named_code(study.spec.document()):
        say(f"note: {line}")
