"""What every benchmark says of itself: hardware in general terms, versions, spread."""

from __future__ import annotations

import json
import statistics
from datetime import date
from pathlib import Path
from typing import Any

from sublevel.runs.machine import machine, versions

RECORDS = Path(__file__).parent / "records"


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum of n repetitions."""
    return {"n": len(values), "min": min(values), "median": statistics.median(values), "max": max(values)}


def record(name: str, script: str, result: dict[str, Any]) -> None:
    """Write benchmarks/records/DATE-NAME.json and print it."""
    m = machine()
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
