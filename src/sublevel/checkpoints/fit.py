"""Fit named tensors to a network: a point that computes the same function, or an error that names the tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sublevel._types import Bool, Tensor
from sublevel.checkpoints.files import load, state_dict_in
from sublevel.errors import DataError, nearest
from sublevel.space import Point, Space

Source = str | Path | Mapping[str, Tensor] | nn.Module
"""A checkpoint: its path, its state dict, or a network that holds its weights."""

ZEROS = "zeros"
"""Used as a mask: every prunable weight that is exactly 0 counts as pruned."""

MANY = 0.5
"""Share of exact zeros among the prunable weights at which a network without a mask gets a note."""

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that wrappers add: DataParallel, torch.compile, FSDP, activation checkpointing."""

PREFIXES = ("module", "_orig_mod", "model", "net", "network")
COUNTER, AVERAGED = "num_batches_tracked", "n_averaged"

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as a point of a network's space.

    ``point`` is masked if there is a ``mask`` [D]. ``constants`` are the checkpoint's values of the frozen parameters.
    Those that differ from the network's values are also in ``point.buffers``, by name, so that a field at the point
    computes the checkpoint's function. ``zeros`` is the share of the prunable weights that are exactly 0; ``notes`` are
    sentences for the reader.
    """

    point: Point
    mask: Bool[Tensor, "D"] | None
    constants: Mapping[str, Tensor]
    zeros: float
    notes: tuple[str, ...] = ()


def read(
    source: Source, network: nn.Module, space: Space, mask: Source | None = None, *, name: str = "the checkpoint"
) -> Checkpoint:
    """A checkpoint in the space of ``network``, in its precision; ``network`` does not change.

    PyTorch's ``load_state_dict`` fits the tensors, so the network's hooks for old formats work. ``num_batches_tracked``
    and buffers outside the state dict come from the network. A tied tensor may have any of its names. Prefixes of
    wrappers are removed or added only if every name then fits. The entries ``NAME_orig`` and
    ``NAME_mask`` of ``torch.nn.utils.prune`` are a weight and its mask. ``mask`` gives 0/1 tensors by name, or is
    `ZEROS`.

    Raises DataError naming the first tensor that is missing, that the network lacks, or whose shape or type differs.
    """
    where = str(source) if isinstance(source, str | Path) else name
    state = named_tensors(source)
    at, masks = _fitted(state, network, space, where, own=isinstance(source, nn.Module))
    point, constants = at
    found = _mask(masks, network, space, where) if masks else None
    if mask == ZEROS:
        pruned = space.prunable & (point.theta.cpu() == 0)
        found = (found if found is not None else space.full_mask()) & ~pruned
        found = found if bool(pruned.any()) or masks else None
    elif mask is not None:
        at_mask = str(mask) if isinstance(mask, str | Path) else f"the mask of {where}"
        found = _mask(_separate(named_tensors(mask), network, at_mask), network, space, at_mask)
    if found is not None:
        point = point.project(found.to(point.theta.device))
    zeros = float((point.theta.cpu()[space.prunable] == 0).double().mean())
    return Checkpoint(point, found, constants, zeros, _notes(where, point.theta.cpu(), found, space))


def _notes(where: str, theta: Tensor, mask: Bool[Tensor, "D"] | None, space: Space) -> tuple[str, ...]:
    """A note if a network without a mask has half of its weights, or of a layer that is not all 0, exactly 0."""
    layers = list(space.prunable_layers)
    zeros = {x.name: int((theta[x.coordinates] == 0).sum()) for x in layers}
    count, every = sum(zeros.values()), sum(x.size for x in layers)
    partly = any(MANY * x.size <= zeros[x.name] < x.size for x in layers)
    if mask is not None or not (partly or count >= MANY * every):
        return ()
    return (
        f"{where}: {count} of {every} prunable weights ({count / every:.0%}) are exactly 0 and there is no mask, so it "
        "counts as a dense network; give the mask 'zeros' (--mask zeros) to take them for pruned",
    )


def named_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors by name; for a network also the buffers outside its state dict."""
    if isinstance(source, nn.Module):
        return {**dict(source.named_buffers(remove_duplicate=False)), **source.state_dict()}
    return load(source) if isinstance(source, str | Path) else state_dict_in(source, "the state dict")


