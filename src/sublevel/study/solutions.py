"""The solutions of a study: its data, network, recipe, branches, levels and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from sublevel.errors import ConfigError
from sublevel.numerics import THREADS
from sublevel.problem.spec import DataSpec, ModelSpec, ProblemSpec
from sublevel.strict import Strict
from sublevel.study.fidelity import expanded
from sublevel.train.recipe import LONGEST, Duration, Recipe

Order = Literal["shared", "independent"]


SEEDS = 10_000
"""Largest number of seeds of a study, since each trains every network again."""


class BranchSpec(Strict):
    """A branch: a way to find sparse networks, its levels, and its options.

    ``label`` names it in the tables. ``order`` is the data order of its levels, by default the study's.
    """

    name: str
    levels: tuple[int, ...] | None = None
    label: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9 ._()-]*)?$")
    order: Order | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class PruneSpec(Strict):
    """The density of each level, if it is not set by ``fraction``.

    ``densities`` are the densities of levels 1, 2, ..., and thus set the number of levels. ``target`` is the density of
    the last level; those before it fall geometrically.
    """

    densities: tuple[float, ...] = ()
    target: float | None = None

    @model_validator(mode="after")
    def _falling(self) -> PruneSpec:
        if self.densities and self.target is not None:
            raise ValueError("densities and target both set the densities: give one of them")
        for density in (*self.densities, *([] if self.target is None else [self.target])):
            if not 0 < density < 1:
                raise ValueError(f"a density lies between 0 and 1, got {density:g}")
        for before, after in pairwise(self.densities):
            if after >= before:
                raise ValueError(f"densities fall from level to level, got {after:g} after {before:g}")
        return self


def _recipe(value: Any) -> Any:
    """``epochs = 8`` is short for ``length = "8ep"``. Booleans are not numbers."""
    if not isinstance(value, Mapping):
        return value
    fields = Recipe.__dataclass_fields__
    for key, given in value.items():
        if isinstance(given, bool) and key in fields and not isinstance(fields[key].default, bool):
            raise ValueError(f"{key}: expected a number, not a boolean, got {given}")
    if "epochs" not in value:
        return value
    if "length" in value:
        raise ValueError("epochs and length set the same thing: give one of them")
    epochs = value["epochs"]
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs <= LONGEST:
        allowed = f"a number above 0 and at most {LONGEST:,}"
        raise ValueError(f"epochs is {allowed}, got {epochs!r}; for steps use length = '2000it'")
    return {**{k: v for k, v in value.items() if k != "epochs"}, "length": str(Duration(epochs, "ep"))}


def _branches(value: Any) -> Any:
    """The name of a branch alone means the branch at every level."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return [{"name": v} if isinstance(v, str) else v for v in value] if isinstance(value, list | tuple) else value


