"""Where a store's files are, and the few things that can be done with them.

Nothing here renames a file into place for its caller, lists before it writes, or locks: a folder has these operations,
and so has object storage with conditional writes. Names are relative and have slashes: ``cells/cd/cd34...json``.

An operation that fails for a passing reason is tried again; every other failure is an OSError, and says nothing about
what is in a file.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sublevel.errors import StoreError


@dataclass(frozen=True)
class File:
    """A file as a listing tells of it: size in bytes, time of the last change in seconds by the store's clock."""

    name: str
    size: int
    modified: float


class Backend(Protocol):
    """Files by name. Every operation raises OSError where it cannot be done."""

    where: str
    """The place, as messages name it."""

    def read(self, name: str) -> bytes:
        """The bytes of a file. FileNotFoundError if there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file: whole or absent at any moment, and there after a power cut once this returns."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Make a file if there is none of that name; whether it was made. Of several that try, one succeeds."""
        ...

    def touch(self, name: str) -> None:
        """Set the time of the last change to now. FileNotFoundError if there is no such file."""
        ...

    def move(self, name: str, to: str) -> None:
        """Give a file another name. FileNotFoundError if there is none."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def look(self, name: str) -> File | None:
        """What a listing would say of one file."""
        ...

    def files(self, prefix: str) -> Iterator[File]:
        """All files whose name begins so, in the order of their names within a folder."""
        ...

    def now(self) -> float:
        """The time by the clock that ``modified`` is told by: the file server's, not this machine's."""
        ...

    def occupied(self) -> bool:
        """Whether there is anything but files being written."""
        ...


@contextmanager
def refusing(what: str, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """What the operating system refuses becomes one sentence: ``cannot write to the store in ...: No space left``."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise StoreError(f"{what}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """What an error says, and of which file: ``Permission denied (cells/ab/ab12...json)``."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if isinstance(error.filename, str) else "")


PASSING = {
    getattr(errno, name, errno.EIO)
    for name in [
        "EINTR",
        "EAGAIN",
        "EIO",
        "EBUSY",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "ENOBUFS",
        "ESTALE",
        "ETIMEDOUT",
        "ENETDOWN",
        "ENETUNREACH",
        "ENETRESET",
        "ECONNABORTED",
        "ECONNRESET",
        "ECONNREFUSED",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EPIPE",
        "EPROTO",
        "EREMOTEIO",
    ]
}
"""Errors that may be gone a moment later: a file server that restarts, a descriptor that another thread gives back."""

PAUSES = (0.02, 0.1, 0.5)
"""Seconds before the second and every further attempt at what failed for a passing reason."""


def passing(error: OSError) -> bool:
    """Whether an operation that failed so is worth another attempt."""
    return error.errno in PASSING or isinstance(error, TimeoutError)


def holds(files: Backend, name: str, data: bytes) -> bool:
    """Whether a file is there with that content."""
    try:
        return files.read(name) == data
    except FileNotFoundError:
        return False


Done = TypeVar("Done")


def patiently(act: Callable[[], Done]) -> Done:
    """Do something that can be done again; what fails for a passing reason is tried again after each of `PAUSES`."""
    for pause in PAUSES:
        try:
            return act()
        except OSError as error:
            if not passing(error):
                raise
        time.sleep(pause)
    return act()


Method = TypeVar("Method", bound=Callable[..., Any])


def patient(method: Method) -> Method:
    """A method that is tried again where it fails for a passing reason."""

    @functools.wraps(method)
    def wrapped(self: Any, *arguments: Any) -> Any:
        return patiently(lambda: method(self, *arguments))

    return wrapped  # type: ignore[return-value]
