from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import synthetic


@pytest.fixture(scope="session")
def tables() -> dict[str, pd.DataFrame]:
    """A small study: 3 seeds, 5 levels, 3 branches, one failure."""
    return synthetic.make(3, 5, ("imp", "oneshot", "reinit")) | {"failures": synthetic.failures()}


@pytest.fixture(scope="session")
def tiny() -> dict[str, pd.DataFrame]:
    """The smallest study that has every table."""
    return synthetic.make(2, 2, ("imp", "oneshot"), curves=3)


@pytest.fixture(scope="session")
def smallest() -> dict[str, pd.DataFrame]:
    """Every table with as few rows as it can have."""
    return synthetic.make(1, 1, ("imp",), curves=2)
