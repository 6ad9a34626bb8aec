"""Check whether loaded code still matches its file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType


def matches_its_file(function: FunctionType) -> bool:
    """Return False if the file was edited after the import, so that no code in it compiles to the loaded code.

    Return True for a function without a file (from a notebook or a prompt).
    """
    path = Path(function.__code__.co_filename)
    try:
        text = path.read_bytes()
    except OSError:
        return True
    mine = meaning(function.__code__)
    return any(meaning(code) == mine for code in compiled(text, str(path)) if same_name(code, function.__code__))


def same_name(a: CodeType, b: CodeType) -> bool:
    """Return whether two code objects have the same qualified name."""
    return a.co_qualname == b.co_qualname


@lru_cache(maxsize=256)
def compiled(text: bytes, path: str) -> tuple[CodeType, ...]:
    """Return every code object of a source text; empty if it does not compile."""
    try:
        return tuple(walk(compile(text, path, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):
        return ()


def walk(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all that are nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from walk(constant)


def meaning(code: CodeType) -> tuple[object, ...]:
    """Return the behaviour of a code object, without its file and line numbers."""
    constants = tuple(meaning(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
