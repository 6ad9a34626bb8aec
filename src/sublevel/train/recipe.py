"""The recipe: all settings of a training except the network, the data and the seed.

Lengths of training have a unit: ``160ep`` or ``62560it``. A bare number is refused if both units are possible.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from math import ceil, cos, inf, pi
from typing import Any

SCHEDULES = ("constant", "milestones", "cosine")
OPTIMIZERS = ("sgd", "adam", "adamw")
DTYPES = ("float32", "float64")
ENGINES = ("auto", "eager", "graph", "sparse")


LONGEST = 10_000_000
"""Maximum number of steps of a training."""


@dataclass(frozen=True)
class Duration:
    """A length of training in steps (``it``) or epochs (``ep``).

    >>> Duration.parse("160ep").steps(391), str(Duration.parse("2000it"))
    (62560, '2000it')
    """

    count: float
    unit: str

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Parse ``160ep``, ``0.5ep`` or ``2000it``. Raises ValueError naming the allowed forms."""
        if isinstance(text, cls):
            return text
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(it|ep)\s*", text) if isinstance(text, str) else None
        if not match:
            raise ValueError(
                f"a length of training is steps or epochs with its unit, as '2000it' or '160ep'; got {text!r}"
            )
        count, unit = float(match[1]), match[2]
        if unit == "it" and count != int(count):
            raise ValueError(f"steps are whole; got {text!r}")
        if count > LONGEST:
            raise ValueError(f"a length of training is at most {LONGEST:,} steps; got {text!r}")
        return cls(count, unit)

    def steps(self, per_epoch: int) -> int:
        """The length in steps, with ``per_epoch`` of them in an epoch."""
        return round(self.count * per_epoch) if self.unit == "ep" else int(self.count)

    def __str__(self) -> str:
        return f"{Decimal(repr(self.count)).normalize():f}{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Read and write durations as text in study files."""
        from pydantic_core import core_schema as schema

        return schema.no_info_plain_validator_function(
            cls.parse, serialization=schema.plain_serializer_function_ser_schema(str)
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with momentum and weight decay on all parameters, and a schedule of the learning rate.

    ``optimizer`` may be ``adam`` or ``adamw``; ``momentum`` is then beta_1. ``adamw`` decouples weight decay from the
    gradient (Loshchilov and Hutter 1711.05101); in the others it is a term of the loss.

    ``crop`` pads by that many pixels and crops at random; ``flip`` mirrors at random. An epoch keeps its last, smaller
    batch. ``gamma`` is the factor at each of the ``milestones``. ``warmup`` rises linearly to ``lr``: at step s of w
    the rate is lr (s + 1) / w, or lr s / w with ``warmup_from_zero``.

    The dense run stores its points at the steps of ``checkpoints``, so other runs can start from them. Every training
    stores its points at the steps of ``trajectory`` that it passes, including its start.

    If several processes train together, BatchNorm uses the whole batch if ``synchronised``; otherwise each process uses
    its share, and the running statistics are averaged. With one process both are the same. ``block`` and ``mix`` order
    the examples of data read from files (see `sublevel.data.batches.epoch_plan`); ``block`` 0 is a random order.

    ``engine`` computes the step (see `sublevel.train.engines`). ``tf32`` lets CUDA round the factors of products to 10
    bits. ``bf16`` runs the network under autocast in bfloat16, with weights and optimizer in ``dtype``. Both change the
    results and are off by default.

    A field added later has ``introduced`` in its metadata. While it has that value it is not part of a cell's key, so
    old results stay valid; a changed default gives another key.
    """

    length: Duration = field(default_factory=lambda: Duration(160, "ep"))
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "constant"
    milestones: tuple[Duration, ...] = ()
    gamma: float = 0.1
    warmup: Duration = field(default_factory=lambda: Duration(0, "it"))
    crop: int = 0
    flip: bool = False
    dtype: str = "float32"
    checkpoints: tuple[Duration, ...] = ()
    optimizer: str = field(default="sgd", metadata={"introduced": "sgd"})
    beta2: float = field(default=0.999, metadata={"introduced": 0.999})
    eps: float = field(default=1e-8, metadata={"introduced": 1e-8})
    warmup_from_zero: bool = field(default=False, metadata={"introduced": False})
    synchronised: bool = field(default=True, metadata={"introduced": True})
    block: int = field(default=0, metadata={"introduced": 0})
    mix: int = field(default=16, metadata={"introduced": 16})
    engine: str = field(default="auto", metadata={"introduced": "auto"})
    tf32: bool = field(default=False, metadata={"introduced": False})
    bf16: bool = field(default=False, metadata={"introduced": False})
    trajectory: tuple[Duration, ...] = field(default=(), metadata={"introduced": ()})

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic, which train does not import)

    def __post_init__(self) -> None:
        for name, ok, allowed in (
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("lr", 0 < self.lr < inf, "positive and finite"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < inf, "0 or more, and finite"),
            ("gamma", 0 < self.gamma <= 1, "in (0, 1]"),
            ("crop", self.crop >= 0, "0 or more"),
            ("length", self.length.count > 0, "longer than 0"),
            ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            ("nesterov", not self.nesterov or self.momentum > 0, "used with momentum"),
            ("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            ("nesterov", not self.nesterov or self.optimizer == "sgd", "used with optimizer = 'sgd'"),
            ("beta2", 0 <= self.beta2 < 1, "in [0, 1)"),
            ("eps", 0 < self.eps < inf, "positive and finite"),
            ("block", self.block >= 0, "0 or more"),
            ("mix", self.mix >= 1, "at least 1"),
            ("engine", self.engine in ENGINES, f"one of {', '.join(ENGINES)}"),
            ("bf16", not (self.bf16 and self.engine == "sparse"), "off with engine = 'sparse'"),
        ):
            if not ok:
                got = getattr(self, name)
                raise ValueError(f"{name} must be {allowed}, got {got if isinstance(got, Duration) else repr(got)}")
        if bool(self.milestones) != (self.schedule == "milestones"):
            raise ValueError(f"milestones and schedule = 'milestones' belong together, got schedule {self.schedule!r}")

    def steps_per_epoch(self, examples: int) -> int:
        """Steps in one epoch of ``examples``, the last batch kept."""
        return ceil(examples / self.batch_size)

    def steps(self, examples: int) -> int:
        """Steps of the whole run."""
        return self.length.steps(self.steps_per_epoch(examples))

    def rates(self, examples: int) -> list[float]:
        """The learning rate of every step."""
        per_epoch, total = self.steps_per_epoch(examples), self.steps(examples)
        drops = [m.steps(per_epoch) for m in self.milestones]
        rise = self.warmup.steps(per_epoch)
        return [self._rate(step, total, drops, rise) for step in range(total)]

    def _rate(self, step: int, total: int, drops: list[int], rise: int) -> float:
        if step < rise:
            return self.lr * (step if self.warmup_from_zero else step + 1) / rise
        if self.schedule == "milestones":
            return self.lr * self.gamma ** sum(step >= drop for drop in drops)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + cos(pi * (step - rise) / max(total - rise, 1)))
        return self.lr

    def with_length(self, length: str | Duration) -> Recipe:
        """The same recipe for another length."""
        return replace(self, length=Duration.parse(length))

    def settings(self) -> dict[str, object]:
        """Every field as JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def document(self) -> dict[str, object]:
        """The recipe as JSON for a cell's key, without fields at their introduced value (see the class)."""
        told = {f.name: f.metadata["introduced"] for f in fields(self) if "introduced" in f.metadata}
        kept = (f.name for f in fields(self) if f.name not in told or getattr(self, f.name) != told[f.name])
        return {name: _plain(getattr(self, name)) for name in kept}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Recipe:
        """Inverse of `document`; absent fields take the value they were introduced with."""
        known = {f.name: f for f in fields(cls)}
        values = {name: f.metadata["introduced"] for name, f in known.items() if "introduced" in f.metadata}
        for name, value in document.items():
            if name in ("length", "warmup"):
                value = Duration.parse(value)
            elif name in ("milestones", "checkpoints", "trajectory"):
                value = tuple(Duration.parse(v) for v in value)
            values[name] = value
        return cls(**values)


def _plain(value: object) -> object:
    if isinstance(value, Duration):
        return str(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