class _Names:
    """The names of a network's tensors: every name, including tied ones, and the first name of each."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = dict(network.named_parameters(remove_duplicate=False))
        self.buffers = dict(network.named_buffers(remove_duplicate=False))
        self.tensors: dict[str, Tensor] = {**self.parameters, **self.buffers}
        self.persistent = set(network.state_dict())
        first: dict[int, str] = {}
        self.first = {name: first.setdefault(id(t), name) for name, t in self.tensors.items()}


def _fitted(
    state: State, network: nn.Module, space: Space, where: str, *, own: bool
) -> tuple[tuple[Point, dict[str, Tensor]], dict[str, Tensor]]:
    """The point and the constants under the names that fit, and masks by name."""
    names, best = _Names(network), None
    if AVERAGED in state and AVERAGED not in names.tensors:  # torch.optim.swa_utils.AveragedModel
        state = {name: tensor for name, tensor in state.items() if name != AVERAGED}
    for extra in sorted(n for n in names.persistent if n.rpartition(".")[2] == "_extra_state"):
        raise DataError(
            f"the network keeps {extra!r} outside its tensors, and a point holds tensors only: make it a buffer"
        )
    for renamed in _renamed(state, list(names.tensors)):
        plain, masks = _unpruned(renamed, names)
        wrong = _misfits(plain, names, own)
        if not wrong:
            return _loaded(plain, network, names, space, where), masks
        if best is None or len(wrong) < len(best):
            best = wrong
        with _borrowed(network):  # hooks of the network may know older names
            loaded = _try(plain, network, names)
        if loaded == ([], []):
            return _loaded(plain, network, names, space, where), masks
    assert best is not None
    others = f" (and {len(best) - 1} more tensors do not fit)" if len(best) > 1 else ""
    if any("lora_" in name for name in state):
        raise DataError(
            f"{where} holds an adapter (LoRA), which is no network of its own: merge it where you have peft, "
            "model.merge_and_unload(), and save that state dict"
        )
    if any(name.rpartition(".")[2] in ("zero_point", "_packed_params") for name in state):
        raise DataError(
            f"{where} holds quantised weights, which have no gradient: save the network as it was before quantisation"
        )
    if parts := _fitting(state, names, own):
        stray = next(name for name in state if not name.startswith(f"{parts[0]}."))
        prefixes = " or ".join(f"'{prefix}.'" for prefix in parts)
        raise DataError(
            f"{where} holds more than the network, such as {stray!r}; those under {prefixes} alone fit: save these"
        )
    raise DataError(f"{where}{best[0]}{others}; the network must be the one that was trained")


def _fitting(state: State, names: _Names, own: bool) -> list[str]:
    """The first parts of names whose tensors alone fit the network, as in a state that has a loss or metrics beside."""
    found = []
    for first in dict.fromkeys(name.partition(".")[0] for name in state):
        part = {name.partition(".")[2]: t for name, t in state.items() if name.startswith(f"{first}.")}
        some = (_unpruned(renamed, names)[0] for renamed in _renamed(part, list(names.tensors)))
        if 0 < len(part) < len(state) and any(not _misfits(plain, names, own) for plain in some):
            found.append(first)
    return found


def _misfits(state: State, names: _Names, own: bool) -> list[str]:
    """The misfits, each as the end of a sentence: first missing tensors, then unexpected ones."""
    given = {names.first[name] for name in state if name in names.first}
    missing = [
        f" has no tensor {name!r}, which the network has{nearest(name, state)}"
        for name in names.tensors
        if name in names.persistent and names.first[name] == name and name not in state
        if name not in given and name.rpartition(".")[2] != COUNTER
    ]
    extra = []
    for name, tensor in state.items():
        if name not in names.tensors:
            extra.append(f" has a tensor {name!r} {list(tensor.shape)}, which the network lacks")
        elif name not in names.persistent and not own and not _equal(tensor, names.tensors[name]):
            extra.append(
                f" has a tensor {name!r}, which the network keeps out of its state dict and which differs there"
            )
    return missing + extra


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a.to(b.device, b.dtype) == b).all())


def _try(state: State, network: nn.Module, names: _Names) -> tuple[list[str], list[str]] | None:
    """The names that PyTorch finds missing and unexpected; None if it refuses a shape."""
    try:
        found = nn.Module.load_state_dict(network, dict(state), strict=False)
    except RuntimeError:
        return None
    given = {names.first[n] for n in state if n in names.first}
    missing = [n for n in found.missing_keys if names.first.get(n) not in given and n.rpartition(".")[2] != COUNTER]
    return missing, list(found.unexpected_keys)


def _loaded(
    state: State, network: nn.Module, names: _Names, space: Space, where: str
) -> tuple[Point, dict[str, Tensor]]:
    """The point of a state that fits by name."""
    _check(state, names, where)
    frozen = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
    with _borrowed(network):
        try:
            nn.Module.load_state_dict(network, dict(state), strict=False)
        except RuntimeError as error:
            raise DataError(f"{where} does not fit the network: {' '.join(str(error).split())}") from None
        with torch.no_grad():
            for name, tensor in state.items():
                if name in names.buffers and name not in names.persistent:
                    names.buffers[name].copy_(tensor)
        point = space.point(network)
        constants = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
    for name, tensor in {**space.views(point.theta), **constants}.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{where}: {int((~tensor.isfinite()).sum())} weights are not finite, in {name!r} the first")
    changed = {name: t for name, t in constants.items() if not torch.equal(t, frozen[name])}
    return Point(point.theta, {**point.buffers, **changed}), constants


def _check(state: State, names: _Names, where: str) -> None:
    """Refuse another shape or kind of number, and two tensors under the names of one."""
    seen: dict[str, str] = {}
    for name, tensor in state.items():
        own = names.tensors.get(name)
        if own is None:
            continue
        if tensor.shape != own.shape:
            raise DataError(f"{where}: {name!r} has shape {list(tensor.shape)}, the network's is {list(own.shape)}")
        if tensor.is_meta or tensor.is_quantized or _kind(tensor) != _kind(own):
            got = "without data" if tensor.is_meta else str(tensor.dtype).removeprefix("torch.")
            raise DataError(
                f"{where}: {name!r} is {got}, the network's {str(own.dtype).removeprefix('torch.')}: save numbers of "
                "that kind"
            )
        other = seen.setdefault(names.first[name], name)
        if other != name and not _equal(tensor, state[other]):
            raise DataError(
                f"{where}: {other!r} and {name!r} are one tied tensor of the network, and differ in the checkpoint"
            )


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "real" if tensor.is_floating_point() else "whole"


@contextmanager
def _borrowed(network: nn.Module) -> Iterator[None]:
    """Restore every tensor of the network afterwards."""
    tensors = [*network.parameters(), *network.buffers()]
    kept = [t.detach().clone() for t in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


def _unpruned(state: State, names: _Names) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``weight_orig`` and ``weight_mask`` as a weight and its mask, unless the network has these names itself."""
    masks = {
        n.removesuffix("_mask"): t
        for n, t in state.items()
        if n.endswith("_mask") and f"{n[:-5]}_orig" in state and n not in names.tensors
    }
    plain = {n: t for n, t in state.items() if n.removesuffix("_mask").removesuffix("_orig") not in masks}
    plain |= {n: state[f"{n}_orig"] * mask for n, mask in masks.items()}
    return {n: t.to_dense() if t.layout != torch.strided else t for n, t in plain.items()}, masks


