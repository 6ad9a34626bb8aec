"""The command line: study files in, folders out. No science in flags."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError

from sublevel._version import __version__
from sublevel.cli.options import RUNS, Device, Out, Set, StoreAt, Track, Where, folder, near, store_at
from sublevel.cli.output import say
from sublevel.cli.store import export, gc, take_in, verify
from sublevel.cli.tickets import ticket
from sublevel.errors import ConfigError, ModelError, SublevelError
from sublevel.foreign import plain

if TYPE_CHECKING:
    from sublevel.study.study import Study

app = App(
    name="sublevel",
    version=__version__,
    help="Why winning tickets win: sparse subnetworks, dissected through the geometry of the loss landscape.",
    help_epilogue="Presets: demo (a laptop, minutes), mini, paper, paper-vgg16.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)

app.command(ticket)
for command in (verify, gc, export):
    app.command(command)
app.command(take_in, name="import")

TIME_IS_UP = 75
"""The exit code of a run that goes on when it is called again (EX_TEMPFAIL of sysexits.h)."""


@app.command
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
) -> int:
    """Run a study: a preset, or a TOML file. What is in the store already is not computed again.

    Parameters
    ----------
    study
        A preset (demo, mini, paper, paper-vgg16) or a study file.
    jobs
        Cells at once; the numbers do not depend on it. Default: cores / threads of the study, or a cluster's room.
    max_hours
        Begin no cell after so many hours; those that run end. Exit code 75 then: the same command goes on.
    figures
        Write every figure for print too, as SVG and PDF; the report shows them all in any case.
    """
    from sublevel.study import placement
    from sublevel.study.study import Study

    if placement.helped(executor):
        return 0
    chosen = Study(_document(study, overrides), out=out, store=store, device=device)
    _announce(chosen)
    return _carry_out(chosen, jobs=jobs, executor=executor, track=track, max_hours=max_hours, figures=figures)


@app.command
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
) -> int:
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
    from sublevel.cli.console import show_difference, show_plan, show_without_code
    from sublevel.study.differences import difference
    from sublevel.study.named_code import own_code
    from sublevel.study.spec import parse
    from sublevel.study.study import Study

    if diff is not None:
        if study is not None:
            raise ConfigError(f"plan takes one study, or two after --diff; got {study!r} beside them")
        show_difference(difference(*diff, overrides=overrides, out=out, device=device, code=code))
        return 0
    if study is None:
        raise ConfigError("plan takes a study: a preset or a study file; or two after --diff")
    document = _document(study, overrides)
    if not code and own_code(spec := parse(document, study).document()):
        show_without_code(spec)
        return 0
    chosen = Study(document, out=out, store=store, device=device)
    _announce(chosen)
    show_plan(chosen, chosen.plan(jobs))
    return 0


@app.command
def measure(
    *checkpoints: Path,
    model: str,
    data: str = "fashion-mnist-small",
    root: str | None = None,
    mask: tuple[Path, ...] = (),
    name: str = "measured",
    overrides: Set = (),
    jobs: int | None = None,
    executor: Where = "local",
    out: Out = RUNS,
    store: StoreAt = None,
    device: Device = "auto",
) -> int:
    """Measure checkpoints that were trained elsewhere: losses, paths between them, spectra, volumes.

    Parameters
    ----------
    checkpoints
        State dicts: safetensors, or files of torch.save (loaded with weights_only). The first is the reference.
    model
        A registered network, or module:function.
    data
        A data source, with its root.
    mask
        Files of 0/1 tensors by weight name: one for each checkpoint, or one for all.
    name
        The run's name.
    """
    from sublevel.cli.measure import document
    from sublevel.study.documents import override
    from sublevel.study.study import Study

    study = document(checkpoints, mask, model=model, data=data, root=root, name=name)
    chosen = Study(override(study, *overrides), out=out, store=store, device=device)
    _announce(chosen)
    return _carry_out(chosen, jobs=jobs, executor=executor)


@app.command
def report(run: Path, *, figures: bool = True) -> int:
    """Write the tables, figures and report of a finished run again.

    Parameters
    ----------
    run
        The folder of a run, or its name in sublevel-runs.
    figures
        Write every figure for print too, as SVG and PDF.
    """
    from sublevel.study.result import Result

    result = Result(folder(run))
    result.write(force=True, figures=figures)
    print(plain(f"report: {result.folder / 'report.html'}"))
    return 0


@app.command
def compare(*runs: Path, html: Path | None = None) -> int:
    """Put finished runs side by side: in what they differ, their test errors, what each says about the claims.

    Parameters
    ----------
    runs
        The folders of two runs or more, or their names in sublevel-runs.
    html
        Write the comparison as a page instead of printing it.
    """
    from sublevel.cli.console import show_comparison
    from sublevel.study.compare import compare as side_by_side
    from sublevel.study.result import write_text

    found = side_by_side(*map(folder, runs))
    if html is None:
        show_comparison(found)
    else:
        write_text(html, found.html())
        print(f"comparison: {html}")
    return 0


@app.command
def ls(
    target: str | None = None, /, *filters: str, stored: bool = False, out: Out = RUNS, store: StoreAt = None
) -> int:
    """List runs; the cells of one run; or which runs a key of the store belongs to.

    Parameters
    ----------
    target
        A run's name or folder, or the beginning of a key. Absent: all runs.
    filters
        field=value on any field of a cell (kind, branch, level, seed, status, ...).
    stored
        List what is in the store instead, whichever study computed it.
    """
    from sublevel.cli.listing import show, show_stored

    return show_stored(target, filters, store_at(out, store)) if stored else show(target, filters, out)


@app.command
def status(study: str | None = None, *, out: Out = RUNS) -> int:
    """Say where a run stands: what runs where, the time left.

    Parameters
    ----------
    study
        A run's name or folder, or its study file. Absent: every run that is under way, or else the last one.
    """
    from sublevel.cli.status import show

    return show(study, out)


@app.command
def doctor() -> int:
    """Look at this installation: versions, hardware, a known answer."""
    from sublevel.cli.doctor import examine

    return examine()


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one clear sentence on standard error and exit code 2 for what cannot be meant."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        code = _refuse(" ".join(str(error).split()))
    except SublevelError as error:
        code = _refuse(str(error))
        if isinstance(error, ModelError) and error.__cause__ is not None:
            print(plain("".join(traceback.format_exception(error.__cause__))), end="", file=sys.stderr)
    except SystemExit as end:
        code = _refuse(f"code of your own ended the program: sys.exit({end.code!r})")
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost: the same command goes on from here", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(sentence: str) -> int:
    print(f"sublevel: {plain(' '.join(sentence.split()))}", file=sys.stderr)
    return 2


def _document(target: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    from sublevel.study.documents import override, read

    return override(read(target), *overrides)


def _announce(study: Study) -> None:
    """Say whose code is about to be imported; nothing of it has been."""
    from sublevel.study.named_code import told

    for line in told(study.spec.document()):
        say(f"note: {line}")


def _carry_out(study: Study, **how: Any) -> int:
    from sublevel.cli.console import listener

    for note in study.notes():
        say(f"note: {note}")
    with listener() as watching:
        result = study.run(listener=watching, **how)
    watching.summary(result)
    print(f"report: {near(result.folder / 'report.html')}")
    if any(cell["status"] == "waiting" for cell in result.unfinished):
        return TIME_IS_UP
    return 1 if result.unfinished else 0
