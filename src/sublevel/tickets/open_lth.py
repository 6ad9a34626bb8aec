"""Tickets from the folders that open_lth writes (github.com/facebookresearch/open_lth).

    lottery_HASH/replicate_1/level_0/main/hparams.log               the hyperparameters, as text
    lottery_HASH/replicate_1/level_N/main/mask.pth                  {name of a prunable weight: 0/1, int32}
    lottery_HASH/replicate_1/level_N/main/model_epE_itI.pth         state dicts: at the rewind step, after training
    lottery_HASH/replicate_1/level_N/lottery_branch_NAME_HASH/      a branch: its mask and models

Level 0 is the dense network. Its first model is the unmasked point to which every level is rewound; the first model of
a level is that point, masked. Files are loaded with ``weights_only``, so none of their code runs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path

import torch
from torch import nn

from sublevel._types import Bool, Tensor
from sublevel.errors import DataError, ModelError, nearest
from sublevel.foreign import check_zip
from sublevel.space import Point, Prunable, Space
from sublevel.tickets.ticket import Ticket

State = Mapping[str, Tensor]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def from_open_lth(
    folder: str | Path,
    network: nn.Module | Callable[[], nn.Module],
    *,
    levels: Iterable[int] | None = None,
    experiment: str = "main",
    prunable: Prunable | None = None,
) -> list[Ticket]:
    """The tickets of a replicate, one for each level (default: all levels).

    ``folder`` holds the folders ``level_N``; ``experiment`` is ``main`` or the folder of a branch. ``network`` is the
    architecture, or a function that builds it; its weights are not used. If its names differ from the files' names,
    entries are matched by order; every shape must agree. ``prunable`` is as in `Space.of`. A start is unmasked if
    level 0 has it.

    Raises DataError for a missing or unreadable level or file, ModelError for a network that does not fit; the error
    names the first fault.
    """
    root = Path(folder)
    net = network if isinstance(network, nn.Module) else network()
    space = Space.of(net, prunable)
    return [_ticket(root, level, experiment, net, space) for level in _levels(root, levels)]


def _ticket(root: Path, level: int, experiment: str, net: nn.Module, space: Space) -> Ticket:
    folder = root / f"level_{level}" / experiment
    if not folder.is_dir():
        known = (path.name for path in folder.parent.iterdir())
        raise DataError(f"{folder.parent} has no {experiment!r}{nearest(experiment, known)}")
    first, last = _models(folder)
    mask = _mask(folder / "mask.pth", _names(_loaded(first), net.state_dict(), first), space)
    start, end = _point(first, net, space), _point(last, net, space)
    state = _ours(first, net)
    return Ticket(
        mask,
        {"start": _unmasked(root, start, mask, net, space), "end": end},
        space,
        {name: state[name] for name, p in net.named_parameters() if not p.requires_grad},
        _about(root, level, experiment, first, last),
        lambda: copy.deepcopy(net),
    )


def _levels(root: Path, wanted: Iterable[int] | None) -> list[int]:
    """The levels to read, all of which are there."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    there = sorted(int(p.name[6:]) for p in root.iterdir() if p.is_dir() and re.fullmatch(r"level_\d+", p.name))
    if not there:
        replicates = sorted(p.name for p in root.glob("replicate_*"))
        hint = f"; it has {', '.join(replicates)}: name one of these" if replicates else ""
        raise DataError(f"{root} has no folder level_0, level_1, ... of open_lth{hint}")
    levels = list(range(there[-1] + 1)) if wanted is None else list(wanted)
    absent = [level for level in levels if level not in there]
    if absent:
        raise DataError(f"{root} has no level {absent[0]}; its levels are {', '.join(map(str, there))}")
    return levels


def _models(folder: Path) -> tuple[Path, Path]:
    """The state dicts at the first and the last step."""
    found = {}
    for path in folder.glob("model_ep*_it*.pth"):
        if step := re.fullmatch(r"model_ep(\d+)_it(\d+)", path.stem):
            found[int(step[1]), int(step[2])] = path
    if len(found) < 2:
        names = ", ".join(path.name for path in found.values()) or "none"
        raise DataError(
            f"{folder} needs model_epE_itI.pth of the start and of the end, it has {names}: training did not finish, "
            "or a file is missing"
        )
    return found[min(found)], found[max(found)]


