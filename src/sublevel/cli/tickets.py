"""The commands on tickets: out of a run, shown, into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from sublevel.cli.options import Shape, folder

ticket = App(
    name="ticket", help="A solution as one portable file: take it out of a run, look at it, put it into a network."
)


@ticket.command
def export(
    run: Path,
    *,
    branch: str = "imp",
    level: int,
    seed: int = 0,
    out: Path,
    end: bool = False,
    code: Annotated[tuple[str, ...], Parameter(negative=())] = (),
) -> int:
    """Write a solution of a run as a ticket: mask, starting weights, recipe, provenance, checksums.

    Parameters
    ----------
    run
        The folder of a run, or its name in sublevel-runs.
    out
        The file to write (safetensors).
    end
        Put the end weights in too.
    code
        Own code of the run's study that you trust, as module:function; other code is not imported.
    """
    from sublevel.runs.tickets import export as write

    return write(folder(run), branch, level, seed, out, end, code)


@ticket.command(name="import")
def take_in(
    folder: Path,
    *,
    level: int,
    model: str,
    input_shape: Shape,
    classes: int,
    out: Path,
    experiment: str = "main",
    end: bool = False,
) -> int:
    """Write a level of a replicate of open_lth as a ticket.

    Parameters
    ----------
    folder
        The replicate: the folder that holds level_0, level_1, ...
    model
        A registered network, or module:function; its shapes must be those of the files.
    input_shape
        Shape of an input, channels first: 3 32 32.
    classes
        Number of classes.
    out
        The file to write (safetensors).
    experiment
        main, or the folder of a branch.
    end
        Put the end weights in too.
    """
    from sublevel.runs.tickets import take_in as write

    return write(folder, level, experiment, model, input_shape, classes, out, end)


@ticket.command(name="show")
def show_ticket(file: Path) -> int:
    """Check a ticket, and say what it holds: network, recipe, provenance, weights left in every layer."""
    from sublevel.runs.tickets import show

    return show(file)


@ticket.command
def apply(
    file: Path,
    *,
    model: str,
    out: Path,
    at: Literal["start", "end"] | None = None,
    masks: bool = False,
    input_shape: Shape = (),
    classes: int = 0,
) -> int:
    """Write a network's state dict (safetensors) at the masked weights of a ticket.

    Parameters
    ----------
    model
        A registered network, or module:function; its names and shapes must be the ticket's.
    at
        Which weights. Default: end where the ticket has them, otherwise start.
    masks
        Keep the masks, as NAME_orig and NAME_mask (torch.nn.utils.prune; `sublevel measure` reads them).
    input_shape
        Shape of an input, channels first, where the ticket does not tell.
    classes
        Number of classes, where the ticket does not tell.
    """
    from sublevel.runs.tickets import apply as write

    return write(file, model, out, at, masks, input_shape, classes)
