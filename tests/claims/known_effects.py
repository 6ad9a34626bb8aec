"""Tables of a study that never was, with known effects: to calibrate the verdicts, and to see how many seeds one needs.

Levels 1, 2 and 3 stand at the three densities. Every part of every claim has a mean that lies ``shift`` standard
deviations (of the value that one seed gives) on the claim's side of the bound that it must clear: at 0 on the bound,
below 0 on the other side; three numbers are those of the three densities. A statistic that cannot be negative is cut
off at 0. The dense threshold is the true quantile, which the claims have to estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

import sublevel.study.tables  # noqa: F401 - declares the tables of all measurements
from sublevel.bits import pack
from sublevel.claims.margins import DENSITIES, ERROR_MARGIN, PREDICTION, RISE_MARGIN
from sublevel.tables import TABLES as KNOWN

Shift = float | tuple[float, float, float]
Values = NDArray[np.float64]
"""[seeds, 3]"""

SD = {"error": 1e-3, "loss": 2e-3, "rise": 0.02, "log": 0.1, "rank": 0.02}
"""Standard deviation over seeds of a value at one density: errors, losses, relative rises, logarithms, ranks."""

SHARED = 0.5
"""Share of the variance of a value that is the seed's own, and the same at every density."""

KEYS: dict[str, tuple[str, ...]] = {
    "C1": ("match",),
    "C2": ("reinit", "random-prune"),
    "C3": ("oneshot",),
    "C4a": ("finetune", "finetune-mask"),
    "C4b": ("finetune loss", "finetune-mask loss"),
    "C5": ("match", "volume", "volume apart"),
    "C6": ("steep before", "steep retrained"),
    "C7": ("inside", "path", "start", "leaves reinit", "leaves random-prune"),
    "C8": ("loss rise shared", "error barrier shared", "loss rise independent", "error barrier independent"),
    "C9": ("prune volume", "prune rise", "finetune-mask loss"),
    "C10": ("criterion",),
    "C11": ("error barrier shared", "match"),
    "C12": ("small error", "small rise", "middle rise", "large error"),
}
"""What each claim depends on: the names of its shifts."""

TABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("C1", "C2", "C3", "C4a", "C4b"), ("levels",)),
    "C5": ("levels", "volume_pairs"),
    "C6": ("levels", "coordinates"),
    "C7": ("levels", "membership", "paths"),
    **dict.fromkeys(("C8", "C11", "C12"), ("levels", "paths")),
    "C9": ("levels", "volume_pairs", "legs"),
    "C10": ("levels", "prunings"),
}
"""The tables that each claim reads."""

FRACTIONS = {"small": 0.05, "middle": 0.3, "large": 0.9}
"""Branches of a sweep: what each prunes, in one step."""

OWN = {"fraction": 0.7, "criterion": "magnitude", "order": "shared"}
"""What the study's own branches prune by."""


@dataclass(frozen=True)
class Field:
    """What the field varies, beside the effects.

    ``zeros`` are shifts whose statistic is exactly 0 in every seed. ``end_sd`` is the standard deviation of dense end
    losses over seeds. ``flagged`` is the share of volumes with a reason not to trust them, ``lost`` that of seeds whose
    test error is missing.
    """

    zeros: tuple[str, ...] = ()
    end_sd: float = 2e-3
    flagged: float = 0.0
    lost: float = 0.0


