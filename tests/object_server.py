"""moto's server of object storage, for tests that read and write a real bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a server on a free port; its process holds what it stores. Skips where moto or s3fs is absent."""
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


def use_server(patch: pytest.MonkeyPatch, address: str, **more: str) -> None:
    """Point S3 at an address, by the variables that it reads."""
    said = {
        "ENDPOINT_URL": address,
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in {**said, **more}.items():
        patch.setenv(f"AWS_{name}", value)
