"""Check that every worker reads the same store: each must find there what this process wrote."""

from __future__ import annotations

import uuid
from contextlib import suppress

from sublevel.engine.store import opened, store_errors
from sublevel.errors import ConfigError

PLACE = "/tmp/sight-"


def place(store: str) -> str:
    """Write a file that holds a random word into the store at an address; return its place."""
    token = f"{store}{PLACE}{uuid.uuid4().hex}"
    with store_errors(f"cannot write to the store in {store}"):
        opened(store).write(*_parts(token))
    return token


def sees(token: str) -> bool:
    """Whether this machine reads that file at that place, whole."""
    name, word = _parts(token)
    with suppress(OSError, ConfigError):
        return opened(_store(token)).read(name) == word
    return False


def take_away(token: str) -> None:
    """Remove the file again."""
    with suppress(OSError):
        opened(_store(token)).remove(_parts(token)[0])


def refusal(token: str, *nodes: str) -> str:
    """The sentence about machines that do not see it."""
    who = f"node {nodes[0]} does" if len(nodes) == 1 else f"nodes {', '.join(nodes)} do"
    return (
        f"{who} not see the store in {_store(token)}: "
        "put it where all nodes have the same files (--store), or leave them out"
    )


def _store(token: str) -> str:
    return token.rpartition(PLACE)[0]


def _parts(token: str) -> tuple[str, bytes]:
    """The file's name in the store, and its content."""
    word = token.rpartition(PLACE)[2]
    return f"{PLACE[1:]}{word}", word.encode()