class Study:
    """Draws the tables, one after the other from one generator. ``shifts`` not given are ``others``."""

    def __init__(
        self, rng: np.random.Generator, shifts: Mapping[str, Shift], seeds: int, others: float, field: Field
    ) -> None:
        self.rng, self.shifts, self.seeds, self.others, self.field = rng, shifts, seeds, others, field
        self.error = self.noise((self.seeds, 1), 0.01) + 0.1
        self.loss = self.noise((self.seeds, 1), field.end_sd) + 0.05
        self.threshold = 0.05 + float(ndtri(PREDICTION)) * field.end_sd

    def noise(self, shape: tuple[int, ...], sd: float) -> Values:
        """Normal draws."""
        return sd * self.rng.standard_normal(shape)

    def beyond(self, key: str, sd: str | float, bound: float = 0.0, side: int = 1) -> Values:
        """Values whose mean lies beyond a bound, above it or (``side`` -1) below."""
        shift = np.asarray(self.shifts.get(key, self.others), dtype=np.float64)
        seed = np.sqrt(SHARED) * self.noise((self.seeds, 1), 1)
        scale = SD[sd] if isinstance(sd, str) else sd
        return bound + scale * (side * shift + seed + np.sqrt(1 - SHARED) * self.noise((self.seeds, 3), 1))

    def height(self, key: str, sd: str, bound: float, side: int = 1) -> Values:
        """The same of a statistic that cannot be negative."""
        drawn = np.maximum(self.beyond(key, sd, bound, side), 0.0)
        return 0.0 * drawn if key in self.field.zeros else drawn

    def frame(self, name: str, *parts: dict[str, Any]) -> pd.DataFrame:
        """Rows for every seed and level; a value of a part is a constant, or one number for each of them."""
        where = {"seed": np.repeat(np.arange(self.seeds), 3), "level": np.tile([1, 2, 3], self.seeds)}
        where |= {"level_to": where["level"], "level_from": where["level"] - 1}
        columns: dict[str, list[Any]] = {c: [] for c in KNOWN[name].columns}
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
    found = [{"branch": "dense", "level": 0 * s.error, "density": 1.0, "test_error": s.error, "train_loss": s.loss,
              "train_loss_start": s.loss + 1.0}]  # fmt: skip
    ours = {"imp": (error, loss), "imp-other": (error, loss), "random-imp": (error, loss)}
    for name in ("reinit", "random-prune", "oneshot", "finetune", "finetune-mask"):
        ours[name] = (error + s.beyond(name, "error"), loss + s.beyond(f"{name} loss", "loss"))
    for name, (e, mine) in ours.items():
        found.append({"branch": name, "density": density, "test_error": e, "train_loss": mine} | {"base": name})
        if name == "imp-other":
            found[-1] |= {"base": "imp", "order": "independent"}
    once = {
        "small": s.beyond("small error", "error", ERROR_MARGIN, -1),
        "middle": 0 * error,
        "large": s.beyond("large error", "error", ERROR_MARGIN),
    }
    for name, more in once.items():
        about = {"branch": f"sweep {name}", "base": "imp", "fraction": FRACTIONS[name], "density": 1 - FRACTIONS[name]}
        found.append(about | {"test_error": s.error + more, "train_loss": loss})
    table = s.frame("levels", *({"base": "dense"} | OWN | part for part in found))
    table.loc[s.rng.random(len(table)) < s.field.lost, "test_error"] = np.nan
    once_only = table["branch"].str.startswith("sweep") & (table["level"] > 1)
    return table.loc[~once_only].drop_duplicates(["branch", "level", "seed"])


def paths(s: Study) -> pd.DataFrame:
    """Paths between levels under both data orders, from the start to the dense solution, and of the sweep."""
    base = {"split": "train", "buffers": "recomputed", "order": "shared", "loss_from": s.loss, "loss_to": s.loss}

    def risen(key: str, side: int) -> dict[str, Values]:
        return {"loss_max": s.loss * (1 + s.height(key, "rise", RISE_MARGIN, side)), "loss_barrier": 0 * s.loss}

    parts = []
    for order, branch in (("shared", "imp"), ("independent", "imp-other")):
        error = s.height(f"error barrier {order}", "error", ERROR_MARGIN, -1)
        about = {"path": "successive", "branch": branch, "order": order, "error_barrier": error}
        parts.append(base | about | risen(f"loss rise {order}", 1))
    parts.append(base | {"path": "start-to-dense", "branch": "imp"} | risen("start", -1))
    for name, side in (("small", -1), ("middle", 1)):
        parts.append(base | {"path": "successive", "branch": f"sweep {name}"} | risen(f"{name} rise", side))
    return s.frame("paths", *parts)


def membership(s: Study) -> pd.DataFrame:
    """End losses around the true threshold, and the best paths; a new initialisation also after weight matching."""
    base = {"buffers": "recomputed", "part": 0, "loss_dense": s.loss}

    def found(branch: str, end: str, path: str, side: int) -> dict[str, Any]:
        loss = s.beyond(end, s.field.end_sd, s.threshold, side)
        rise = s.height(path, "rise", RISE_MARGIN, side)
        top = np.maximum(loss, s.loss) * (1 + rise)
        return base | {"branch": branch, "loss": loss, "lowest_max": top, "aligned": 0}

    parts = [found("imp", "inside", "path", -1)]
    parts += [found(name, f"leaves {name}", f"leaves {name}", 1) for name in ("reinit", "random-prune")]
    return s.frame("membership", *parts, parts[1] | {"aligned": 1})


