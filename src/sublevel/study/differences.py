"""The differences between two studies, and the number of cells that they share, before either has run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sublevel.engine.graph import Graph
from sublevel.errors import ConfigError, SublevelError, nearest
from sublevel.study.assemble import assemble
from sublevel.study.catalogue import key
from sublevel.study.compare import flat
from sublevel.study.documents import override, preset_names, read
from sublevel.study.given import read as read_given
from sublevel.study.manifest import MANIFEST
from sublevel.study.named_code import check_trusted, own_code
from sublevel.study.result import Result
from sublevel.study.solutions import label
from sublevel.study.spec import StudySpec, parse
from sublevel.study.study import Study

ABSENT = "-"
"""Shown for a field that a study does not have."""

Keys = dict[str, set[str]]
"""The keys of a study's cells, by kind."""


@dataclass(frozen=True)
class Difference:
    """The differences between two studies.

    ``fields``: key -> both values, with every default resolved; branches and given points are listed by name.
    ``cells``: kind -> cells in the first study, in the second, and in both by key (a network that several cells train
    counts once); empty if one study cannot be assembled here, with the ``reason``.
    """

    names: tuple[str, str]
    fields: dict[str, tuple[str, str]]
    cells: dict[str, tuple[int, int, int]]
    reason: str = ""

    @property
    def networks(self) -> int:
        """The number of trained networks that they share."""
        return self.cells.get("train", (0, 0, 0))[2]


def difference(
    a: str, b: str, *, overrides: Sequence[str] = (), out: str | Path, device: str = "auto", code: bool = True
) -> Difference:
    """The differences between two studies: presets, study files, or folders of runs (or their names in ``out``).

    ``overrides`` (key=value) are set on the second. Cells are compared by the keys that they have or will have. Two
    runs are compared by their manifests, and none of their code is imported. Your own code is imported if a preset or a
    study file names it and ``code`` is True.

    Raises ConfigError for a target that is no study, and for overrides of a finished run.
    """
    first, second = sides = _Compared.of(a, (), Path(out)), _Compared.of(b, overrides, Path(out))
    settings = [dict(flat(_by_name(side.spec))) for side in (first, second)]
    both = {name: (settings[0].get(name, ABSENT), settings[1].get(name, ABSENT)) for s in settings for name in s}
    fields = {name: values for name, values in both.items() if values[0] != values[1] and set(values) != {ABSENT, "{}"}}
    names = a, " --set ".join((b, *overrides))
    trusted = {path for side in sides if side.run is None and code for path in own_code(side.spec.document())}
    try:
        if first.run and second.run:
            keys = first.stored(), second.stored()
        else:
            keys = first.keys(device, trusted), second.keys(device, trusted)
    except SublevelError as error:
        return Difference(names, fields, {}, str(error))
    kinds = dict.fromkeys(kind for side in keys for kind in side)
    pairs = {kind: [side.get(kind, set()) for side in keys] for kind in kinds}
    return Difference(names, fields, {kind: (len(a), len(b), len(a & b)) for kind, (a, b) in pairs.items()})


@dataclass(frozen=True)
class _Compared:
    """One of the two studies, and its run if it has one."""

    spec: StudySpec
    run: Result | None

    @classmethod
    def of(cls, target: str, overrides: Sequence[str], out: Path) -> _Compared:
        run = _run(target, out)
        if run is None:
            return cls(parse(override(read(target), *overrides), target), None)
        if overrides:
            raise ConfigError(f"{target} is a finished run: --set cannot change it")
        return cls(parse(run.document["study"], target), run)

    def stored(self) -> Keys:
        """The keys of the cells of a run."""
        out: Keys = {}
        for cell in self.run.document["cells"] if self.run else ():
            if cell["key"]:
                out.setdefault(cell["kind"], set()).add(cell["key"])
        return out

    def keys(self, device: str, trusted: Collection[str]) -> Keys:
        """The keys of its cells. Raises SublevelError if its data or network are missing here or not ``trusted``."""
        document = self.run.document["problem"] or {} if self.run else self.spec.document()
        check_trusted(document, trusted, "the run" if self.run else "the study")
        if self.run is None:
            study = Study(self.spec.document(), device=device)
            return _keys(study.cells[0], study.problem.fingerprint(), study.numerics)
        problem = self.run.problem
        given = [read_given(point, problem) for point in self.spec.given]
        graph, _ = assemble(self.spec, problem.space, len(problem.splits.train), given)
        return _keys(graph, self.run.identity, self.run.document["numerics"])


def _run(target: str, out: Path) -> Result | None:
    """The run of a target: a folder, or a name in ``out`` that no preset and no file has; None for a study."""
    if (Path(target) / MANIFEST).is_file():
        return Result(target)
    if target in preset_names() or Path(target).suffix == ".toml" or Path(target).is_file():
        return None
    if (out / target / MANIFEST).is_file():
        return Result(out / target)
    known = [*preset_names(), *(path.parent.name for path in out.glob(f"*/{MANIFEST}"))]
    raise ConfigError(f"{target!r} is neither a study file (.toml), nor a preset, nor a run{nearest(target, known)}")


def _by_name(spec: StudySpec) -> dict[str, Any]:
    """The resolved study with its branches and given points by name."""
    document = spec.document()
    document["branches"] = {
        label(spec, branch): {k: v for k, v in said.items() if k != "label"}
        for branch, said in zip(spec.branches, document["branches"], strict=True)
    }
    document["given"] = {said["name"]: {k: v for k, v in said.items() if k != "name"} for said in document["given"]}
    return document


def _keys(graph: Graph, identity: Mapping[str, Any] | None, numerics: Mapping[str, Any]) -> Keys:
    """The keys of all cells, with the key of the cell that makes an object, and its name there, as its digest."""
    if identity is None:
        raise ConfigError("the code of a network cannot be read whole and has no version, so its cells have no keys")
    known: dict[str, str] = {}
    out: Keys = {}
    for node in graph.nodes.values():
        inputs = node.resolved({ref: f"{known[ref.node]}:{ref.output}" for ref in node.needs})
        known[node.id] = key(node.kind, inputs, identity, numerics)
        out.setdefault(node.kind, set()).add(known[node.id])
    return out
