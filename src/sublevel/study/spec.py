"""The spec of a study, written as TOML or keyword arguments, and its validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from sublevel.errors import ConfigError, nearest
from sublevel.foreign import bounded
from sublevel.strict import Strict
from sublevel.study.measurements import MEASUREMENTS
from sublevel.study.options import Where
from sublevel.study.solutions import SolutionsSpec, label
from sublevel.train.recipe import Recipe

BLOCKS: dict[str, Any] = {name: (each.options | None, None) for name, each in MEASUREMENTS.items() if each.options}


class GeometrySpec(create_model("Blocks", __base__=Strict, **BLOCKS)):
    """The measurements of a study, besides the losses of every solution; an absent block is not measured."""

    def wheres(self) -> Iterator[tuple[str, Where]]:
        """The blocks that choose solutions, with the names of their keys."""
        return _wheres("geometry", self)


def _wheres(name: str, block: Any) -> Iterator[tuple[str, Where]]:
    if isinstance(block, Where):
        yield name, block
    elif isinstance(block, BaseModel):
        for inner in type(block).model_fields:
            yield from _wheres(f"{name}.{inner}", getattr(block, inner))


class PlaceSpec(Strict):
    """Placement options; not part of the cache key. ``gpus`` is the number of GPUs that a cell takes on Ray or Slurm if
    the study runs on a GPU (0.25: four cells share one, on Ray). ``slurm`` holds the options of a worker job, under
    submitit's names (``partition``, ``account``, ``time`` in minutes, ``mem``, ``gres``, ``setup``).
    """

    gpus: float = Field(default=1.0, gt=0)
    slurm: dict[str, Any] = Field(default_factory=dict)


class GivenSpec(Strict):
    """A point that was trained elsewhere: its name in the tables, its checkpoint, and a mask's file."""

    name: str = Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    path: str
    mask: str | None = None


class StudySpec(SolutionsSpec):
    """A whole study: its solutions, their measurements, and the placement of its cells. With ``given`` points nothing
    is trained: they are measured. ``primary`` names the claims that the study is to decide (default: all),
    ``claim_densities`` the densities at which they are judged; no stored result depends on either.
    """

    geometry: GeometrySpec = GeometrySpec()
    primary: tuple[str, ...] = ()
    claim_densities: tuple[float, ...] = ()
    given: tuple[GivenSpec, ...] = ()
    run: PlaceSpec = PlaceSpec()

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        for density in self.claim_densities:
            if not 0 < density < 1:
                raise ValueError(f"claim_densities lie between 0 and 1, got {density:g}")
        for name, listed in (("primary", self.primary), ("claim_densities", self.claim_densities)):
            if len(set(listed)) != len(listed):
                raise ValueError(f"{name} names one twice: {list(listed)}")
        points, branches = [point.name for point in self.given], [label(self, branch) for branch in self.branches]
        if len(set(points)) != len(points):
            raise ValueError(f"two given points have one name: {points}")
        known, last = (points, len(points) - 1) if points else ([*branches, "dense"], self.levels)
        for name, where in self.geometry.wheres():
            for branch in where.branches or ():
                if branch not in known:
                    raise ValueError(f"{name} asks for branch {branch!r}{nearest(branch, known)}")
            for level in where.levels or ():
                if not 0 <= level <= last:
                    raise ValueError(f"{name} asks for level {level}; the study has levels 0 (dense) to {last}")
        return self

    def document(self) -> dict[str, Any]:
        """The resolved study as JSON, with every default and without the placement."""
        return {**self.model_dump(mode="json", exclude={"train", "run"}), "train": self.train.settings()}


FEW = 10
"""The number of errors that a message lists."""


def parse(document: Mapping[str, Any], where: str = "") -> StudySpec:
    """A study from plain data. Raises ConfigError with the field, its value, and the nearest right name.

    The resolved study is checked too, because a run must be able to read it again.
    """
    try:
        spec = StudySpec.model_validate(bounded(document, numbers=False))
        bounded(spec.document())
        return spec
    except ValidationError as error:
        errors = error.errors()
        more = f"; and {len(errors) - FEW:,} more" if len(errors) > FEW else ""
        raise ConfigError("; ".join(_sentence(e, where) for e in errors[:FEW]) + more) from None
    except ValueError as error:
        raise ConfigError(f"{where + ': ' if where else ''}no study: {error}") from None


def _sentence(error: Any, where: str) -> str:
    """One validation error of pydantic as a clause that names the field."""
    path = ".".join(str(part) for part in error["loc"])
    prefix = f"{where}: " if where else ""
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        key = str(error["loc"][-1])
        if path == key and key in _allowed(("train",)):
            return f"{prefix}unknown key {key!r}; it belongs to train: train = {{ {key} = ... }}"
        return f"{prefix}unknown key {path!r}{nearest(key, _allowed(error['loc'][:-1]))}"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    got = "" if error["type"] == "value_error" or isinstance(error["input"], dict) else f", got {shown}"
    return f"{prefix}{path + ': ' if path else ''}{message}{got}"


def _allowed(path: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at ``path``."""
    at: Any = StudySpec
    for part in path:
        if isinstance(part, int):
            continue
        at = _model(at.model_fields[part].annotation) if hasattr(at, "model_fields") else at
    if at is Recipe:
        return [*Recipe.__dataclass_fields__, "epochs"]
    return list(at.model_fields) if hasattr(at, "model_fields") else []


def _model(annotation: Any) -> Any:
    """The model inside ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or annotation is Recipe):
        return annotation
    inside = [_model(a) for a in getattr(annotation, "__args__", ())]
    return next((m for m in inside if m is not None), None)