def volume_pairs(s: Study) -> pd.DataFrame:
    """Volumes at matched loss, of imp and of the control, and of pruning steps."""
    base = {"buffers": "recomputed", "part": 0, "eps": 0.1, "log_volume_reference": 0.0}
    ours = s.beyond("volume", "log", 0.0, -1)
    theirs = ours - s.beyond("volume apart", "log", 0.0, -1)
    parts = []
    for setting in (1e-4, 1e-3, 1e-2):
        for branch, values in (("imp", ours), ("random-imp", theirs)):
            shown = values if setting == 1e-3 else values + 1.0  # the other dampings do not decide
            about = {"pair": "matched-loss", "method": "logdet", "operator": "ggn", "setting": setting}
            parts.append(base | about | {"branch": branch, "log_volume": shown, "reason": _reasons(s)})
    pruned = {"pair": "prune", "method": "rays", "operator": "hessian", "k": 20, "branch": "imp", "reason": _reasons(s)}
    return s.frame("volume_pairs", *parts, base | pruned | {"log_volume": s.beyond("prune volume", "log", 0.0, -1)})


def _reasons(s: Study) -> NDArray[Any]:
    flagged = s.rng.random((s.seeds, 3)) < s.field.flagged
    return np.where(flagged, "curvature is not positive", "")


def legs(s: Study) -> pd.DataFrame:
    """The rise of the train loss by pruning."""
    rise = s.beyond("prune rise", "loss")
    base = {"branch": "imp", "leg": "prune", "split": "train", "buffers": "recomputed"}
    return s.frame("legs", base | {"loss_start": s.loss, "loss_end": s.loss + rise})


def coordinates(s: Study) -> pd.DataFrame:
    """Ranks of the curvature along pruned weights among the kept ones; mean curvatures of either sign."""
    base = {"part": 0, "buffers": "recomputed", "set": "pruned", "curvature": s.noise((s.seeds, 3), 1.0)}
    before, after = (0.5 + s.beyond(f"steep {when}", "rank") for when in ("before", "retrained"))
    parts = [{"branch": "imp", "when": "before", "rank": before}, {"branch": "imp", "when": "retrained", "rank": after}]
    dense = {"branch": "dense", "when": "before", "rank": before[:, :1], "level": 0 * s.error}
    table = s.frame("coordinates", *(base | part for part in (dense, *parts)))
    return table.drop_duplicates(["branch", "level", "seed", "when"])


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
    f.__name__: f for f in (levels, paths, membership, volume_pairs, legs, coordinates, prunings)
}


def study(
    rng: np.random.Generator,
    shifts: Mapping[str, Shift] | None = None,
    *,
    seeds: int = 5,
    others: float = 2.0,
    claims: tuple[str, ...] = tuple(TABLES),
    field: Field = Field(),
) -> dict[str, pd.DataFrame]:
    """Return the tables that some claims need. ``others`` is the shift of every part that ``shifts`` does not name.

    >>> tables = study(np.random.default_rng(0), {"oneshot": 0.0}, seeds=3, claims=("C3",))
    >>> sorted(tables), len(tables["levels"])
    (['levels'], 84)
    """
    drawn = Study(rng, shifts or {}, seeds, others, field)
    wanted = {name for each in claims for name in TABLES[each]}
    return {name: make(drawn) for name, make in MAKERS.items() if name in wanted}


def with_examples(
    tables: Mapping[str, pd.DataFrame],
    rng: np.random.Generator,
    *,
    difference: float,
    examples: int = 2000,
    disagreement: float = 0.05,
    persistence: float = 0.9,
) -> dict[str, pd.DataFrame]:
    """Draw a test set: imp errs more often than the dense network by ``difference``, over all test sets.

    They disagree on a share of the examples; with probability ``persistence`` a seed does on an example what that
    example's other seeds do. The errors of imp at every level and the table ``correct`` are those of the draw.
    """
    levels = tables["levels"].copy()
    seeds = sorted(set(levels["seed"]))
    gains = np.array([(disagreement + difference) / 2, (disagreement - difference) / 2])

    def drawn(shape: tuple[int, ...]) -> NDArray[np.int8]:
        u = rng.random(shape)
        return np.where(u < gains[0], 1, np.where(u < gains.sum(), -1, 0)).astype(np.int8)

    common, own = drawn((examples,)), drawn((len(seeds), examples))
    d = np.where(rng.random(own.shape) < persistence, common, own)
    dense = np.where(d == 0, rng.random(d.shape) < 0.1, d < 0)
    rows = []
    for branch, wrong in (("dense", dense), ("imp", dense + d)):
        for level in sorted(set(levels.loc[levels["branch"] == branch, "level"])):
            for seed, mine in zip(seeds, wrong, strict=True):
                here = (levels["branch"] == branch) & (levels["level"] == level) & (levels["seed"] == seed)
                levels.loc[here, "test_error"] = float(mine.mean())
                bits = {"split": "test", "examples": examples, "bits": pack(mine == 0)}
                rows.append({"branch": branch, "level": level, "seed": seed} | bits)
    return {**tables, "levels": levels, "correct": pd.DataFrame(rows)}