def _mask(masks: State, network: nn.Module, space: Space, where: str) -> Bool[Tensor, "D"]:
    """Combine masks, by any name of a weight, to one mask [D]; masks of frozen parameters are skipped."""
    names, out = _Names(network), space.full_mask()
    layers = {layer.name: layer for layer in space.layers}
    for name, tensor in masks.items():
        layer = layers.get(names.first.get(name, ""))
        if layer is None and name in names.parameters and tensor.shape == names.parameters[name].shape:
            continue
        if layer is None or tuple(tensor.shape) != layer.shape:
            raise DataError(f"{where}: the mask {name!r} of shape {list(tensor.shape)} fits no weight of the network")
        kept = (tensor.to_dense() if tensor.layout != torch.strided else tensor).cpu().reshape(-1) != 0
        if not layer.prunable and not bool(kept.all()):
            raise DataError(
                f"{where}: the mask removes {int((~kept).sum())} of the {layer.size} entries of {layer.name!r}, which "
                f"is not prunable here; make it so with prunable=['default', {layer.name!r}] "
                f'(--set \'model.prunable=["default", "{layer.name}"]\')'
            )
        out[layer.coordinates] = kept
    return out


def _separate(masks: State, network: nn.Module, where: str) -> dict[str, Tensor]:
    """The masks of a separate mask file, by name: 0/1 tensors, or the ``NAME_mask`` of a pruned state dict."""
    names = _Names(network)
    for renamed in _renamed(masks, list(names.tensors)):
        _, inside = _unpruned(renamed, names)
        found = inside or {n if n in names.tensors else n.removesuffix("_mask"): t for n, t in renamed.items()}
        if all(name in names.parameters for name in found):
            for name, tensor in found.items():
                dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
                if not bool(((dense == 0) | (dense == 1)).all()):
                    raise DataError(
                        f"{where}: the mask {name!r} holds something else than 0 and 1; a mask of the weights that are "
                        "not 0 is the mask 'zeros'"
                    )
            return found
    return dict(masks)


