"""Points that were trained elsewhere, as the solutions of a study that trains nothing.

`sublevel.checkpoints` describes the allowed checkpoints and masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path

import torch

from sublevel._types import Tensor
from sublevel.codec import mask_tensors, point_of, point_tensors
from sublevel.engine.graph import Graph, Node, Ref
from sublevel.engine.store import digest, serialised
from sublevel.errors import DataError
from sublevel.problem import Problem
from sublevel.space import Point, Space
from sublevel.study.builder import Builder, Solution
from sublevel.study.cells import Context, Output, cell
from sublevel.study.solutions import SolutionsSpec
from sublevel.study.spec import GivenSpec


@dataclass(frozen=True, eq=False)
class Given:
    """A point read from a file: its name, its tensors and mask as objects of the store, and notes for the user.

    ``constants`` are the network's frozen parameters in the file.
    """

    name: str
    point: bytes
    mask: bytes | None
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def at(self) -> Point:
        """The point itself, on the CPU."""
        from safetensors.torch import load

        return point_of(load(self.point))


def read(spec: GivenSpec, problem: Problem) -> Given:
    """The point of a file in the problem's space, with a warning if a mask seems to be missing.

    Raises DataError with the name or shape that does not fit (see `sublevel.checkpoints.read`).
    """
    found = _taken(spec, problem)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    return found


def gathered(specs: Sequence[GivenSpec], problem: Problem) -> list[Given]:
    """The given points of a study. Raises DataError if their frozen parameters differ: they then lie in no common
    space.
    """
    found = [_taken(spec, problem) for spec in specs]
    for each in found[1:]:
        for name, tensor in each.constants.items():
            if not torch.equal(tensor, found[0].constants[name]):
                raise DataError(
                    f"the frozen parameter {name!r} differs between {found[0].name} and {each.name}: points that are "
                    "compared share what is not trained; set requires_grad of it, so that it is a coordinate, or "
                    "measure them one by one"
                )
    return found


def _taken(spec: GivenSpec, problem: Problem) -> Given:
    found = problem.checkpoint(spec.path, spec.mask)
    mask = None if found.mask is None else serialised(mask_tensors(found.mask))
    return Given(spec.name, serialised(point_tensors(found.point)), mask, found.constants, found.notes)


def files(specs: Sequence[GivenSpec], given: Sequence[Given]) -> list[dict[str, str]]:
    """Name, file and SHA-256 of each point: of the file, or of the weights where they come from several files."""
    found = []
    for spec, each in zip(specs, given, strict=True):
        path = Path(spec.path)
        one = path.is_file() and path.suffix != ".json"
        sha256 = file_digest(path.open("rb"), "sha256").hexdigest() if one else digest(each.point)
        found.append({"name": each.name, "file": path.name, "sha256": sha256, "of": "file" if one else "weights"})
    return found


def assemble(spec: SolutionsSpec, space: Space, graph: Graph, given: list[Given]) -> tuple[list[Solution], Builder]:
    """The points as solutions, one level each; the first takes the place of the dense network."""
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


def given_cell(c: Context, *, point: str, mask: str | None) -> Output:
    """The point and its mask as read."""
    names = {"end": point} | ({} if mask is None else {"mask": mask})
    return Output({}, {output: c.store.get_tensors(name) for output, name in names.items()})


cell("given", 1, given_cell)
