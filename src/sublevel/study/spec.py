"""What the user writes: a study as TOML or as keyword arguments, refused where it cannot be meant."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sublevel.errors import ConfigError, nearest
from sublevel.train.recipe import Duration, Recipe

PRESETS = Path(__file__).parent.parent / "presets"

Order = Literal["shared", "independent"]
Space = Literal["own", "all", "next"]


class Strict(BaseModel):
    """Frozen, and an unknown key is an error; so is true or false where a number is meant, and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"true or false cannot be meant here, got {value}")
        return value


class DataSpec(Strict):
    """Which data, and how much of them. ``options`` are the source's own (a folder's ``size``)."""

    name: str = "fashion-mnist-small"
    root: str | None = None
    validation: int | float = Field(default=0.1, ge=0)
    train_size: int | None = Field(default=None, ge=1)
    test_size: int | None = Field(default=None, ge=1)
    options: dict[str, Any] = {}


class ModelSpec(Strict):
    """A registered network or an import path ``module:function``, with its options."""

    name: str = "lenet-300-100"
    options: dict[str, Any] = {}
    version: str | None = None


class BranchSpec(Strict):
    """A way to find sparse solutions, the levels it is followed at, and its options.

    ``label`` names it in the tables. ``order`` is the data order of its levels, by default the study's.
    """

    name: str
    levels: tuple[int, ...] | None = None
    label: str = ""
    order: Order | None = None
    options: dict[str, Any] = {}


class Where(Strict):
    """Which solutions to measure: by branch, level and number of seeds; absent means all."""

    branches: tuple[str, ...] | None = None
    levels: tuple[int, ...] | None = None
    seeds: int | None = Field(default=None, ge=0)

    def admits(self, branch: str, level: int, nth_seed: int) -> bool:
        """Whether a solution is asked for."""
        return (
            (self.branches is None or branch in self.branches)
            and (self.levels is None or level in self.levels)
            and (self.seeds is None or nth_seed < self.seeds)
        )


class LegsSpec(Where):
    """Both legs of a level, on ``size`` training examples and as many of the test set (absent: all)."""

    size: int | None = Field(default=None, ge=1)
    buffers: tuple[Literal["stored", "recomputed"], ...] = ("stored", "recomputed")


class PathsSpec(Strict):
    """Segments: from one level to the next, to the dense solution, from the rewound start, between data orders."""

    points: int = Field(default=21, ge=3)
    refine: int = Field(default=2, ge=0)
    size: int | None = Field(default=None, ge=1)
    buffers: tuple[Literal["averaged", "recomputed", "batch"], ...] = ("averaged", "recomputed")
    successive: Where | None = Where()
    to_dense: Where | None = Where()
    from_start: Where | None = None
    orders: Where | None = None


class SpectraSpec(Where):
    """The ``k`` largest Hessian eigenvalues on ``size`` training examples, and the volume that they give."""

    k: int = Field(default=10, ge=1)
    size: int | None = Field(default=None, ge=1)
    spaces: tuple[Space, ...] = ("own", "all", "next")
    policy: Literal["stored", "recomputed", "batch"] = "stored"
    tolerance: float | None = Field(default=None, gt=0)
    steps: int = Field(default=200, ge=2)
    restarts: int = Field(default=3, ge=0)
    negative: int = Field(default=3, ge=0)
    exclude_dead: bool = False
    eps: float = Field(default=0.1, gt=0)


class MeasureSpec(Strict):
    """What is measured beside the losses of every solution; an absent block is not measured."""

    legs: LegsSpec | None = None
    paths: PathsSpec | None = None
    spectra: SpectraSpec | None = None


def _recipe(value: Any) -> Any:
    """``epochs = 8`` is short for ``length = "8ep"``."""
    if not isinstance(value, Mapping) or "epochs" not in value:
        return value
    if "length" in value:
        raise ValueError("epochs and length say the same thing: give one of them")
    epochs = value["epochs"]
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs < inf:
        raise ValueError(f"epochs is a number above 0, got {epochs!r}; for steps use length = '2000it'")
    return {**{k: v for k, v in value.items() if k != "epochs"}, "length": str(Duration(epochs, "ep"))}


