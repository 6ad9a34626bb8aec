"""A store in object storage, through fsspec: S3 and compatible services, Google Cloud Storage, Azure.

A file is one PUT, which is atomic. Exclusive creation is a conditional PUT (``If-None-Match: *``, see "conditional
writes" in the user guide of Amazon S3). Nothing is renamed. `Store.check_writable` refuses storage that ignores the
condition, before anything is computed.

Each storage library finds its credentials itself: ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``FSSPEC_S3``, and so on.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from sublevel.engine.store.backend import File, holds, patient
from sublevel.engine.store.names import TMP, check_length, is_document
from sublevel.errors import ConfigError
from sublevel.foreign import LARGEST

CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "At least one of the pre-conditions")
"""In server errors: the file exists, or another client creates it at this moment."""

BUSY = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses that are worth a retry."""

CUT = ("Incomplete", "Payload", "Timeout", "Closed", "Disconnected", "Checksum", "Streaming")
"""In the class names of errors that mean a truncated answer."""


class Bucket:
    """Files under a URL, ``s3://bucket/folder``. ConfigError for storage that fsspec does not know."""

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        try:
            import fsspec

            # no caching, so that what another process writes is seen at once
            self._fs, self._root = fsspec.core.url_to_fs(self.where, use_listings_cache=False)
        except ImportError as error:
            raise ConfigError(f"a store in {self.where} needs another package: {error}") from None
        except ValueError as error:
            raise ConfigError(f"a store cannot be in {self.where}: {error}") from None

    @patient
    def read(self, name: str) -> bytes:
        """GET; of a document one byte more than the largest may have. OSError if it is larger."""
        if not is_document(name):
            with _plainly():
                return self._fs.cat_file(self._at(name))
        try:
            with _plainly():
                data = self._fs.cat_file(self._at(name), start=0, end=LARGEST + 1)
        except OSError:
            found = self.look(name)
            if found is None or found.size:
                raise
            return b""  # no part of an empty file can be asked for
        if len(data) > LARGEST:
            found = self.look(name)
            check_length(name, found.size if found else len(data))
        return data

    @patient
    def write(self, name: str, data: bytes) -> None:
        """PUT; a large file is uploaded in parts and appears when the last part is there."""
        with _plainly():
            self._fs.pipe_file(self._at(name), data)

    @patient
    def create(self, name: str, data: bytes) -> bool:
        """Conditional PUT.

        If it is refused, the content shows whether this call created the file: the storage library retries a PUT whose
        answer was lost, and the retry is refused because the file exists.
        """
        try:
            with _plainly():
                self._fs.pipe_file(self._at(name), data, mode="create")
        except FileExistsError:
            return holds(self, name, data)
        return True

    def touch(self, name: str) -> None:
        """Write the same content again: object storage has no other way to set the time."""
        self.write(name, self.read(name))

    @patient
    def move(self, name: str, to: str) -> None:
        """Copy, then remove: for a moment both names exist."""
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
        for path, about in sorted(self._found(prefix.rpartition("/")[0]).items()):
            name = path[len(self._root) :].lstrip("/")
            if name.startswith(prefix):
                yield File(name, int(about["size"]), _modified(about))

    @patient
    def _found(self, folder: str) -> Mapping[str, Mapping[str, Any]]:
        with _plainly():
            return self._fs.find(self._at(folder), detail=True)

    def now(self) -> float:
        """Create a file and read its time."""
        name = f"{TMP}clock-{uuid.uuid4().hex}"
        self.write(name, b"now")
        try:
            found = self.look(name)
        finally:
            self.remove(name)
        if found is None:
            raise OSError(f"{name} does not exist right after it was written")
        return found.modified

    def occupied(self) -> bool:
        """Whether the place holds anything but unfinished files."""
        return any(not file.name.startswith(TMP) for file in self.files(""))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _modified(about: Mapping[str, Any]) -> float:
    """Time of the last change, in whole seconds since 1970, since listings and HEAD may differ in the fraction.

    The field's name depends on the storage.
    """
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        said = about.get(name)
        if isinstance(said, str):
            said = datetime.fromisoformat(said)
        if isinstance(said, datetime):
            said = (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp()
        if said is not None:
            return float(int(said))
    raise OSError("this storage does not give the times of changes")


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn the errors of a storage library into OSErrors."""
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:
        if any(word in str(error) for word in CONFLICTS):
            raise FileExistsError(str(error)) from error
        if isinstance(error, OSError):
            raise
        kind = type(error).__name__
        status = next((s for s in (getattr(error, n, None) for n in ("status_code", "status", "code")) if s), None)
        again = str(status) in map(str, BUSY) or any(word in kind for word in CUT)
        raise (OSError(errno.EIO, f"{kind}: {error}") if again else OSError(f"{kind}: {error}")) from error
