"""Faults that a store meets: one call of the operating system that fails, one request to object storage that does."""

from __future__ import annotations

import errno
import http.client
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest

from sublevel.engine.store import folder

CALLS = ("open", "read", "write", "fsync", "replace", "scandir", "unlink", "utime", "mkdir", "fstat", "stat")
"""What a store in a folder asks of the system: ``replace`` renames, ``scandir`` lists, ``unlink`` removes."""

ERRORS = (errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EINTR)


class Failing:
    """The module ``os``, one call of which fails: the ``at``-th of that name, counted from 0, or all from there on.

    A write that fails has written half of its bytes, and with ``late`` a call has done its work before it fails, as
    where a file server's answer is lost.
    """

    def __init__(self, call: str, code: int, at: int, *, late: bool = False, for_good: bool = False) -> None:
        self.calls: Counter[str] = Counter()
        self.fired = 0
        self._call, self._code, self._at, self._late, self._for_good = call, code, at, late, for_good

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *a, **k: self._made(name, real, *a, **k)) if name in CALLS else real

    def _made(self, name: str, real: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        number = self.calls[name]
        self.calls[name] += 1
        if name != self._call or number < self._at or (number > self._at and not self._for_good):
            return real(*arguments, **named)
        self.fired += 1
        if name == "write":
            real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        elif self._late and name not in ("open", "scandir"):  # whose result would be lost, and stay open
            real(*arguments, **named)
        raise OSError(self._code, os.strerror(self._code))


@contextmanager
def failing(call: str, code: int, at: int = 0, **how: bool) -> Iterator[Failing]:
    """Let one call of stores in folders fail, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "os", made := Failing(call, code, at, **how))
        yield made


REQUESTS = ("GET", "HEAD", "PUT", "DELETE", "LIST", "COPY", "CREATE")
ANSWERS = (403, 429, 500, 503, "cut")


class Between:
    """A server between a store and its object storage: passes requests on, and answers one of them itself.

    ``fail("GET", 503, at=2)`` answers the third GET from now on so; ``cut`` passes on the first half of the body and
    hangs up. ``times`` says how many of them, one after another.
    """

    def __init__(self, behind: str) -> None:
        self.counts: Counter[str] = Counter()
        self.fired = 0
        self._plan: tuple[str, int | str, int, int] = ("", 0, 0, 0)
        self._lock = Lock()
        host, _, port = behind.rpartition("/")[2].partition(":")
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = between.answer(self.command, self.path, dict(self.headers))
                if answer not in (None, "cut"):
                    self._reply(int(answer), {}, b"" if self.command == "HEAD" else _refusal(int(answer)))
                    return
                connection = http.client.HTTPConnection(host, int(port))
                connection.request(self.command, self.path, body=body or None, headers=dict(self.headers))
                found = connection.getresponse()
                data = found.read()
                connection.close()
                kept = {k: v for k, v in found.headers.items() if k.lower() not in _HOP}
                self._reply(found.status, kept, data, cut=answer == "cut", size=found.headers.get("Content-Length"))

            def _reply(
                self, status: int, headers: dict[str, str], data: bytes, cut: bool = False, size: str | None = None
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", size if size and self.command == "HEAD" else str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = self.close_connection or cut

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = pass_on

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that was killed
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, request: str, answer: int | str, at: int = 0, times: int = 1) -> None:
        """Say which requests of a kind to answer in place of the storage, from now on."""
        with self._lock:
            self.counts.clear()
            self.fired, self._plan = 0, (request, answer, at, times)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str]) -> int | str | None:
        """The answer to a request in place of the storage's; None to pass it on."""
        names = {name.lower() for name in headers}
        kind = "LIST" if method == "GET" and "list-type=" in path else method
        if method == "PUT":
            kind = "COPY" if "x-amz-copy-source" in names else "CREATE" if "if-none-match" in names else "PUT"
        with self._lock:
            number = self.counts[kind]
            self.counts[kind] += 1
            request, answer, at, times = self._plan
            if kind != request or not at <= number < at + times:
                return None
            self.fired += 1
            return answer


_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}
_CODES = {403: "AccessDenied", 429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}


def _refusal(status: int) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{_CODES[status]}</Code><Message>no</Message></Error>".encode()
