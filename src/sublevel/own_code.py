"""Run the user's code inside this process, and contain its side effects.

The code may print, import, train and raise. It may not end or replace the process, read the terminal, change the
working folder or the standard streams for good, or return twice after a fork.
"""

from __future__ import annotations

import bdb
import os
import posix
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sublevel.errors import ModelError, kind_and_text

WAIT = 2.0
"""Seconds to wait for a forked child to return; the wait stops when the child ends."""

ENDS = ("_exit", "execv", "execve")
"""Functions of ``os`` that end or replace the process at once; the others are made of these."""

_leave, _forks = os._exit, 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_parent=_count_fork)


@contextmanager
def contained() -> Iterator[None]:
    """Run the user's code so that it ends with a result or an exception.

    Standard input is empty unless it is a terminal. The working folder and the output streams are restored. Raises
    ModelError if the code ends the process (``sys.exit``, ``os._exit``, ``os.execv``), stops at ``breakpoint()``
    without a terminal, or forks and the child returns too; the child then exits here. A Ctrl-C of the user passes
    through.
    """
    me, forks, here = os.getpid(), _forks, _folder()
    read_end, write_end = os.pipe()
    try:
        with _without_input(), _same_output(), _daemon_threads(), _without_ends(me) as ended:
            try:
                yield
            except BaseException as error:
                _end_child(me, write_end)
                if isinstance(error, bdb.BdbQuit):
                    raise ModelError("the code stopped at breakpoint(), and there is no terminal") from error
                pressed = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
                if isinstance(error, Exception) or pressed:  # workers ignore Ctrl-C, so there the code raised it
                    raise
                raise ModelError(f"the code ended the program: {kind_and_text(error)}") from error
            _end_child(me, write_end)
            if ended:  # in a thread, or in a try statement
                raise ModelError(f"the code ended the program: {ended[0]}")
        write_end = _close(write_end)  # the pipe ends when all children have exited
        if _forks > forks and select.select([read_end], [], [], WAIT)[0] and os.read(read_end, 1) == b"!":
            raise ModelError("the code forked and its child returned: two processes would compute one cell")
    finally:
        _close(write_end)
        _close(read_end)
        if here and _folder() != here:
            with suppress(OSError):
                os.chdir(here)


def _end_child(parent: int, pipe: int) -> None:
    """Exit if this process is a child that the code forked, and notify its parent."""
    if os.getpid() != parent:
        with suppress(OSError):
            os.write(pipe, b"!")
        _leave(70)


def _close(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


@contextmanager
def _without_ends(me: int) -> Iterator[list[str]]:
    """Make `ENDS` raise SystemExit in this process, and yield the list of such calls. A forked child keeps them."""
    called: list[str] = []
    before = {name: getattr(os, name) for name in ENDS}

    def guarded(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def end(*arguments: Any, **named: Any) -> None:
            if os.getpid() != me:
                real(*arguments, **named)
            called.append(f"os.{name}({', '.join(map(repr, arguments[:1]))})")
            raise SystemExit(called[-1])

        return end

    try:
        for name, real in before.items():
            wrapped = guarded(name, real)
            setattr(os, name, wrapped)
            setattr(posix, name, wrapped)
        yield called
    finally:
        for name, real in before.items():
            setattr(os, name, real)
            setattr(posix, name, real)


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


@contextmanager
def _same_output() -> Iterator[None]:
    """Restore ``sys.stdout`` and ``sys.stderr``; open those that were closed again."""
    before = {"stdout": sys.stdout, "stderr": sys.stderr}
    try:
        yield
    finally:
        for number, (name, stream) in enumerate(before.items(), 1):
            if getattr(stream, "closed", False):
                with suppress(OSError):  # closing the stream leaves its descriptor open
                    stream = open(number, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


@contextmanager
def _daemon_threads() -> Iterator[None]:
    """Start every thread as a daemon: one that never ends would keep the process from ending after the run."""
    before = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if not thread.is_alive():
            thread.daemon = True
        before(thread)

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = before  # type: ignore[method-assign]


def _terminal(stream: Any) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # closed, or none at all
        return False
