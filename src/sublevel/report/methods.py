"""The methods of a study in one paragraph, from its summary and its non-empty tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sublevel.claims.branches import Branches
from sublevel.report.branches import described
from sublevel.report.findings import counted, nested
from sublevel.report.frame import Frame
from sublevel.report.latex import escape
from sublevel.report.numbers import percent, plain
from sublevel.report.palette import known_first
from sublevel.report.prepare import only_measured, where
from sublevel.report.references import WORKS, bibtex

CITED = re.compile(r"\[\[([a-z0-9,]+)\]\]")
MEASURED = (  # table, filter, what was done with it; citations in double brackets
    ("legs", {}, "Both legs of every level (pruning, retraining) were measured on train and test data."),
    ("prunings", {}, "Pruning by the criterion was compared with random draws of as many weights in every layer."),
    ("paths", {}, "Loss and error were evaluated along straight segments, on a grid refined around its maximum; the "
     "barrier is the largest excess over the line between the ends [[frankle2020linear]]."),
    ("paths", {"path": "to-dense-aligned"}, "Hidden units were matched by weight matching [[ainsworth2023git]]."),
    ("membership", {}, "Where a segment rose above the threshold, a curve was trained to stay below it "
     "[[garipov2018loss]]; failing to find one does not count as a barrier."),
    ("tree", {}, "Solutions were joined in a disconnectivity graph [[wales1998archetypal]] at the lowest maximum found "
     "along chains of segments."),
    ("planes", {"kind": "through"}, "Planes pass through three solutions."),
    ("planes", {"kind": "random"}, "Planes follow two random filter-normalised directions [[li2018visualizing]]."),
    ("planes", {"kind": "eigen"}, "Planes follow the two steepest eigenvectors."),
    ("curvature", {}, "Extreme eigenvalues of the Hessian of the train loss came from the Lanczos method with full "
     "reorthogonalisation, in the solution's own subspace and in the original space."),
    ("curvature", {"operator": "adaptive"}, "The adaptive curvature is taken between filter-normalised directions "
     "[[kwon2021asam]]."),
    ("densities", {}, "Spectral densities came from stochastic Lanczos quadrature [[ghorbani2019investigation]]."),
    ("estimates", {"quantity": "learning coefficient"}, "Local learning coefficients were estimated by "
     "Metropolis-adjusted Langevin chains [[lau2025local]]."),
    ("coordinates", {}, "Curvature and finite widths were measured along the coordinates that pruning removes, along "
     "kept and along random ones, with equal counts in every layer."),
    ("volumes", {"method": "top-k"}, "Volumes are those of the ellipsoid of the k largest eigenvalues, at equal k."),
    ("volumes", {"method": "radial"}, "Basins were also measured along random rays [[huang2020understanding]]."),
    ("volume_pairs", {}, "Volumes of two points were compared with the same k, examples and coordinates, solutions at "
     "matched loss."),
)  # fmt: skip


@dataclass(frozen=True)
class Methods:
    """The same paragraph to read and to paste, with the entries that it cites."""

    text: str
    latex: str
    bibtex: str


def methods(tables: dict[str, Frame], summary: dict[str, Any]) -> Methods:
    """Protocol, sizes, seeds, estimators and statistics; what the summary lacks is left out."""
    study, levels = summary.get("study"), tables["levels"]
    seeds = int(levels["seed"].nunique()) if len(levels) else 0
    trained = [
        _network(summary),
        _training(nested(study, "train")),
        _pruning(study),
        _compared(levels, described(summary)),
        f"Everything was repeated with {counted(seeds, 'seed')}." * bool(seeds),
    ]
    elsewhere = only_measured(levels)
    parts = [
        *([_elsewhere(levels, summary)] if elsewhere else trained),
        _data(summary),
        *(sentence for table, only, sentence in MEASURED if not where(tables[table], **only).empty),
        _statistics(tables["verdicts"]) * (seeds > 1),
    ]
    marked = " ".join(filter(None, parts))
    paper = ["saleem2024insights"] * (not elsewhere)
    keys = [*paper, *(k for found in CITED.findall(marked) for k in found.split(","))]

    def named(match: re.Match[str]) -> str:
        return f"({'; '.join(WORKS[key].short.replace('(', '').replace(')', '') for key in match[1].split(','))})"

    return Methods(CITED.sub(named, marked), _pasted(marked), bibtex(keys))


def _pasted(marked: str) -> str:
    r"""LaTeX with citations in place.

    >>> _pasted("5% of it [[holm1979simple]].")
    '5\\% of it~\\citep{holm1979simple}.'
    """
    parts = re.split(rf"\s*{CITED.pattern}", marked)
    return "".join(rf"~\citep{{{p}}}" if i % 2 else escape(p) for i, p in enumerate(parts))


def _elsewhere(levels: Frame, summary: dict[str, Any]) -> str:
    """The networks that were measured and not trained, with their files and the hashes of these."""
    files = {str(c.get("name")): c for c in summary.get("checkpoints") or [] if isinstance(c, dict)}
    names = list(dict.fromkeys(levels["branch"]))
    shown = [_file(name, files.get(name, {})) for name in names]
    model, data = nested(summary, "model", "name"), nested(summary, "study", "data", "name")
    what = f" of {model}" * bool(model) + f", on {data}" * bool(data)
    return f"We measured {counted(len(names), 'checkpoint')}{what}, trained elsewhere: {'; '.join(shown)}."


def _file(name: str, of: Mapping[str, Any]) -> str:
    if "sha256" not in of:
        return name
    return f"{name} ({of.get('file')}, SHA-256 of the {of.get('of')} {str(of['sha256'])[:16]})"


def _network(summary: dict[str, Any]) -> str:
    model, data = nested(summary, "model", "name"), nested(summary, "study", "data", "name")
    prunable, whole = nested(summary, "model", "prunable"), nested(summary, "model", "parameters")
    if not model or not data:
        return ""
    kinds = nested(summary, "model", "prunable_by_kind")
    few = prunable and whole and 2 * float(prunable) < float(whole) and isinstance(kinds, dict)
    by_kind = ": " + ", ".join(f"{kind or 'others'} {some}" for kind, some in kinds.items()) if few else ""
    sizes = (
        f" ({plain(float(whole))} parameters, {plain(float(prunable))} of them prunable{by_kind})"
        if prunable and whole
        else ""
    )
    return f"We trained {model}{sizes} on {data}."


def _training(train: Any) -> str:
    """The recipe, from those of its keys that are known."""
    if not isinstance(train, dict):
        return ""
    length = train.get("length") or (f"{train['epochs']}ep" if "epochs" in train else "")
    stones = [_duration(str(m)) for m in train.get("milestones") or []]
    schedule = train.get("schedule", "milestones" if stones else "")
    words = [
        f"momentum {train['momentum']:g}" if "momentum" in train else "",
        f"weight decay {train['weight_decay']:g}" if "weight_decay" in train else "",
        f"batches of {train['batch_size']}" if "batch_size" in train else "",
        f"learning rate {train['lr']:g}" if "lr" in train else "",
        f"multiplied by {train.get('gamma', 0.1):g} after {' and '.join(stones)}"
        if stones and schedule == "milestones"
        else f"a {schedule} schedule" * bool(schedule),
        f"for {_duration(str(length))}" if length else "",
        f"in {train['dtype']}" if "dtype" in train else "",
    ]
    return f"Training used SGD with {', '.join(w for w in words if w)}."


def _duration(text: str) -> str:
    """A duration of a study file in words.

    >>> _duration("2000it"), _duration("1ep"), _duration("31280")
    ('2000 steps', '1 epoch', '31280 steps')
    """
    number, unit = re.fullmatch(r"([0-9.]*)\s*([a-z]*).*", text, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    noun = {"ep": "epoch", "it": "step", "": "step"}.get(unit, unit)
    return f"{number} {noun}{'s' * (number != '1')}" if number else text


def _pruning(study: Any) -> str:
    levels, fraction = nested(study, "levels"), nested(study, "fraction")
    if levels is None or fraction is None:
        return ""
    listed, target = nested(study, "prune", "densities"), nested(study, "prune", "target")
    if listed or target:
        left = f"geometrically to {percent(target)}" if target else f"to {', '.join(map(percent, listed))}"
        removed = f"reduced the weights {left} of them over {levels} levels"
    else:
        removed = f"removed {percent(fraction)} of the remaining weights at each of {levels} levels"
    scope = {"layer": "within each layer"}.get(str(nested(study, "scope")), "over all layers at once")
    rewind = nested(study, "rewind")
    back = f", rewound the rest to their values after {_duration(str(rewind))}" if rewind else ""
    return (
        f"Iterative magnitude pruning [[frankle2019lottery,frankle2020linear]] {removed}, chosen by "
        f"{nested(study, 'criterion') or 'magnitude'} {scope}{back}, and trained again: the protocol of an earlier "
        "study [[saleem2024insights]]."
    )


def _compared(levels: Frame, words: Mapping[str, Mapping[str, str]]) -> str:
    bases = {v.base for v in Branches(levels).variants.values()}
    found = []
    for about in (words[b] for b in known_first(bases) if b in words):
        cited = f" [[{about['cite']}]]" if about["cite"] in WORKS else ""
        found.append(about["summary"].replace("[[", "[") + cited)
    return f"It was compared with {', '.join(found)}." if found else ""


def _data(summary: dict[str, Any]) -> str:
    names = {"train": "training", "validation": "validation", "test": "test"}
    counts = [(nested(summary, "data", key), name) for key, name in names.items()]
    known = [f"{plain(float(n))} {name}" for n, name in counts if isinstance(n, int) and n]
    return f"There were {', '.join(known)} examples." if known else ""


def _statistics(verdicts: Frame) -> str:
    tested = " and p values over the primary claims are corrected by Holm's method [[holm1979simple]]"
    disputed = " The claim on error barriers was made before [[paul2023unmasking]]."
    return (
        "The seed is the unit: differences are paired by seed, with 90% t intervals"
        f"{tested if verdicts['p_holm'].notna().any() else ''}."
        f"{disputed if (verdicts['claim'] == 'C11').any() else ''}"
    )
