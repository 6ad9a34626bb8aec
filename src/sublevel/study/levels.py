"""The number of weights that each level of a study leaves."""

from __future__ import annotations

from sublevel.errors import ConfigError
from sublevel.prune import counts, counts_at
from sublevel.space import Space
from sublevel.study.solutions import SolutionsSpec


def remaining(spec: SolutionsSpec, space: Space, level: int, fraction: float = 0.0) -> list[int]:
    """Weights left at a level: [total], or one number per prunable layer, as `sublevel.prune.counts` gives them.

    ``fraction`` overrides the study's ``prune`` and ``fraction``. Raises ConfigError if the study does not define the
    level, or if fewer weights are left than are protected.
    """
    density = None if fraction else spec.density(level)
    if density is None:
        return counts(space, fraction or spec.fraction, level, **spec.selection)
    held = {name: value for name, value in spec.selection.items() if name != "rounding"}
    return counts_at(space, density, **held)


def check_levels(spec: SolutionsSpec, space: Space) -> None:
    """Raise ConfigError for a level that removes no weight, or all of them."""
    for level in range(1, spec.levels + 1):
        before, after = (sum(remaining(spec, space, n)) for n in (level - 1, level))
        if before == after or not after:
            density = spec.density(level)
            which = f"fraction {spec.fraction}" if density is None else f"density {density:.3g}"
            other = "fraction" if density is None else "density"
            raise ConfigError(
                f"levels {spec.levels}: level {level} of {which} takes the {before} remaining weights to {after}; "
                f"ask for fewer levels or another {other}"
            )
