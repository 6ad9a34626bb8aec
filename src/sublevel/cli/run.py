"""The commands run and measure: run a study, or measure checkpoints that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from sublevel.cli.options import RUNS, Device, Memory, Out, Set, StoreAt, Track, Where, announce, near, raw_study
from sublevel.cli.output import say
from sublevel.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame

    from sublevel.study.result import Result
    from sublevel.study.study import Study

TIME_IS_UP = 75
"""The exit code of a run that the same command resumes (EX_TEMPFAIL of sysexits.h)."""


def run(
    study: str,
    *,
    overrides: Set = (),
    jobs: int | None = None,
    executor: Where = "local",
    track: Track = (),
    max_hours: float | None = None,
    figures: bool = True,
    out: Out = RUNS,
    store: StoreAt = None,
    device: Device = "auto",
    memory: Memory = None,
) -> int:
    """Run a study: a preset or a TOML file. Results in the store are not computed again.

    Parameters
    ----------
    study
        A preset (`sublevel --help` lists them) or a study file.
    jobs
        Cells at once; results do not depend on it. Default: cores / threads of the study, or the room on a cluster.
    max_hours
        Start no cell after this many hours; running cells finish. The exit code is then 75; the same command resumes.
    figures
        Also write every figure for print, as SVG and PDF; the report shows all of them in any case.
    """
    from sublevel.study import placement
    from sublevel.study.study import Study

    if placement.helped(executor):
        return 0
    chosen = Study(raw_study(study, overrides), out=out, store=store, device=device, memory=memory)
    announce(chosen)
    return _code(_carry_out(chosen, jobs=jobs, executor=executor, track=track, max_hours=max_hours, figures=figures))


def measure(
    *checkpoints: Path,
    data: str,
    model: str | None = None,
    root: str | None = None,
    mask: Annotated[tuple[Path, ...], Parameter(negative=(), show_default=False)] = (),
    name: str = "measured",
    overrides: Set = (),
    jobs: int | None = None,
    executor: Where = "local",
    out: Out = RUNS,
    store: StoreAt = None,
    device: Device = "auto",
    memory: Memory = None,
) -> int:
    """Measure checkpoints that were trained elsewhere: losses, paths between them, spectra, volumes.

    Parameters
    ----------
    checkpoints
        State dicts: safetensors, or files of torch.save (loaded with weights_only). The first is the reference.
    model
        A registered network, module:function, or hf:FOLDER. Default: hf: of the first checkpoint, if that is a folder
        of a pretrained transformer.
    data
        A data source, read from --root, or module:function that returns (train, test). All training examples are
        measured: none is held out.
    mask
        Files of 0/1 tensors by weight name: one for each checkpoint, or one for all.
    name
        The run's name.
    """
    from sublevel.study.documents import override
    from sublevel.study.measured import GEOMETRY, answer
    from sublevel.study.study import Study

    source = {"name": data, "validation": 0} | ({"root": root} if root is not None else {})
    given = _given(checkpoints, mask)
    model = model or _folder(checkpoints[0])
    study = {"name": name, "given": given, "model": {"name": model}, "data": source, "geometry": GEOMETRY}
    chosen = Study(override(study, *overrides), out=out, store=store, device=device, memory=memory)
    announce(chosen)
    result = _carry_out(chosen, jobs=jobs, executor=executor)
    found = answer(result)
    say(_table(found.checkpoints, names=1, percent=("density", "train_error", "test_error")))
    if len(found.pairs):
        say(_table(found.pairs, names=2, percent=("rise",)))
    say(found.sentence)
    return _code(result)


def _table(frame: DataFrame, names: int, percent: Collection[str] = ()) -> Table:
    """A table with shares as percentages, and other numbers to four digits, that fits into 80 columns.

    Long ``names`` in the first columns are folded; headings have a word a line.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(frame.columns):
        heading = ("largest_eigenvalue" if name == "lambda_1" else str(name)).replace("_", "\n")
        if i < names:
            table.add_column(heading, overflow="fold", min_width=10)
        else:
            table.add_column(heading, justify="right", no_wrap=True)

    def shown(name: str, value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not isinstance(value, float):
            return str(value)
        return "" if value != value else f"{100 * value:.1f}%" if name in percent else f"{value:.4g}"

    for row in frame.to_dict("records"):
        table.add_row(*(shown(str(name), value) for name, value in row.items()))
    return table


def _folder(checkpoint: Path) -> str:
    """The network of a checkpoint that is a folder of a pretrained transformer. Raises ConfigError for another one."""
    if not (checkpoint / "config.json").is_file():
        raise ConfigError(
            f"{checkpoint} holds weights but no network: name it with --model (a registered network, module:function "
            "in a file of your own, or hf:FOLDER)"
        )
    return f"hf:{checkpoint}"


def _given(checkpoints: Sequence[Path], masks: Sequence[Path]) -> list[dict[str, str]]:
    """The checkpoints, named by their files, or by their paths if two files have one name."""
    if not checkpoints:
        raise ConfigError("name at least one checkpoint to measure")
    if len(masks) not in (0, 1, len(checkpoints)):
        raise ConfigError(f"{len(masks)} masks for {len(checkpoints)} checkpoints: give none, one, or one for each")
    stems = [path.stem for path in checkpoints]
    own = list(masks) * len(checkpoints) if len(masks) == 1 else masks or [None] * len(checkpoints)
    return [
        {"name": path.stem if stems.count(path.stem) == 1 else str(path), "path": str(path)}
        | ({"mask": str(mask)} if mask else {})
        for path, mask in zip(checkpoints, own, strict=True)
    ]


def _carry_out(study: Study, **how: Any) -> Result:
    """Run a study and show its progress."""
    from sublevel.cli.watching import watching

    for note in study.notes():
        say(f"note: {note}")
    with watching() as listener:
        result = study.run(listener=listener, **how)
    listener.summary(result)
    print(f"report: {near(result.folder / 'report.html')}")
    return result


def _code(result: Result) -> int:
    """The exit code of a run."""
    if any(cell["status"] == "waiting" for cell in result.unfinished):
        return TIME_IS_UP
    return 1 if result.unfinished else 0
