"""The queue of cells that may begin, and the cells that another run computes."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping


class Waiting:
    """A priority queue by ``urgency``, ties by the order of names; and the cells of other runs."""

    def __init__(self, urgency: Mapping[str, float]) -> None:
        self._place = {name: (-urgent, i, name) for i, (name, urgent) in enumerate(urgency.items())}
        self._queue: list[tuple[float, int, str]] = []
        self._elsewhere: list[str] = []
        self._seen: set[str] = set()
        self._looked = time.monotonic()

    def __bool__(self) -> bool:
        return bool(self._queue or self._elsewhere)

    @property
    def here(self) -> bool:
        """Whether a cell can begin here."""
        return bool(self._queue)

    def add(self, name: str) -> None:
        """Queue a cell."""
        heapq.heappush(self._queue, self._place[name])

    def next(self) -> str:
        """Take the most urgent cell out of the queue."""
        return heapq.heappop(self._queue)[2]

    def leave(self, name: str) -> bool:
        """Leave a cell to another run; return whether it is the first time."""
        self._elsewhere.append(name)
        first = name not in self._seen
        self._seen.add(name)
        return first

    def look_again(self, seconds: float) -> None:
        """Queue the cells of other runs again, at most once in ``seconds``."""
        if time.monotonic() - self._looked > seconds:
            self._looked = time.monotonic()
            while self._elsewhere:
                self.add(self._elsewhere.pop())