def _loaded(path: Path) -> State:
    """The tensors of a file by name, without running its code."""
    try:
        check_zip(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path.parent} has no {path.name}") from None
    except Exception as error:  # damaged files and files with code raise many kinds of errors
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} cannot be loaded without running its code: {why}") from None
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise DataError(f"{path} holds {type(found).__name__}; expected names and tensors")
    return found


def _names(theirs: State, own: State, path: Path) -> dict[str, str]:
    """Map the entries of a file to those of the network, by name or otherwise by order. Raises ModelError."""
    pairs = [(name, name) for name in own] if set(theirs) == set(own) else list(zip_longest(theirs, own))
    for n, (their, mine) in enumerate(pairs, start=1):
        same = their is not None and mine is not None and theirs[their].shape == own[mine].shape
        if not same or _statistic(their) != _statistic(mine):
            raise ModelError(
                f"{path} is of another network: its entry {n} is {_format_entry(theirs, their)}, the network's is "
                f"{_format_entry(own, mine)}"
            )
    return dict(pairs)


def _statistic(name: str | None) -> str | None:
    """The name of a BatchNorm buffer, or None; needed because weight, bias and buffers have the same shape."""
    last = (name or "").rpartition(".")[2]
    return last if last in STATISTICS else None


def _format_entry(state: State, name: str | None) -> str:
    return "not there" if name is None else f"{name!r} of shape {list(state[name].shape)}"


def _ours(path: Path, net: nn.Module) -> dict[str, Tensor]:
    """A state dict under the network's names."""
    state = _loaded(path)
    return {mine: state[their] for their, mine in _names(state, net.state_dict(), path).items()}


def _point(path: Path, net: nn.Module, space: Space) -> Point:
    state, template = _ours(path, net), space.point(net)
    theta = torch.cat([state[layer.name].reshape(-1).to(template.theta.dtype) for layer in space.layers])
    if not bool(theta.isfinite().all()):
        raise DataError(f"{path}: {int((~theta.isfinite()).sum())} weights are not finite")
    return Point(theta, {n: state[n].to(b.dtype) if n in state else b for n, b in template.buffers.items()})


def _mask(path: Path, names: Mapping[str, str], space: Space) -> Bool[Tensor, "D"]:
    layers, masks, out = {layer.name: layer for layer in space.layers}, _loaded(path), space.full_mask()
    for name, tensor in masks.items():
        layer = layers.get(names.get(name, ""))
        if layer is None or tuple(tensor.shape) != layer.shape:
            raise DataError(f"{path}: the mask {name!r} of shape {list(tensor.shape)} fits no weight of the network")
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            raise DataError(f"{path}: the mask {name!r} holds something else than 0 and 1")
        out[layer.coordinates] = tensor.reshape(-1) != 0
    absent = [layer.name for layer in space.prunable_layers if layer.name not in {names[name] for name in masks}]
    if absent:
        raise DataError(f"{path} has no mask of {absent[0]!r}, which is prunable")
    return out


def _unmasked(root: Path, start: Point, mask: Bool[Tensor, "D"], net: nn.Module, space: Space) -> Point:
    """The first point of level 0 if this level started from it, masked; otherwise this level's start."""
    dense = root / "level_0" / "main"
    if not dense.is_dir():
        return start
    first = _point(_models(dense)[0], net, space)
    same = torch.equal(first.project(mask).theta, start.project(mask).theta)
    return Point(first.theta, start.buffers) if same else start


def _about(root: Path, level: int, experiment: str, first: Path, last: Path) -> dict[str, object]:
    """The origin of the ticket, without paths, because paths contain names of people."""
    replicate = re.fullmatch(r"replicate_(\d+)", root.name)
    return {
        "source": "open_lth",
        "branch": experiment,
        "level": level,
        "replicate": int(replicate[1]) if replicate else None,
        "steps": {"start": first.stem.removeprefix("model_"), "end": last.stem.removeprefix("model_")},
        "hyperparameters": _hyperparameters(root / "level_0" / "main" / "hparams.log"),
    }


def _hyperparameters(path: Path) -> dict[str, dict[str, str]]:
    """Parse sections of ``    * name => value``; empty if the file is absent."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        if item := re.fullmatch(r"\s+\* (\w+) => (.*)", line):
            section[item[1]] = item[2]
        else:
            section = found.setdefault(line.strip(), {})
    return found
