"""Between a study's words and its problem: the one is made from the other, in both directions."""

from __future__ import annotations

from typing import Any

import torch

from sublevel.errors import ConfigError
from sublevel.problem import Problem, path
from sublevel.study.spec import StudySpec


def device_for(asked: str, fallback: str = "cpu") -> str:
    """The device that ``auto`` means here, or the one asked for; ConfigError where it cannot be used."""
    if asked != "auto":
        try:
            torch.zeros(1, device=asked)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {asked!r} cannot be used: {str(error).splitlines()[0]}") from None
        return asked
    return "cuda" if torch.cuda.is_available() else fallback


def is_own(code: Any) -> bool:
    """Whether a loss or a loop is code of the user's own."""
    return callable(code) or ":" in str(code)


def saying(p: Problem) -> dict[str, Any]:
    """What a problem given in Python says of the study's keys."""
    own = p.train is not None
    data = {name: getattr(p, name) for name in ("validation", "train_size", "test_size", "mean", "std")}
    named = (
        {"name": "own"} if own else {"name": p.data, "root": p.root and str(p.root), "options": dict(p.data_options)}
    )
    model = {"name": p.name, "options": dict(p.options), "version": p.version}
    code = {"loss": path(p.loss), "loop": None if p.loop is None else path(p.loop)}
    return {"data": {**data, **named}, "model": model, **code, "train": {"dtype": p.dtype}}


def posed(spec: StudySpec, device: str) -> Problem:
    """The problem that a study file poses."""
    d, m = spec.data, spec.model
    return Problem(
        m.name,
        data=d.name,
        root=d.root,
        loss=spec.loss,
        loop=spec.loop,
        options=m.options,
        data_options=d.options,
        validation=d.validation,
        train_size=d.train_size,
        test_size=d.test_size,
        mean=d.mean,
        std=d.std,
        prunable=m.prunable,
        version=m.version,
        device=device,
        dtype=spec.train.dtype,
    )
