"""The operations on a store's files that a folder and object storage both offer.

There is no rename into place, no lock and no listing before a write. Names are relative, with slashes:
``cells/cd/cd34...json``. An operation that fails for a transient reason is retried. Every other failure is an OSError;
it says nothing about the content of a file.
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
    """A file in a listing: size in bytes, time of the last change in seconds by the store's clock."""

    name: str
    size: int
    modified: float


class Backend(Protocol):
    """Files by name. Every operation raises OSError where it cannot be done."""

    where: str
    """The place, for messages."""

    def read(self, name: str) -> bytes:
        """The bytes of a file. FileNotFoundError if there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file atomically; it survives a power cut once this returns."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create a file that does not exist yet; return whether this call did. One of several concurrent calls does."""
        ...

    def touch(self, name: str) -> None:
        """Set the time of the last change to now. FileNotFoundError if the file is missing."""
        ...

    def move(self, name: str, to: str) -> None:
        """Rename a file. FileNotFoundError if it is missing."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is no error."""
        ...

    def look(self, name: str) -> File | None:
        """The file as a listing shows it; None if it is missing."""
        ...

    def files(self, prefix: str) -> Iterator[File]:
        """All files whose name starts with ``prefix``, sorted by name within each folder."""
        ...

    def now(self) -> float:
        """The time by the clock that sets ``modified``: the file server's, not this machine's."""
        ...

    def occupied(self) -> bool:
        """Whether the place holds anything but unfinished files."""
        ...


@contextmanager
def store_errors(what: str, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn an OSError into a StoreError of one sentence: ``cannot write to the store in ...: No space left``."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise StoreError(f"{what}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """The reason of an error and its file: ``Permission denied (cells/ab/ab12...json)``."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if isinstance(error.filename, str) else "")


_NAMES = (
    "EINTR EAGAIN EIO EBUSY EMFILE ENFILE ENOMEM ENOBUFS ESTALE ETIMEDOUT ENETDOWN ENETUNREACH ENETRESET ECONNABORTED "
    "ECONNRESET ECONNREFUSED EHOSTDOWN EHOSTUNREACH EPIPE EPROTO EREMOTEIO"
)
PASSING = {getattr(errno, name, errno.EIO) for name in _NAMES.split()}
"""Transient errors: a file server restarts, another thread closes a descriptor."""

PAUSES = (0.02, 0.1, 0.5)
"""Seconds before each retry of an operation that failed with a transient error."""


def passing(error: OSError) -> bool:
    """Whether an error is transient, so that a retry may succeed."""
    return error.errno in PASSING or isinstance(error, TimeoutError)


def holds(files: Backend, name: str, data: bytes) -> bool:
    """Whether a file exists with this content."""
    try:
        return files.read(name) == data
    except FileNotFoundError:
        return False


Done = TypeVar("Done")


def patiently(act: Callable[[], Done]) -> Done:
    """Call ``act``; on a transient error wait and call it again, once for each of `PAUSES`."""
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
    """Decorate a method so that it is retried on transient errors."""

    @functools.wraps(method)
    def wrapped(self: Any, *arguments: Any) -> Any:
        return patiently(lambda: method(self, *arguments))

    return wrapped  # type: ignore[return-value]
