"""Every random draw depends on (seed, stream, epoch) alone.

So an interruption leaves no global state to restore: the permutation of epoch 7 has a name. Streams in use: ``init``,
``order``, ``augment``, ``dropout``, ``prune``, ``probe``, ``split``; a suffix after a colon makes an independent
stream (``order:level-3``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, stream: str, epoch: int = 0) -> int:
    """A 63-bit seed from the name of a draw, by BLAKE2b.

    >>> derive(0, "init") == derive(0, "init", 0)
    True
    >>> derive(0, "init") == derive(1, "init")
    False
    """
    name = f"sublevel/{int(seed)}/{stream}/{int(epoch)}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, epoch: int = 0) -> torch.Generator:
    """A fresh CPU generator for the draw (seed, stream, epoch).

    >>> a, b = generator(3, "order", 1), generator(3, "order", 1)
    >>> bool((torch.randperm(5, generator=a) == torch.randperm(5, generator=b)).all())
    True
    """
    return torch.Generator().manual_seed(derive(seed, stream, epoch))


def reseed(seed: int, stream: str, epoch: int = 0) -> None:
    """Seed torch's global generators, inside `seeded`.

    `torch.manual_seed` does the same, but spends a millisecond on absent devices.
    """
    number = derive(seed, stream, epoch)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


@contextmanager
def seeded(seed: int, stream: str, epoch: int = 0) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them after it.

    For code that only uses the global generators: module constructors and dropout.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, stream, epoch))
        yield
