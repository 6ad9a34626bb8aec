"""The commands on tickets: export, import, show and apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from sublevel.cli.options import Shape, folder
from sublevel.cli.output import say
from sublevel.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import nn

    from sublevel.tickets import Ticket

ticket = App(name="ticket", help="Portable solutions: export one from a run, show it, apply it to a network.")


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
) -> None:
    """Write a solution of a run as a ticket: mask, starting weights, recipe, provenance, checksums.

    Parameters
    ----------
    run
        The folder of a run, or its name in sublevel-runs.
    out
        The file to write (safetensors).
    end
        Include the end weights.
    code
        Your own code in the study that may be imported, as module:function; other code is not imported.
    """
    from sublevel.study.result import Result, reading

    result = Result(folder(run), trusted=code)
    with reading(f"the results of {result.folder}"):
        found = result.ticket(branch, level, seed=seed)
    _save(found, out, end)


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
) -> None:
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
        Include the end weights.
    """
    from sublevel import models
    from sublevel.tickets import from_open_lth

    net = models.build(model, input_shape=input_shape, classes=classes)
    (found,) = from_open_lth(folder, net, levels=[level], experiment=experiment)
    _save(found, out, end)


@ticket.command(name="show")
def show_ticket(file: Path) -> None:
    """Check a ticket, and show its content: network, recipe, provenance, and remaining weights by layer."""
    from sublevel.study.tickets import SOLUTION
    from sublevel.tickets import Ticket

    found = Ticket.load(file)
    about = found.about
    lines = {
        "from": _listed({name: about[name] for name in ("source", "study", *SOLUTION) if name in about}),
        "network": f"{about.get('model', {}).get('name', 'not named')}, {found.space.dim} trainable parameters",
        "weights": f"{', '.join(found.points)}, {str(found.start.theta.dtype).removeprefix('torch.')}",
        "left": _left(found),
    }
    rest = {name: about[name] for name in ("rewind", "training", "data", "steps", "versions") if name in about}
    for name, text in (lines | {name: _listed(value) for name, value in rest.items()}).items():
        say(f"{name:9} {text}")
    for name, mask in found.masks().items():
        say(f"  {name:30} {list(mask.shape)!s:18} {int(mask.sum()):>9} of {mask.numel()}")
    say("all checksums match")


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
    option: Annotated[tuple[str, ...], Parameter(negative=())] = (),
) -> None:
    """Write a network's state dict (safetensors) at the masked weights of a ticket.

    Parameters
    ----------
    model
        A registered network, or module:function; its names and shapes must be the ticket's.
    at
        The weights to write. Default: end if the ticket has them, otherwise start.
    masks
        Keep the masks, as NAME_orig and NAME_mask (torch.nn.utils.prune; `sublevel measure` reads them).
    input_shape
        Shape of an input, channels first, if the ticket does not have it.
    classes
        Number of classes, if the ticket does not have it.
    option
        An option of the network, as name=value. Options in the ticket are passed to registered networks only.
    """
    from sublevel.engine.store import serialised
    from sublevel.tickets import Ticket
    from sublevel.tickets.file import write

    found = Ticket.load(file)
    data = found.about.get("data", {})
    shape = input_shape or data.get("input_shape", ())
    if not shape:
        raise ConfigError(f"{file} does not hold the shape of the inputs: give --input-shape and --classes")
    net = _network(found, model, shape, classes or data.get("classes") or 1, option)
    net = found.to_torch_prune(net, at) if masks else found.apply(net, at)
    write(out, serialised(net.state_dict()))
    say(f"state dict: {out} ({_left(found)}; {at or ('end' if 'end' in found.points else 'start')} weights)")


def _network(found: Ticket, model: str, shape: Any, classes: Any, option: Sequence[str]) -> nn.Module:
    """Build the named network. Options of the ticket are passed to registered networks only.

    A registered network is first built on the meta device, since an untrusted ticket may ask for any size.
    """
    import torch

    from sublevel import models
    from sublevel.study.documents import override
    from sublevel.study.named_code import format_named_code

    known = found.about.get("model", {})
    theirs = known.get("options") if known.get("name") == model else None
    theirs = theirs if isinstance(theirs, dict) else {}
    options = override({} if ":" in model else theirs, *option)
    how = {"input_shape": shape, "classes": classes, **options}
    if ":" in model:
        for line in format_named_code({"model": model}):
            say(f"note: {line}, called with {_listed(how)}")
        if left_out := {name: value for name, value in theirs.items() if name not in options}:
            say(f"note: options that only the ticket names are left out: {_listed(left_out)} (--option NAME=VALUE)")
        return models.build(model, **how)
    try:
        with torch.device("meta"):
            found.check_fits(models.build(model, **how))
    except (RuntimeError, TypeError, OverflowError) as error:
        why = str(error).partition("\n")[0]
        raise ModelError(f"{model} cannot be built for the inputs that the ticket names: {why}") from None
    return models.build(model, **how)


def _save(found: Ticket, out: Path, end: bool) -> None:
    found.save(out, end=end)
    say(f"ticket: {out} ({_left(found)}; {'start and end' if end else 'starting'} weights)")


def _left(found: Ticket) -> str:
    n, all_of = found.space.remaining(found.mask), int(found.space.prunable.sum())
    return f"{n} of {all_of} prunable weights left, {100 * n / max(all_of, 1):.3g} %"


def _listed(value: Any) -> str:
    """JSON as words."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{n} ({_listed(v)})" if isinstance(v, Mapping) else f"{n} {v}" for n, v in value.items())
