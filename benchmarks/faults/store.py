"""A fault in every call of a store's back end, and in every request to object storage: all combinations, with a record.

    python benchmarks/faults/store.py           # some eight minutes of one core

The cases are those of tests/engine/test_store_faults.py, those marked full among them.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[2] / "tests"


class Seen:
    """What became of every test."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once; a fixture that fails counts as one."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
            self.failed += [report.nodeid] if report.failed else []


def measure(*arguments: str) -> dict[str, Any]:
    """Run the tests in this process; ``arguments`` are pytest's own."""
    seen, began = Seen(), time.perf_counter()
    spent = time.process_time()
    pytest.main(
        ["-q", "-p", "no:cacheprovider", *arguments, str(TESTS / "engine" / "test_store_faults.py")], plugins=[seen]
    )
    tried = dict(sys.modules["test_store_faults"].TRIED)
    return {
        "faults injected": tried,
        "tests": dict(seen.outcomes),
        "failed": seen.failed,
        "seconds": time.perf_counter() - began,
        "seconds of the processor": time.process_time() - spent,
    }


if __name__ == "__main__":
    found = measure(*sys.argv[1:])
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from common import record

    if len(sys.argv) == 1:
        record("faults-store", __file__, found)
    else:
        print(found)
    sys.exit(bool(found["failed"]))
