"""Tables of a study that never was, with known effects: to calibrate the verdicts, and to see how many seeds one needs.

Levels 1, 2 and 3 stand at the three densities. Every part of every claim has a mean that lies ``shift`` standard
deviations (of the value that one seed gives) on the claim's side of the bound that it must clear: at 0 on the bound,
below 0 on the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sublevel.claims.margins import DENSITIES, ERROR_BARRIER, ERROR_MARGIN, LOSS_BARRIER, PREDICTION
from sublevel.stats import prediction_bound
from sublevel.tables import COLUMNS

Shift = float | tuple[float, float, float]
Values = NDArray[np.float64]
"""[seeds, 3]"""

SD = {"error": 1e-3, "loss": 2e-3, "log": 0.1}
"""Standard deviation over seeds of a mean over levels: errors, losses, logarithms."""

WITHIN = 0.05
"""Share of the variance of that mean which comes from single levels."""

KEYS: dict[str, tuple[str, ...]] = {
    "C1": ("match",),
    "C2": ("reinit", "random-prune"),
    "C3": ("oneshot",),
    "C4": ("finetune", "finetune loss", "finetune-mask", "finetune-mask loss"),
    "C5": ("match", "volume"),
    "C6": ("steep before", "steep retrained"),
    "C7": ("inside", "start", "outside reinit", "outside random-prune", "aligned"),
    "C8": ("loss barrier shared", "error barrier shared", "loss barrier independent", "error barrier independent"),
    "C9": ("prune volume", "prune rise", "finetune-mask loss"),
    "C10": ("criterion",),
    "C11": ("error barrier shared", "match"),
    "C12": ("small error", "small barrier", "large error"),
}
"""What each claim depends on: the names of its shifts."""

TABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("C1", "C2", "C3", "C4"), ("levels",)),
    **dict.fromkeys(("C5", "C9"), ("levels", "volume_pairs")),
    **dict.fromkeys(("C8", "C11", "C12"), ("levels", "paths")),
    "C6": ("levels", "coordinates"),
    "C7": ("levels", "membership", "paths"),
    "C10": ("levels", "prunings"),
}
"""The tables that each claim reads."""


class Study:
    """Draws the tables, one after the other from one generator. ``shifts`` not given are ``others``."""

    def __init__(self, rng: np.random.Generator, shifts: Mapping[str, Shift], seeds: int, others: float) -> None:
        self.rng, self.shifts, self.seeds, self.others = rng, shifts, seeds, others
        self.error = self.noise((self.seeds, 1), 0.01) + 0.1
        self.loss = self.noise((self.seeds, 1), 0.002) + 0.05

    def noise(self, shape: tuple[int, ...], sd: float) -> Values:
        """Normal draws."""
        return sd * self.rng.standard_normal(shape)

    def beyond(self, key: str, sd: str, bound: float = 0.0, side: int = 1) -> Values:
        """Values whose mean lies beyond a bound, above it or (``side`` -1) below."""
        shift = np.asarray(self.shifts.get(key, self.others), dtype=np.float64)
        seed = np.sqrt(1 - WITHIN) * self.noise((self.seeds, 1), 1)
        return bound + SD[sd] * (side * shift + seed + np.sqrt(3 * WITHIN) * self.noise((self.seeds, 3), 1))

    def frame(self, name: str, *parts: dict[str, Any]) -> pd.DataFrame:
        """Rows for every seed and level; a value of a part is a constant, or one number for each of them."""
        where = {"seed": np.repeat(np.arange(self.seeds), 3), "level": np.tile([1, 2, 3], self.seeds)}
        where |= {"level_to": where["level"], "level_from": where["level"] - 1}
        columns: dict[str, list[Any]] = {c: [] for c in COLUMNS[name]}
        for part in parts:
            for column, values in columns.items():
                values += self.spread((where | part).get(column))
        return pd.DataFrame(columns)

    def spread(self, value: Any) -> list[Any]:
        """One value for each row."""
        if not isinstance(value, np.ndarray):
            return [value] * (3 * self.seeds)
        return (np.broadcast_to(value, (self.seeds, 3)) if value.ndim == 2 else value).ravel().tolist()


def levels(s: Study) -> pd.DataFrame:
    """Test errors and train losses of every branch."""
    density = np.array([DENSITIES])
    error = s.error + s.beyond("match", "error", ERROR_MARGIN, -1)
    loss = s.loss + s.noise((s.seeds, 3), 0.001)
    branches = {"dense": (s.error, s.loss), "imp": (error, loss)}
    for name in ("reinit", "random-prune", "oneshot", "finetune", "finetune-mask"):
        branches[name] = (error + s.beyond(name, "error"), loss + s.beyond(f"{name} loss", "loss"))
    parts = [
        {"branch": name, "density": density, "test_error": e, "train_loss": mine}
        for name, (e, mine) in branches.items()
    ]
    parts[0] |= {"level": 0 * s.error, "density": 1.0}
    small = s.error + s.beyond("small error", "error", ERROR_MARGIN, -1)
    large = s.error + s.beyond("large error", "error", ERROR_MARGIN)
    parts.append({"branch": "random-imp", "density": density, "test_error": error, "train_loss": loss})
    for fraction, e in ((0.05, small), (0.95, large)):
        parts.append({"branch": f"imp-{fraction}", "density": 1 - fraction, "test_error": e, "train_loss": loss})
    return s.frame("levels", *parts).drop_duplicates(["branch", "level", "seed"])


def paths(s: Study) -> pd.DataFrame:
    """Barriers between levels under both data orders, from the start to the dense solution, and after matching."""
    base = {"split": "train", "buffers": "recomputed", "order": "shared", "loss_from": s.loss, "loss_to": s.loss}
    parts = []
    for order, branch in (("shared", "imp"), ("independent", "imp-independent")):
        loss = s.beyond(f"loss barrier {order}", "loss", LOSS_BARRIER)
        error = s.beyond(f"error barrier {order}", "error", ERROR_BARRIER, -1)
        about = {"path": "successive", "branch": branch, "order": order}
        parts.append(base | about | {"loss_barrier": loss, "error_barrier": error})
    height = s.beyond("start", "loss", LOSS_BARRIER, -1)
    parts.append(base | {"path": "start-to-dense", "branch": "imp", "loss_height": height})
    top = s.beyond("aligned", "loss", dense_bound(s))
    parts.append(base | {"path": "to-dense-aligned", "branch": "reinit", "level_from": 0, "loss_max": top})
    small = s.beyond("small barrier", "loss", LOSS_BARRIER, -1)
    parts.append(base | {"path": "successive", "branch": "imp-0.05", "loss_barrier": small})
    return s.frame("paths", *parts)


def membership(s: Study) -> pd.DataFrame:
    """Path maxima over the dense threshold."""
    base = {"buffers": "recomputed", "part": 0, "loss_dense": s.loss, "loss": s.loss}
    bound = dense_bound(s)
    parts = [base | {"branch": "imp", "lowest_max": s.beyond("inside", "loss", bound, -1)}]
    for name in ("reinit", "random-prune"):
        parts.append(base | {"branch": name, "lowest_max": s.beyond(f"outside {name}", "loss", bound)})
    return s.frame("membership", *parts)


def dense_bound(s: Study) -> float:
    """The threshold that the claims will find."""
    return prediction_bound(s.loss, PREDICTION)


def volume_pairs(s: Study) -> pd.DataFrame:
    """Volumes at matched loss and of pruning steps; the control falls as far as ``control volume`` says."""
    base = {"buffers": "recomputed", "part": 0, "k": 20, "eps": 0.1, "log_volume_reference": 0.0, "reason": ""}
    parts = [
        base
        | {"branch": b, "pair": "matched-loss", "operator": "adaptive", "log_volume": s.beyond(key, "log", 0.0, -1)}
        for b, key in (("imp", "volume"), ("random-imp", "control volume"))
    ]
    pruned = {"log_volume": s.beyond("prune volume", "log", 0.0, -1), "loss": s.loss + s.beyond("prune rise", "loss")}
    about = {"branch": "imp", "pair": "prune", "operator": "hessian", "loss_reference": s.loss}
    return s.frame("volume_pairs", *parts, base | about | pruned)


def coordinates(s: Study) -> pd.DataFrame:
    """Curvature along pruned and kept weights."""
    parts = []
    for when in ("before", "retrained"):
        kept = np.exp(s.noise((s.seeds, 3), 0.5))
        base = {"branch": "imp", "when": when, "part": 0, "buffers": "recomputed"}
        parts.append(base | {"set": "kept", "curvature": kept})
        parts.append(base | {"set": "pruned", "curvature": kept * np.exp(s.beyond(f"steep {when}", "log"))})
    return s.frame("coordinates", *parts)


def prunings(s: Study, draws: int = 20) -> pd.DataFrame:
    """What pruning by the criterion, and at random, does to the train loss."""
    base = {"branch": "imp", "buffers": "recomputed", "loss_start": s.loss}
    chosen = s.loss + 0.1 + s.noise((s.seeds, 3), 0.01)
    random = chosen + s.beyond("criterion", "loss")
    jitter = s.noise((draws, s.seeds, 3), 0.005)
    jitter -= jitter.mean(axis=0)
    parts = [base | {"chosen_by": "criterion", "draw": 0, "loss_end": chosen}]
    parts += [base | {"chosen_by": "random", "draw": i + 1, "loss_end": random + step} for i, step in enumerate(jitter)]
    return s.frame("prunings", *parts)


MAKERS: dict[str, Callable[[Study], pd.DataFrame]] = {
    f.__name__: f for f in (levels, paths, membership, volume_pairs, coordinates, prunings)
}


def study(
    rng: np.random.Generator,
    shifts: Mapping[str, Shift] | None = None,
    *,
    seeds: int = 5,
    others: float = 2.0,
    claims: tuple[str, ...] = tuple(TABLES),
) -> dict[str, pd.DataFrame]:
    """Return the tables that some claims need. ``others`` is the shift of every part that ``shifts`` does not name.

    >>> tables = study(np.random.default_rng(0), {"oneshot": 0.0}, seeds=3, claims=("C3",))
    >>> sorted(tables), len(tables["levels"])
    (['levels'], 84)
    """
    drawn = Study(rng, shifts or {}, seeds, others)
    wanted = {name for each in claims for name in TABLES[each]}
    return {name: make(drawn) for name, make in MAKERS.items() if name in wanted}
