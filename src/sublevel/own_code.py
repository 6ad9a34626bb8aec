"""Code of the user's own, run inside this process: what it may not do to it.

It may print, import, train and raise. It may not end the process, ask the terminal, leave another working folder
behind, or come back twice.
"""

from __future__ import annotations

import bdb
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sublevel.errors import ModelError

WAIT = 2.0
"""Seconds that a child which the code forked has to come back; one that ends sooner is not waited for."""

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_parent=_count_fork)


@contextmanager
def contained() -> Iterator[None]:
    """Run code of the user's own, so that every end of it is a result or an exception.

    Standard input is empty unless it is a terminal. The working folder is what it was. Raises ModelError where the code
    ends the process (``sys.exit``), stops at ``breakpoint()`` without a terminal, or forks and comes back in the child
    too; the child ends here. A Ctrl-C of the user's passes.
    """
    me, forks, here = os.getpid(), _forks, _folder()
    came, back = os.pipe()
    try:
        with _without_input():
            try:
                yield
            except BaseException as error:
                _end_child(me, back)
                if isinstance(error, bdb.BdbQuit):
                    raise ModelError("the code stopped at breakpoint(), and there is no terminal") from error
                if isinstance(error, Exception) or _interrupted(error):
                    raise
                raise ModelError(f"the code ended the program: {type(error).__name__}: {error}") from error
            _end_child(me, back)
        back = _closed(back)
        if _forks > forks and _came_back(came):
            raise ModelError("the code forked, and the child came back: two processes went on with one cell")
    finally:
        _closed(back)
        _closed(came)
        if here and _folder() != here:
            with suppress(OSError):
                os.chdir(here)


def _interrupted(error: BaseException) -> bool:
    """Whether the user pressed Ctrl-C; workers ignore that signal, so there the code itself raised it."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def _end_child(parent: int, back: int) -> None:
    """End this process if it is a child that the code forked; its parent is told."""
    if os.getpid() != parent:
        with suppress(OSError):
            os.write(back, b"!")
        os._exit(70)


def _came_back(pipe: int) -> bool:
    """Whether a child came back. The pipe ends when all children have."""
    ready, _, _ = select.select([pipe], [], [], WAIT)
    return bool(ready) and os.read(pipe, 1) == b"!"


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


@contextmanager
def _without_input() -> Iterator[None]:
    before = sys.stdin
    if _terminal(before):
        yield
        return
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def _terminal(stream: Any) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # closed, or none at all
        return False
