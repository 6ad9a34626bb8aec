"""Test-set noise: which examples each solution gets right, and differences of errors over seeds and examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sublevel.bits import unpack
from sublevel.stats import MeanEstimate, crossed

Key = tuple[str, int, int]
"""(branch, level, seed)"""


class Correct:
    """The table ``correct``: one bit for each example, unpacked when first asked for. ``split`` is ``test``."""

    def __init__(self, table: pd.DataFrame, split: str = "test") -> None:
        self.packed: dict[Key, tuple[int, str]] = {}
        self.made: dict[Key, NDArray[np.int8] | None] = {}
        if {"branch", "level", "seed", "split", "examples", "bits"} <= set(table.columns):
            mine = table[table["split"] == split]
            columns = (mine[c] for c in ("branch", "level", "seed", "examples", "bits"))
            for branch, level, seed, examples, bits in zip(*columns, strict=True):
                self.packed[str(branch), int(level), int(seed)] = (int(examples), str(bits))

    def wrong(self, key: Key) -> NDArray[np.int8] | None:
        """1 where a solution is wrong, for each example; None where that is not known."""
        if key not in self.made:
            examples, bits = self.packed.get(key, (0, ""))
            right = unpack(bits, examples) if key in self.packed else None
            self.made[key] = None if right is None else 1 - right.astype(np.int8)
        return self.made[key]

    def law(self, ours: str, theirs: str, reference_level: int | None, differences: Callable[[int, int], float]):
        """From a level and its seeds to the crossed estimate of ours - theirs; None where a solution has no bits.

        ``differences`` are those of the errors in the tables. Bits that say another one, as on other examples, do not
        count.
        """

        def estimated(level: int, seeds: Sequence[int]) -> MeanEstimate | None:
            rows = []
            for seed in seeds:
                a = self.wrong((ours, level, seed))
                b = self.wrong((theirs, level if reference_level is None else reference_level, seed))
                if a is None or b is None or len(a) != len(b):
                    return None
                if abs(float(a.mean() - b.mean()) - differences(level, seed)) > 1e-6:
                    return None
                rows.append(a - b)
            same = len({len(row) for row in rows}) == 1
            found = crossed(np.array(rows)) if same else None
            return found if found is not None and found.se > 0 else None

        return estimated if self.packed else None
