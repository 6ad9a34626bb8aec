"""Points that were trained elsewhere, as the solutions of a study: nothing is trained, everything is measured.

A checkpoint is a state dict: safetensors, or a file of ``torch.save`` that is loaded with ``weights_only=True``. A mask
is a file of the same kinds with a 0/1 tensor under the name of each pruned weight; without one, the entries
``NAME_orig`` and ``NAME_mask`` of ``torch.nn.utils.prune`` are understood, and else the network counts as dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sublevel._types import Bool, Tensor
from sublevel.errors import DataError, nearest
from sublevel.problem import Problem
from sublevel.space import Point, Space, check_mask
from sublevel.study.builder import Builder, Solution
from sublevel.study.cells import Context, Output, Row, Rows, kernel, mask_tensors, point_of, point_tensors, rows
from sublevel.study.graph import Graph, Node, Ref
from sublevel.study.spec import GivenSpec, StudySpec
from sublevel.study.store import digest, serialised


@dataclass(frozen=True, eq=False)
class Given:
    """A point read from a file: its name, and its tensors and mask as objects of the store."""

    name: str
    point: bytes
    mask: bytes | None

    @property
    def at(self) -> Point:
        """The point itself, on the CPU."""
        from safetensors.torch import load

        return point_of(load(self.point))


def read(spec: GivenSpec, problem: Problem) -> Given:
    """The point of a file in the problem's space. DataError says which name or shape does not fit."""
    state = state_dict(Path(spec.path))
    separate = None if spec.mask is None else state_dict(Path(spec.mask))
    state, masks = _unpruned(state) if separate is None else (state, separate)
    template = problem.init(0)
    point = _point(state, problem.space, template, spec.path)
    mask = _mask(masks, problem.space, spec.mask or spec.path) if masks else None
    point = (point if mask is None else point.project(mask)).to(dtype=problem.torch_dtype)
    return Given(spec.name, serialised(point_tensors(point)), None if mask is None else serialised(mask_tensors(mask)))


def state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, with no ``module.`` before their names; running none of its code."""
    try:
        found = _load(path)
    except FileNotFoundError:
        raise DataError(f"there is no checkpoint {path}") from None
    except Exception as error:  # a damaged file fails in many ways, one that would run code in another
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} is no checkpoint that can be loaded without running its code: {why}") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise DataError(f"{path} holds {type(found).__name__}; a checkpoint is a state dict: names and tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return torch.load(path, map_location="cpu", weights_only=True)


def _unpruned(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``weight_orig`` and ``weight_mask`` as a weight and its mask."""
    masks = {n.removesuffix("_mask"): t for n, t in state.items() if n.endswith("_mask") and f"{n[:-5]}_orig" in state}
    plain = {n: t for n, t in state.items() if n.removesuffix("_mask").removesuffix("_orig") not in masks}
    return plain | {n: state[f"{n}_orig"] * mask for n, mask in masks.items()}, masks


def _point(state: Mapping[str, Tensor], space: Space, template: Point, path: str) -> Point:
    wanted = {layer.name: layer.shape for layer in space.layers}
    wanted |= {name: tuple(buffer.shape) for name, buffer in template.buffers.items()}
    for name, shape in wanted.items():
        if name not in state:
            raise DataError(f"{path} has no tensor {name!r}, which the network has{nearest(name, state)}")
        if tuple(state[name].shape) != shape:
            raise DataError(f"{path}: {name!r} has shape {list(state[name].shape)}, the network's is {list(shape)}")
    theta = torch.cat([state[layer.name].reshape(-1).to(template.theta.dtype) for layer in space.layers])
    if not bool(theta.isfinite().all()):
        raise DataError(f"{path}: {int((~theta.isfinite()).sum())} weights are not finite")
    return Point(theta, {name: state[name].to(buffer.dtype) for name, buffer in template.buffers.items()})


def _mask(masks: Mapping[str, Tensor], space: Space, path: str) -> Bool[Tensor, "D"]:
    out = space.full_mask()
    layers = {layer.name: layer for layer in space.layers}
    for name, tensor in masks.items():
        if name not in layers or tuple(tensor.shape) != layers[name].shape:
            raise DataError(f"{path}: the mask {name!r} of shape {list(tensor.shape)} fits no weight of the network")
        out[layers[name].coordinates] = tensor.reshape(-1) != 0
    check_mask(space, out, None, space.remaining(out))
    return out


def assemble(spec: StudySpec, space: Space, graph: Graph, given: list[Given]) -> tuple[list[Solution], Builder]:
    """The points as solutions, one level each; the first stands where a study has its dense network."""
    seed, found = spec.seeds[0], []
    for level, each in enumerate(given):
        labels = {"branch": each.name, "level": level, "seed": seed}
        inputs = {"point": digest(each.point), "mask": None if each.mask is None else digest(each.mask)}
        node = graph.add(Node(f"given/{each.name}", "given", inputs, labels))
        mask = None if each.mask is None else Ref(node.id, "mask")
        found.append(Solution(each.name, level, seed, spec.order, node, mask, Ref(node.id, "end"), base="given"))
    builder = Builder(spec, space, 0, graph, seed, order=spec.order, first=found[0])
    builder.memo.update({("given", spec.order, s.level): s for s in found})
    return found, builder


@kernel("given", 1)
def given_cell(c: Context, *, point: str, mask: str | None) -> Output:
    """The point and its mask, as they were read."""
    names = {"end": point} | ({} if mask is None else {"mask": mask})
    return Output({}, {output: c.store.get_tensors(name) for output, name in names.items()})


@rows("given")
def given_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """None: a point is seen in what is measured of it."""
    return iter(())