def _seeds(value: Any) -> Any:
    """``seeds = 3`` is short for [0, 1, 2]."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value > SEEDS:
        raise ValueError(f"a study has at most {SEEDS:,} seeds, got {value}")
    return list(range(value))


class SolutionsSpec(Strict):
    """The solutions of a study. Each of ``levels`` prunes ``fraction`` of the remaining weights and rewinds the others
    to ``rewind``. ``criterion`` scores the weights, which compete within ``scope``. Layers that match ``protect`` are
    not pruned, and no layer falls below ``floor`` weights. ``rounding`` is exact, or that of open_lth. ``dense_start``
    is where the dense network's own training starts: at ``init``, or at ``rewind`` like every level, with a fresh
    optimizer from step k of a first run. ``fidelity`` sets the keys that the study does not set to those of a paper or
    a package. ``prune`` sets densities instead of ``fraction``. ``order`` is the data order of the levels,
    ``finetune_lr`` the rate of the fine-tuning branches (default: the recipe's last non-zero rate). ``threads`` per
    cell and ``processes`` that train together are part of the key; the number of jobs is not. ``loss`` is a name or an
    import path, ``loop`` the import path of a training loop.
    """

    name: str = Field(default="study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds), Field(min_length=1)] = (0,)
    levels: int = Field(default=10, ge=1)
    fraction: float = Field(default=0.2, gt=0, lt=1)
    rewind: Duration = Duration(0, "it")
    branches: Annotated[tuple[BranchSpec, ...], BeforeValidator(_branches)] = (BranchSpec(name="imp"),)
    prune: PruneSpec = PruneSpec()
    criterion: str = "magnitude"
    scope: Literal["global", "layer", "erk"] = "global"
    rounding: Literal["exact", "open_lth"] = "exact"
    dense_start: Literal["init", "rewind"] = "init"
    fidelity: Literal["paper", "open_lth"] = "paper"
    protect: tuple[str, ...] = ()
    floor: int = Field(default=0, ge=0)
    order: Order = "shared"
    finetune_lr: float | None = Field(default=None, gt=0)
    threads: int = Field(default=1, ge=1, le=THREADS)
    processes: int = Field(default=1, ge=1, le=4096)
    loss: str = "cross-entropy"
    loop: str | None = None
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    train: Annotated[Recipe, BeforeValidator(_recipe)] = Field(default_factory=Recipe)

    @model_validator(mode="before")
    @classmethod
    def _faithful(cls, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document
        written = {**document, "branches": _branches(document["branches"])} if "branches" in document else document
        prune = written.get("prune")
        listed = prune.get("densities") if isinstance(prune, Mapping) else getattr(prune, "densities", None)
        if isinstance(listed, list | tuple) and listed:
            written = {"levels": len(listed), **written}
        return expanded(written, network=ModelSpec().name, data=DataSpec().name)

    @model_validator(mode="after")
    def _solvable(self) -> SolutionsSpec:
        self._check_prune()
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
        return self

    def _check_prune(self) -> None:
        """Raise ValueError if ``prune`` and another key set the same thing."""
        said = "densities" if self.prune.densities else "target" if self.prune.target is not None else ""
        if said == "densities" and len(self.prune.densities) != self.levels:
            raise ValueError(
                f"prune.densities has {len(self.prune.densities)} levels, and levels is {self.levels}: leave levels out"
            )
        for name in ("fraction", "rounding") if said else ():
            given, usual = getattr(self, name), SolutionsSpec.model_fields[name].default
            if given != usual:
                raise ValueError(
                    f"prune.{said} and {name} = {given!r} both set the number of weights of a level: give one of them"
                )

    def density(self, level: int) -> float | None:
        """The density that ``prune`` sets for a level; None if ``fraction`` sets it.

        Raises ConfigError beyond the last of ``prune.densities``.
        """
        if self.prune.target is not None:
            return self.prune.target ** (level / self.levels)
        if not self.prune.densities:
            return None
        if level > self.levels:
            raise ConfigError(f"prune.densities ends at level {self.levels}: level {level} has no density")
        return (1.0, *self.prune.densities)[level]

    def share(self, fraction: float = 0.0) -> float | None:
        """The share of the remaining weights that each level prunes: a branch's own ``fraction``, or the study's.

        None if ``prune.densities`` sets the densities.
        """
        if fraction:
            return fraction
        if self.prune.target is not None:
            return 1 - self.prune.target ** (1 / self.levels)
        return None if self.prune.densities else self.fraction

    @property
    def selection(self) -> dict[str, Any]:
        """The keyword arguments of `sublevel.prune.counts`."""
        return {name: getattr(self, name) for name in ("scope", "rounding", "protect", "floor")}

    def problem(self, device: str) -> ProblemSpec:
        """The problem of the study."""
        return ProblemSpec(
            model=self.model, data=self.data, loss=self.loss, loop=self.loop, device=device, dtype=self.train.dtype
        )


def label(spec: SolutionsSpec, branch: BranchSpec) -> str:
    """A branch's name in the tables: its label, or its name with the settings that differ from the study's.

    These are the fraction, the criterion, the rewind step and the data order: ``imp-0.9``, ``oneshot-snip``,
    ``imp-0it``, ``imp-independent``.
    """
    options = [branch.options.get(name) for name in ("fraction", "criterion", "rewind")]
    own = branch.order is not None and branch.order != spec.order
    parts = [branch.name, *options, branch.order if own else None]
    return branch.label or "-".join(str(part) for part in parts if part)
