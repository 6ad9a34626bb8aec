"""Tickets of finished runs: where they come from, how they are trained again, and their commands."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sublevel.engine.store import canonical, digest
from sublevel.errors import ConfigError, DataError, ModelError
from sublevel.inputs import shapes_of
from sublevel.runs.console import console
from sublevel.runs.machine import versions
from sublevel.space import Point
from sublevel.study.arithmetic import arithmetic
from sublevel.study.cells import key, stored_mask, stored_point
from sublevel.tickets import Ticket

if TYPE_CHECKING:
    from sublevel.problem import Problem
    from sublevel.runs.results import Result

SOLUTION = ("branch", "level", "seed")
TRAINING = ("recipe", "seed", "order", "first", "lr")
MADE_WITH = ("python", "sublevel", "torch", "numpy", "safetensors")


def of_result(result: Result, entry: Mapping[str, Any]) -> Ticket:
    """The ticket of a training's entry in the store, with its recipe and provenance."""
    problem, inputs = result.problem, entry["inputs"]
    began = inputs["start"]
    point = "point" in began
    start = stored_point(result.store, began["point"]) if point else problem.init(inputs["seed"], began["init"])
    constants = {n: p.detach().cpu().clone() for n, p in problem.module.named_parameters() if not p.requires_grad}
    return Ticket(
        stored_mask(result.store, inputs["mask"]) if inputs["mask"] else problem.space.full_mask(),
        {"start": start.to("cpu"), "end": stored_point(result.store, result._end(entry))},
        problem.space,
        constants,
        provenance(result, entry),
        lambda: copy.deepcopy(problem.module),
    )


