"""Tickets of finished runs: their provenance, and training them again."""

from __future__ import annotations

import copy

import torch

from sublevel.engine.store import Document, Store, canonical, digest
from sublevel.errors import ConfigError, DataError, ModelError
from sublevel.numerics import THREADS, arithmetic
from sublevel.problem import Problem
from sublevel.space import Point
from sublevel.study.catalogue import key
from sublevel.study.cells import stored_mask, stored_point
from sublevel.study.machine import versions
from sublevel.tickets import Ticket
from sublevel.train.recipe import Recipe

SOLUTION = ("branch", "level", "seed")
TRAINING = ("recipe", "seed", "order", "first", "lr")
MADE_WITH = ("python", "sublevel", "torch", "numpy", "safetensors")


def of_training(
    document: Document, problem: Problem, identity: Document | None, store: Store, entry: Document, end: str
) -> Ticket:
    """The ticket of a training, from its ``entry``, the digest of its ``end``, and the manifest of its run.

    ``identity`` is the problem's fingerprint. Mask, points and network are on the problem's device.
    """
    inputs, began = entry["inputs"], entry["inputs"]["start"]
    point = "point" in began
    start = stored_point(store, began["point"]) if point else problem.init(inputs["seed"], began["init"])
    mask = stored_mask(store, inputs["mask"]) if inputs["mask"] else problem.space.full_mask()
    constants = {n: p.detach().cpu().clone() for n, p in problem.module.named_parameters() if not p.requires_grad}
    return Ticket(
        mask.to(problem.device),
        {"start": start.to(problem.device), "end": stored_point(store, end).to(problem.device)},
        problem.space,
        constants,
        provenance(document, entry, identity),
        lambda: copy.deepcopy(problem.module),
    )


def provenance(d: Document, entry: Document, identity: Document | None) -> Document:
    """Everything that is needed to repeat a training, and its name, without paths or host names.

    ``model.fingerprint`` is None unless the key of the cell proves that the code is the one that the study ran.
    """
    inputs = entry["inputs"]
    data, model = d["about"]["data"], d["study"]["model"]
    if identity is not None and key(entry["kind"], inputs, identity, d["numerics"]) != entry["key"]:
        identity = None
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
            # without values that may contain a person's folders
            "options": {n: value for n, value in model["options"].items() if not set(str(value)) & set("/\\~")},
            "fingerprint": identity and digest(canonical(identity["model"] | {"values": identity["values"]})),
        },
        "loss": d["study"]["loss"],
        "cell": entry["key"],
        "numerics": dict(d["numerics"]),
        "versions": {name: version for name, version in versions().items() if name in MADE_WITH}
        | {"torch": torch.__version__},  # with its build, which a package's metadata may leave out
    }


def retrain(ticket: Ticket, problem: Problem) -> Point:
    """Train a ticket again, as its study did: the same bits within one numerics class.

    Raises ConfigError for a ticket without a recipe, DataError if its recipe cannot be read, and ModelError or
    DataError if the problem has another network or other data than the study.
    """
    if "training" not in ticket.about:
        raise ConfigError("the ticket has no recipe, so its training is not known")
    how = ticket.about["training"]
    if how.get("moments"):
        raise ConfigError("the ticket's training continued with the momentum of an earlier run, which no ticket holds")
    try:
        recipe, threads = Recipe.from_document(how["recipe"]), ticket.about["numerics"]["threads"]
        whole = [how["seed"], how["first"], threads]
        if not all(type(n) is int for n in whole) or not 0 < threads <= THREADS or not isinstance(how["order"], str):
            raise ValueError("a seed, a step, a data order or a number of threads is none")
        rates = None if how["lr"] is None else [float(how["lr"])] * recipe.steps(len(problem.splits.train))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"the recipe of the ticket cannot be read: {type(error).__name__}: {error}") from None
    if problem.dtype != recipe.dtype:
        problem = problem.on(problem.device, recipe.dtype)
    if problem.space != ticket.space:
        ticket.module(problem.module)
        raise ModelError("the ticket is for a network in which other weights may be pruned")
    if problem.splits.digest != ticket.about.get("data", {}).get("digest"):
        raise DataError("the problem's data are not those that the ticket was trained on: their digests differ")
    with arithmetic(threads, problem.device):
        return problem.trained(
            ticket.start.to(problem.device),
            recipe=recipe,
            seed=how["seed"],
            mask=ticket.mask.to(problem.device),
            order=how["order"],
            first=how["first"],
            rates=rates,
        ).end
