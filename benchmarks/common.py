"""What benchmarks share: random images, sides that take turns, and a record with hardware, versions and spread."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sublevel.numerics import keep_freed
from sublevel.rng import generator
from sublevel.study.machine import machine, versions

RECORDS = Path(__file__).parent / "records"


def images(shape: tuple[int, ...], n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels of ten classes: speed does not depend on what is on them."""
    g = generator(0, "probe")
    return torch.randint(0, 256, (n, *shape), generator=g, dtype=torch.uint8), torch.randint(0, 10, (n,), generator=g)


def alone(*, keep: bool = True) -> None:
    """This process as a cell has it: one thread, denormal numbers flushed, freed memory kept (unless told)."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if keep:
        keep_freed()


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum of n repetitions."""
    return {"n": len(values), "min": min(values), "median": statistics.median(values), "max": max(values)}


def record(name: str, script: str, result: dict[str, Any]) -> None:
    """Write benchmarks/records/DATE-NAME.json and print it."""
    m = machine("cpu")
    document = {
        "date": date.today().isoformat(),
        "script": Path(script).name,
        "hardware": f"{m['cores']} cores of an {m['processor']}, {m['memory_gib']:.0f} GiB",
        "versions": versions(),
        **result,
    }
    text = json.dumps(document, indent=1, default=lambda x: round(x, 6))
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{document['date']}-{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


class Side:
    """One side of a comparison in a process of its own: what it does to its memory or threads does nothing to another.

    ``build(*given)``, a function of a module, makes there what is timed; it is called once before any timing.
    """

    def __init__(self, build: Callable[..., Callable[[], object]], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        context.Process(target=_serve, args=(there, build, given), daemon=True).start()
        there.close()  # so that a process that fails ends the wait for it
        self._here.recv()

    def seconds(self) -> float:
        """Wall time of one call."""
        self._here.send("go")
        return self._here.recv()

    def close(self) -> None:
        """End the process."""
        self._here.close()


def in_turn(sides: dict[str, Side], rounds: int) -> list[dict[str, float]]:
    """Seconds of every side, round by round: one runs at a time. The processes end."""
    try:
        return [{name: side.seconds() for name, side in sides.items()} for _ in range(rounds)]
    finally:
        for side in sides.values():
            side.close()


def _serve(there: Any, build: Callable[..., Callable[[], object]], given: tuple[Any, ...]) -> None:
    alone(keep=False)  # whoever does so in a training loop does it there
    go = build(*given)
    go()
    there.send("ready")
    while True:
        try:
            there.recv()
        except EOFError:
            return
        began = time.perf_counter()
        go()
        there.send(time.perf_counter() - began)