def _branches(value: Any) -> Any:
    """A branch's name alone stands for it at every level."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return [{"name": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value


def _seeds(value: Any) -> Any:
    """``seeds = 3`` is short for [0, 1, 2]."""
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


class StudySpec(Strict):
    """A whole study. ``fraction`` of the remaining weights goes at each of ``levels``; survivors are rewound to
    ``rewind``. ``order`` is the data order of the levels, ``scope`` where scores compete, ``finetune_lr`` the rate of
    the fine-tuning branches (absent: the recipe's last non-zero rate). ``threads`` per cell are part of a result's
    identity, the number of jobs is not.
    """

    name: str = Field(default="study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds), Field(min_length=1)] = (0,)
    levels: int = Field(default=10, ge=1)
    fraction: float = Field(default=0.2, gt=0, lt=1)
    rewind: Duration = Duration(0, "it")
    branches: Annotated[tuple[BranchSpec, ...], BeforeValidator(_branches)] = (BranchSpec(name="imp"),)
    criterion: str = "magnitude"
    scope: Literal["global", "layer"] = "global"
    order: Order = "shared"
    finetune_lr: float | None = Field(default=None, gt=0)
    threads: int = Field(default=1, ge=1)
    loss: str = "cross-entropy"
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    train: Annotated[Recipe, BeforeValidator(_recipe)] = Field(default_factory=Recipe)
    measure: MeasureSpec = MeasureSpec()

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are given twice: {list(self.seeds)}")
        labels = [label(self, branch) for branch in self.branches]
        for name in {n for n in labels if labels.count(n) > 1}:
            raise ValueError(f"two branches are called {name!r}: give one of them a label")
        for branch, known in ((b, labels[i]) for i, b in enumerate(self.branches)):
            if branch.levels == ():
                raise ValueError(f"branch {known!r} asks for no level; leave levels out for all of them")
            for level in branch.levels or ():
                if not 1 <= level <= self.levels:
                    raise ValueError(
                        f"branch {known!r} asks for level {level}; the study has levels 1 to {self.levels}"
                    )
        for name, where in _wheres(self.measure):
            for branch in where.branches or ():
                if branch not in (*labels, "dense"):
                    raise ValueError(f"{name} asks for branch {branch!r}{nearest(branch, [*labels, 'dense'])}")
            for level in where.levels or ():
                if not 0 <= level <= self.levels:
                    raise ValueError(f"{name} asks for level {level}; the study has levels 0 (dense) to {self.levels}")
        return self

    def document(self) -> dict[str, Any]:
        """The resolved study as JSON, every default written out."""
        return {**self.model_dump(mode="json", exclude={"train"}), "train": self.train.document()}


def label(spec: StudySpec, branch: BranchSpec) -> str:
    """A branch's name in the tables: its label, or its name with the data order where that is not the study's."""
    own = branch.order is not None and branch.order != spec.order
    return branch.label or (f"{branch.name}-{branch.order}" if own else branch.name)


def parse(document: Mapping[str, Any], where: str = "") -> StudySpec:
    """A study from plain data. ConfigError names the field, what it got, and the nearest right name."""
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(e, where) for e in error.errors())) from None


def read(target: str) -> dict[str, Any]:
    """The raw study of a preset or a TOML file."""
    path = Path(target)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise ConfigError(f"there is no study file {target}")
        source = path
    elif target in preset_names():
        source = PRESETS / f"{target}.toml"
    else:
        raise ConfigError(f"{target!r} is neither a study file (.toml) nor a preset{nearest(target, preset_names())}")
    try:
        document = tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source.name} is not valid TOML: {error}") from error
    return {"name": source.stem, **document}


def preset_names() -> list[str]:
    """The studies that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.toml"))


def override(document: dict[str, Any], assignment: str) -> dict[str, Any]:
    """A raw study with ``a.b=value`` set; the value is TOML, or text where it is none.

    >>> override(override({"train": {"lr": 0.1}}, "train.lr=0.05"), "data.name=cifar10")
    {'train': {'lr': 0.05}, 'data': {'name': 'cifar10'}}
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"an override is written key=value, got {assignment!r}")
    return _with(document, keys, _value(text), path)


def merged(document: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A raw study with keys replaced; those in ``train``, ``data`` and ``model`` one by one."""
    out = dict(document)
    for name, value in keys.items():
        group = value.items() if name in ("train", "data", "model") and isinstance(value, Mapping) else None
        if group is None:
            out = _with(out, [name], value, name)
        for key, inner in group or ():
            out = _with(out, [name, key], inner, f"{name}.{key}")
    return out


def _with(document: Mapping[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    head, *rest = keys
    out = dict(document)
    if not rest:
        if head in ("epochs", "length"):  # two words for one thing: the last one counts
            out.pop("length", None)
            out.pop("epochs", None)
        return {**out, head: value}
    inner = out.get(head, {})
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{path!r} cannot be set: {head!r} is not a group of keys")
    return {**out, head: _with(inner, rest, value, path)}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _wheres(measure: MeasureSpec) -> Iterator[tuple[str, Where]]:
    paths = measure.paths
    kinds = {k: getattr(paths, k) for k in ("successive", "to_dense", "from_start", "orders")} if paths else {}
    named = {"measure.legs": measure.legs, "measure.spectra": measure.spectra}
    named |= {f"measure.paths.{k}": v for k, v in kinds.items()}
    return ((name, where) for name, where in named.items() if where is not None)


def _sentence(error: Any, where: str) -> str:
    """One validation error of pydantic as a clause that names the field."""
    path = ".".join(str(part) for part in error["loc"])
    prefix = f"{where}: " if where else ""
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{prefix}unknown key {path!r}{nearest(str(error['loc'][-1]), _allowed(error['loc'][:-1]))}"
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" or isinstance(error["input"], dict) else f", got {error['input']!r}"
    return f"{prefix}{path + ': ' if path else ''}{message}{got}"


def _allowed(path: tuple[Any, ...]) -> list[str]:
    """The keys that may stand at ``path``."""
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
