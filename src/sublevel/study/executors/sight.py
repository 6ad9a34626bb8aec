"""Whether another machine sees the store: it must read there what this one wrote."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from sublevel.errors import StoreError


def place(store: Path) -> Path:
    """Write a file with a word of its own beside the store's objects, and return its path."""
    token = store / "tmp" / f"sight-{uuid.uuid4().hex}"
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        with open(token, "w", encoding="ascii") as file:
            file.write(token.name)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write to the store in {store}: {error.strerror or error}") from error
    return token


def sees(token: str) -> bool:
    """Whether that file, whole, is what stands at its path on this machine."""
    with suppress(OSError):
        return Path(token).read_text(encoding="ascii") == Path(token).name
    return False


def refusal(token: str, *nodes: str) -> str:
    """What to say of machines that do not see it."""
    who = f"node {nodes[0]} does" if len(nodes) == 1 else f"nodes {', '.join(nodes)} do"
    return (
        f"{who} not see the store in {Path(token).parent.parent}: "
        "put it where all nodes have the same files (--store), or leave them out"
    )