def provenance(result: Result, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a training is repeated from, and what names it: no path, no host name.

    ``model.fingerprint`` is None where the code is no longer the one that the study ran, or cannot be read.
    """
    d, inputs = result.document, entry["inputs"]
    data, model = d["about"]["data"], d["study"]["model"]
    return {
        "source": "sublevel",
        "study": d["study"]["name"],
        **{name: entry["labels"][name] for name in SOLUTION},
        "rewind": inputs["first"],
        "training": {name: inputs[name] for name in (*TRAINING, "moments") if name in inputs},
        "data": {name: data[name] for name in ("digest", "input_shape", "mean", "std", "train", "validation", "test")}
        | {"name": d["study"]["data"]["name"], "classes": len(data["classes"])},
        "model": {
            "name": model["name"],
            "options": {name: value for name, value in model["options"].items() if not _is_path(value)},
            "fingerprint": _fingerprint(result, entry),
        },
        "loss": d["study"]["loss"],
        "cell": entry["key"],
        "numerics": dict(d["numerics"]),
        "versions": {name: version for name, version in versions().items() if name in MADE_WITH}
        | {"torch": torch.__version__},  # with its build, which a package's metadata may leave out
    }


def retrain(ticket: Ticket, problem: Problem) -> Point:
    """Train a ticket again, as its study did: the same bits within one numerics class.

    Raises ConfigError for a ticket without a recipe, ModelError and DataError where the problem has another network
    or other data than the study had.
    """
    from sublevel.train.recipe import Recipe

    if "training" not in ticket.about:
        raise ConfigError("the ticket does not tell how it was trained: it has no recipe")
    how = ticket.about["training"]
    if how.get("moments"):
        raise ConfigError("the ticket's training went on with the momentum of a run before it, which no ticket holds")
    if problem.dtype != how["recipe"]["dtype"]:
        problem = problem.on(problem.device, how["recipe"]["dtype"])
    if problem.space != ticket.space:
        ticket.module(problem.module)
        raise ModelError("the ticket is for a network in which other weights may be pruned")
    if problem.splits.digest != ticket.about["data"]["digest"]:
        raise DataError("the problem's data are not those that the ticket was trained on: their digests differ")
    recipe = Recipe.from_document(how["recipe"])
    with arithmetic(ticket.about["numerics"]["threads"]):
        return problem.trained(
            ticket.start.to(problem.device),
            recipe=recipe,
            seed=how["seed"],
            mask=ticket.mask.to(problem.device),
            order=how["order"],
            first=how["first"],
            rates=None if how["lr"] is None else [how["lr"]] * recipe.steps(len(problem.splits.train)),
        ).end


def export(run: Path, branch: str, level: int, seed: int, out: Path, end: bool, code: Sequence[str] = ()) -> int:
    """Write a solution of a run as a ticket; of the run's own code, what is in ``code`` is imported, and no other."""
    from sublevel.runs.results import Result, reading

    result = Result(run, trusted=code)
    with reading(f"the results of {result.folder}"):
        ticket = result.ticket(branch, level, seed=seed)
    ticket.save(out, end=end)
    _say(f"ticket: {out} ({_left(ticket)}; {'start and end' if end else 'starting'} weights)")
    return 0


def take_in(
    folder: Path, level: int, experiment: str, model: str, shape: tuple[int, ...], classes: int, out: Path, end: bool
) -> int:
    """Write a level of an open_lth replicate as a ticket."""
    from sublevel import models
    from sublevel.tickets import from_open_lth

    net = models.build(model, input_shape=shape, classes=classes)
    (ticket,) = from_open_lth(folder, net, levels=[level], experiment=experiment)
    ticket.save(out, end=end)
    _say(f"ticket: {out} ({_left(ticket)}; {'start and end' if end else 'starting'} weights)")
    return 0


def show(path: Path) -> int:
    """Print what a ticket says of itself, and what it leaves of every prunable weight."""
    ticket = Ticket.load(path)
    about = ticket.about
    lines = {
        "from": _listed({name: about[name] for name in ("source", "study", *SOLUTION) if name in about}),
        "network": f"{about.get('model', {}).get('name', 'not named')}, {ticket.space.dim} trainable parameters",
        "weights": f"{', '.join(ticket.points)}, {str(ticket.start.theta.dtype).removeprefix('torch.')}",
        "left": _left(ticket),
    }
    told = {name: about[name] for name in ("rewind", "training", "data", "steps", "versions") if name in about}
    for name, text in (lines | {name: _listed(value) for name, value in told.items()}).items():
        _say(f"{name:9} {text}")
    for name, mask in ticket.masks().items():
        _say(f"  {name:30} {list(mask.shape)!s:18} {int(mask.sum()):>9} of {mask.numel()}")
    _say("every checksum holds")
    return 0


def apply(path: Path, model: str, out: Path, at: str | None, masks: bool, shape: tuple[int, ...], classes: int) -> int:
    """Write a network's state dict at the ticket, as safetensors; with ``masks`` as torch.nn.utils.prune has it."""
    from sublevel import models
    from sublevel.engine.store import serialised
    from sublevel.tickets.file import write

    ticket = Ticket.load(path)
    data, said = ticket.about.get("data", {}), ticket.about.get("model", {})
    at_hand = shapes_of(shape or data.get("input_shape", ()))
    classes = classes or max(data.get("classes", 0), 1)
    if not at_hand:
        raise ConfigError(f"{path} does not tell the shape of the inputs: give --input-shape and --classes")
    options = said.get("options", {}) if said.get("name") == model else {}
    net = models.build(model, input_shape=at_hand, classes=classes, **options)
    net = ticket.to_torch_prune(net, at) if masks else ticket.apply(net, at)
    write(out, serialised(net.state_dict()))
    _say(f"state dict: {out} ({_left(ticket)}; {at or ('end' if 'end' in ticket.points else 'start')} weights)")
    return 0


def _say(line: str) -> None:
    console().print(line, markup=False)


def _listed(value: Any) -> str:
    """JSON as words."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{n} ({_listed(v)})" if isinstance(v, Mapping) else f"{n} {v}" for n, v in value.items())


def _left(ticket: Ticket) -> str:
    n, all_of = ticket.space.remaining(ticket.mask), int(ticket.space.prunable.sum())
    return f"{n} of {all_of} prunable weights left, {100 * n / max(all_of, 1):.3g} %"


def _is_path(value: Any) -> bool:
    """Whether an option may tell of a person's folders."""
    return any(sign in str(value) for sign in ("/", "\\", "~"))


def _fingerprint(result: Result, entry: Mapping[str, Any]) -> str | None:
    """The digest of the network's identity, if the key of the cell proves that it is the one that was trained."""
    identity = result.identity
    if identity is None or key(entry["kind"], entry["inputs"], identity, result.document["numerics"]) != entry["key"]:
        return None
    return digest(canonical(identity["model"] | {"values": identity["values"]}))
