"""A store in object storage, through fsspec: S3 and what speaks its language, Google Cloud Storage, Azure.

A file is one PUT, which is whole or absent by itself. A file that only one run can make is a PUT on the condition that
there is none yet (``If-None-Match: *``, see "conditional writes" in the user guide of Amazon S3). Nothing is renamed.
Storage that ignores the condition is refused before anything is computed (`Store.check_writable`).

Access comes from where its own library looks for it: ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``FSSPEC_S3``, and so on.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from sublevel.engine.store.backend import File, holds, patient, patiently
from sublevel.engine.store.names import TMP
from sublevel.errors import ConfigError

CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "At least one of the pre-conditions")
"""What servers say where a file is there already, or another makes it at this moment."""

BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of HTTP that may be others a moment later."""

CUT = ("Incomplete", "Payload", "Timeout", "Closed", "Disconnected", "Checksum", "Streaming")
"""In the names of what libraries raise where an answer was cut short."""


class Bucket:
    """Files under a URL, ``s3://bucket/folder``. ConfigError for storage that fsspec does not know."""

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        try:
            import fsspec

            # what another process has written is there at once: nothing that was listed or looked at is remembered
            self._fs, self._root = fsspec.core.url_to_fs(self.where, use_listings_cache=False)
        except ImportError as error:
            raise ConfigError(f"a store in {self.where} needs another package: {error}") from None
        except ValueError as error:
            raise ConfigError(f"a store cannot be in {self.where}: {error}") from None

    @patient
    def read(self, name: str) -> bytes:
        """GET."""
        with _plainly():
            return self._fs.cat_file(self._at(name))

    @patient
    def write(self, name: str, data: bytes) -> None:
        """PUT; what is too long for one is uploaded in parts, and is there when the last one is."""
        with _plainly():
            self._fs.pipe_file(self._at(name), data)

    @patient
    def create(self, name: str, data: bytes) -> bool:
        """PUT if there is none.

        The content tells who made what is there: a library that asks again, since an answer was lost, is refused for
        what it has made itself.
        """
        try:
            with _plainly():
                self._fs.pipe_file(self._at(name), data, mode="create")
        except FileExistsError:
            return holds(self, name, data)
        return True

    def touch(self, name: str) -> None:
        """Written again with what it holds: object storage has no other way to be told that a file is in use."""
        self.write(name, self.read(name))

    @patient
    def move(self, name: str, to: str) -> None:
        """Copy, then remove: it may be there twice for a moment, never nowhere."""
        with _plainly():
            self._fs.cp_file(self._at(name), self._at(to))
        self.remove(name)

    @patient
    def remove(self, name: str) -> None:
        """DELETE."""
        with suppress(FileNotFoundError), _plainly():
            self._fs.rm_file(self._at(name))

    @patient
    def look(self, name: str) -> File | None:
        """HEAD."""
        try:
            with _plainly():
                about = self._fs.info(self._at(name))
        except FileNotFoundError:
            return None
        return File(name, int(about["size"]), _modified(about)) if about["type"] == "file" else None

    def files(self, prefix: str) -> Iterator[File]:
        """List the folder of the prefix."""
        folder = prefix.rpartition("/")[0]
        for path, about in sorted(patiently(lambda: self._found(folder)).items()):
            name = path[len(self._root) :].lstrip("/")
            if name.startswith(prefix):
                yield File(name, int(about["size"]), _modified(about))

    def _found(self, folder: str) -> Mapping[str, Mapping[str, Any]]:
        with _plainly():
            return self._fs.find(self._at(folder), detail=True)

    def now(self) -> float:
        """Make a file and read its time."""
        name = f"{TMP}clock-{uuid.uuid4().hex}"
        self.write(name, b"now")
        try:
            found = self.look(name)
        finally:
            self.remove(name)
        if found is None:
            raise OSError(f"{name} is gone as soon as it is written")
        return found.modified

    def occupied(self) -> bool:
        """Whether anything is there but files being written."""
        return any(not file.name.startswith(TMP) for file in self.files(""))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _modified(about: Mapping[str, Any]) -> float:
    """Seconds since 1970, whole: a listing and a look at one object may differ in what follows.

    Each storage calls the time by another name.
    """
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        said = about.get(name)
        if isinstance(said, str):
            said = datetime.fromisoformat(said)
        if isinstance(said, datetime):
            said = (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp()
        if said is not None:
            return float(int(said))
    raise OSError("this storage does not say when a file was changed")


@contextmanager
def _plainly() -> Iterator[None]:
    """Whatever the storage's own library raises, as the OSError that it stands for."""
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:
        if any(word in str(error) for word in CONFLICTS):
            raise FileExistsError(str(error)) from error
        if isinstance(error, OSError):
            raise
        said = f"{type(error).__name__}: {error}"
        raise (OSError(errno.EIO, said) if _may_pass(error) else OSError(said)) from error


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may get an answer where this one did not."""
    status = next((s for s in (getattr(error, n, None) for n in ("status_code", "status", "code")) if s), None)
    return str(status) in map(str, BUSY) or any(word in type(error).__name__ for word in CUT)