def _renamed(state: State, expected: list[str]) -> Iterator[State]:
    """The tensors under their names, and under names with the prefixes of wrappers removed or added."""
    ways: list[Callable[[str], str]] = [lambda name: name]
    known = {_bare(name): name for name in expected}
    common, own = _shared(list(state)), _shared(expected)
    for count in range(1, len(common) + 1):
        ways.append(lambda name, count=count: ".".join(name.split(".")[count:]))
    ways.append(lambda name: _known(_bare(name), known))
    for count in range(1, len(own) + 1):
        ways.append(lambda name, count=count: ".".join([*own[:count], name]))
    for count in range(1, len(common) + 1):
        ways.append(lambda name, count=count: ".".join([*own, *name.split(".")[count:]]))
    for prefix in PREFIXES:
        ways.append(lambda name, prefix=prefix: name.removeprefix(f"{prefix}."))
    seen: list[set[str]] = []
    for way in ways:
        renamed = {way(name): tensor for name, tensor in state.items()}
        if len(renamed) == len(state) and set(renamed) not in seen:
            seen.append(set(renamed))
            yield renamed


def _known(bare: str, known: Mapping[str, str]) -> str:
    """The network's name for a bare name, which may have the suffixes of ``torch.nn.utils.prune``."""
    for end in ("", "_orig", "_mask"):
        if bare.endswith(end) and bare.removesuffix(end) in known:
            return known[bare.removesuffix(end)] + end
    return bare


def _bare(name: str) -> str:
    """A name without the prefixes of wrappers."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _shared(names: list[str]) -> list[str]:
    """The common prefix of all names, without the last part of a name."""
    split = [name.split(".")[:-1] for name in names]
    out: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        out.append(parts[0])
    return out
