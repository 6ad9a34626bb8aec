"""Shapes are checked while the tests run: every ``Float[Tensor, "D"]`` of the modules named is an assertion.

A check takes 0.1 to 1 ms, more than a short function itself. In each test the first calls of a function are checked,
then one in `EVERY`. A function that is made anew at each call of another counts as one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

FIRST = 4
EVERY = 128

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""The checker of annotations: beartype, with a whole number allowed where a float is asked for (PEP 484)."""

_calls: Counter[CodeType] = Counter()
_always = jaxtyping.jaxtyped


def install(modules: Sequence[str]) -> None:
    """Check what is imported from these modules from now on."""
    jaxtyping.jaxtyped = _sampled  # the import hook writes this name above every function
    jaxtyping.install_import_hook(modules, "shapes.check")


def begin() -> None:
    """Check the first calls of every function again: a test begins."""
    _calls.clear()


def _due(code: CodeType) -> bool:
    _calls[code] += 1
    return _calls[code] <= FIRST or _calls[code] % EVERY == 0


def _sampled(*, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    def decorated(it: Any) -> Any:
        if isinstance(it, type):
            return _always(it, typechecker=typechecker)
        code = it.__code__
        checked: list[Callable[..., Any]] = []

        @functools.wraps(it)
        def either(*args: Any, **kwargs: Any) -> Any:
            if not _due(code):
                return it(*args, **kwargs)
            if not checked:
                checked.append(_always(it, typechecker=typechecker))
            return checked[0](*args, **kwargs)

        return either

    return decorated
