"""Write verdicts and README of every published result from its tables, by the template next to them.

    python tools/results_readme.py            every folder of results/ that has a README.md.j2, and the findings in
                                              the project's own README.md, with its picture, and the verdicts in
                                              docs/open-questions.md
    python tools/results_readme.py FOLDER     one folder

No number of a README is typed: a template names what it shows (`Results`), and the tables say it. The tables
`verdicts` and `claims` are computed again from the others by the rules of this version.
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from sublevel.claims import claims, verdicts
from sublevel.claims.margins import ERROR_RESOLUTION, INTERVAL
from sublevel.claims.words import listed, with_unit
from sublevel.display import decimals
from sublevel.engine.store import digest
from sublevel.report.describe import Figure
from sublevel.report.figures import figures
from sublevel.report.render_mpl import shown
from sublevel.report.writer import read
from sublevel.stats import estimate, mean_interval
from sublevel.study.result import to_csv
from sublevel.tables import schemas

ROOT = Path(__file__).parent.parent
TEMPLATE = "README.md.j2"
FINDINGS = ("<!-- findings: made by tools/results_readme.py from results/demo -->", "<!-- end of findings -->")
LANDSCAPE = ("<!-- landscape: made by tools/results_readme.py from results/demo -->", "<!-- end of landscape -->")
KNOWN = ("<!-- known: made by tools/results_readme.py from results/ -->", "<!-- end of known -->")
PICTURE = "docs/landscape.png"
QUESTIONS = "docs/open-questions.md"
SCALES = dict.fromkeys(("test error", "error barrier", "train error", "share of the whole"), (100.0, "points"))
"""Units that are fractions in the tables and points in the text."""


class Results:
    """What a template may show of one folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))

    @cached_property
    def levels(self) -> pd.DataFrame:
        """Table ``levels``."""
        return self.table("levels")

    @cached_property
    def claims(self) -> pd.DataFrame:
        """Table ``claims``."""
        return self.table("claims")

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run; text stays text."""
        return pd.read_csv(self.folder / "tables" / f"{name}.csv", keep_default_na=True)

    @property
    def hardware(self) -> str:
        """``2 cores of an AMD EPYC``."""
        found = self.summary["hardware"]
        processor = found["processor"].replace("(R)", "").removesuffix("Processor").strip()
        return f"{found['cores']} cores of {'an' if processor[:1] in 'AEIOU' else 'a'} {processor}"

    @property
    def networks(self) -> int:
        """How many networks the study has."""
        return len(self.levels)

    @property
    def seeds(self) -> str:
        """Number of seeds in words."""
        count = self.levels["seed"].nunique()
        return ["no", "one", "two", "three", "four", "five", "six"][count] if count < 7 else str(count)

    def mean(self, branch: str, level: int, column: str = "test_error") -> float:
        """The mean over seeds of a column of ``levels``."""
        rows = self.levels[(self.levels["branch"] == branch) & (self.levels["level"] == level)]
        return float(rows[column].mean())

    def density(self, level: int, branch: str = "imp") -> str:
        """The share of the weights left at a level, in percent."""
        return percent(self.mean(branch, level, "density"))

    def curve(self, branches: Mapping[str, str], levels: Sequence[int], column: str = "test_error") -> str:
        """A table of means over seeds: a row for each branch, a column for each level. Errors are in points.

        The columns are named by the densities of the first branch.
        """
        scale, form = (100, "{:.1f}") if column.endswith("error") else (1, "{:.3f}")
        head = ["", *(self.density(level, next(iter(branches))) for level in levels)]
        body = []
        for branch, words in branches.items():
            cells = [scale * self.mean(branch, level, column) for level in levels]
            body.append([words, *("" if math.isnan(cell) else form.format(cell) for cell in cells)])
        return markdown(head, body)

    def against(self, branches: Mapping[str, str], level: int, than: str = "imp") -> str:
        """A table of mean test errors at a level, and of differences paired by seed with 90% t intervals, in points."""
        errors = self.levels[self.levels["level"] == level].pivot(index="seed", columns="branch", values="test_error")
        body = [["dense network (100%)", f"{100 * self.mean('dense', 0):.1f}", ""]]
        for branch, words in branches.items():
            found = mean_interval(100 * (errors[branch] - errors[than]), INTERVAL)
            apart = "" if branch == than else interval(found.mean, found.low, found.high, 1.0)
            body.append([words, f"{100 * errors[branch].mean():.1f}", apart])
        return markdown(["", "test error", "against IMP"], body)

    def disagreements(self) -> str:
        """A list of the primary claims that are contradicted, each with the sentence that the report quotes."""
        rows = self.table("verdicts").query("verdict == 'contradicted' and family == 'primary'")
        found = (f"- {r.claim}, *{r.statement.rstrip('.')}*: {r.sentence}" for r in rows.itertuples())
        return "\n".join(textwrap.fill(line, 118, subsequent_indent="  ", break_on_hyphens=False) for line in found)

    def answer(self, question: str) -> str:
        """The verdict on one claim and the sentence that the report quotes."""
        row = self.table("verdicts").set_index("claim").loc[question]
        return f"{row['statement']} **{row['verdict'].capitalize()}.** {row['sentence']}"

    def means(self, name: str, by: Sequence[str], columns: Mapping[str, str], **where: object) -> str:
        """A table of means over seeds with 90% t intervals: a row for each group of ``by``, a column for each value.

        The columns are sizes: where no value is negative, no interval ends below 0.
        """
        rows = self.table(name)
        for column, value in where.items():
            rows = rows[rows[column] == value]
        body = []
        for key, group in rows.groupby(list(by), sort=False, dropna=False):
            values = [group[column].dropna().to_numpy(dtype=float) for column in columns]
            found = [mean_interval(v, INTERVAL) if len(v) else None for v in values]
            least = [0.0 if len(v) and v.min() >= 0 else -math.inf for v in values]
            cells = ("" if f is None else with_interval(f, low) for f, low in zip(found, least, strict=True))
            body.append([*map(str, key), *cells])
        return markdown([*by, *columns.values()], body)

    def rewinds(self, steps: Mapping[str, int], levels: Sequence[int]) -> str:
        """A table of test errors over the dense network's, paired by seed: a row for each branch's rewind step."""
        body = []
        for branch, step in steps.items():
            found = [mean_interval(100 * self.over_dense(branch, level), INTERVAL) for level in levels]
            body.append([str(step), *(interval(f.mean, f.low, f.high, 1.0) for f in found)])
        return markdown(["rewind step", *(self.density(level) for level in levels)], body)

    def over_dense(self, branch: str, level: int) -> Any:
        """Test error minus the dense network's of the same seed."""
        errors = self.levels.set_index(["branch", "level", "seed"])["test_error"].sort_index()
        return (errors[branch, level] - errors["dense", 0]).to_numpy()

    @cached_property
    def unstable(self) -> pd.DataFrame:
        """The instability of the dense run: a path for each seed and step, on the test set."""
        rows = self.table("paths")
        return rows[(rows["path"] == "instability") & (rows["split"] == "test")]

    def instability(self) -> str:
        """A table of the height of the error between two data orders, by the step at which they part."""
        body = []
        for step, (mean, low, high) in self.heights.items():
            body.append([f"{step:g}", f"{mean:.2f} [{max(low, 0):.2f}, {high:.2f}]"])
        return markdown(["step", "height of the test error, points"], body)

    @cached_property
    def heights(self) -> dict[int, tuple[float, float, float]]:
        """For each step the height in points, with its interval.

        A height cannot be negative, so its spread over seeds counts as at least the claims' resolution.
        """
        groups = {int(step): group["error_height"].to_numpy() for step, group in self.unstable.groupby("step")}
        found = {step: estimate(100 * values, floor=100 * ERROR_RESOLUTION) for step, values in groups.items()}
        return {step: (e.mean, *e.interval(INTERVAL)) for step, e in found.items()}

    def rewind_answer(self, steps: Mapping[str, int], level: int, margin: float = 0.5) -> str:
        """The steps at which each interval lies below the margin, in a sentence."""
        worse = {at: mean_interval(100 * self.over_dense(name, level), INTERVAL) for name, at in steps.items()}
        shown = (
            [at for at, found in worse.items() if found.high < margin],
            [at for at, (_, _, high) in self.heights.items() if high < margin],
        )
        matching, stable = (
            f"for step {listed([str(at) for at in found])}" if found else "for no step" for found in shown
        )
        left = self.density(level, next(iter(steps)))
        return (
            f"At {left} of the weights a 90% interval below {margin:g} points shows {matching} that the ticket "
            f"matches, and {stable} that the dense run is stable ({self.seeds} seeds)."
        )

    def ranks(self, runs: Mapping[str, str], claim: str) -> str:
        """A table of a claim's rank correlations over all solutions: a row for each published run, named in words."""
        names: dict[str, dict[str, str]] = {}
        for run in runs:
            other = Results(self.folder.parent / run).claims
            for row in other[other["claim"] == claim].itertuples():
                names.setdefault(row.comparison, {})[run] = interval(row.effect, row.low, row.high, 1.0)
        body = [[words, *(cells.get(run, "") for cells in names.values())] for run, words in runs.items()]
        return markdown(["", *names], body)

    def verdicts(self) -> str:
        """A table of the claims: verdict, and the sentence that the report quotes."""
        rows = self.table("verdicts")
        body = [[f"{r.claim} {r.statement}", f"**{r.verdict}**", str(r.sentence)] for r in rows.itertuples()]
        return markdown(["claim", "verdict", "in a sentence"], body)

    def evidence(self) -> str:
        """For every claim that was measured, its comparisons at every density."""
        found = [f"### {claim}\n\n{self.effects(claim)}" for claim in dict.fromkeys(self.claims["claim"])]
        return "\n\n".join(found)

    def effects(self, claim: str, comparisons: Mapping[str, str] | None = None) -> str:
        """A table of a claim's comparisons: a row for each, a column for each density, effect with its interval."""
        rows = self.claims[self.claims["claim"] == claim]
        names = comparisons or {name: name for name in dict.fromkeys(rows["comparison"])}
        levels = sorted(set(rows["level"].dropna().astype(int)))
        of = rows.groupby("level")["density"].mean()
        at = {n: "over all solutions" if math.isnan(of[n]) else percent(of[n]) for n in levels}
        body = []
        for (name, unit), part in rows.groupby(["comparison", "unit"], sort=False):
            if name in names:
                scale, words = SCALES.get(str(unit), (1.0, str(unit)))
                cells = {int(r.level): interval(r.effect, r.low, r.high, scale) for r in part.itertuples()}
                body.append([with_unit(names[name], words), *(cells.get(n, "") for n in levels)])
        return markdown(["", *at.values()], body)

    @cached_property
    def estimators(self) -> pd.DataFrame:
        """Estimates of volume in the own space with their `value`: log effective radius, or for llc minus λ.

        A larger value is a larger volume. `flagged` says whether an estimate gives a reason not to trust it.
        """
        rows = self.table("volumes").query("space == 'own'").assign(value=lambda t: t["effective_radius"].map(math.log))
        llc = self.table("estimates").query("quantity == 'learning coefficient' and space == 'own'")
        both = pd.concat([rows, llc.assign(method="llc", value=-llc["value"])], ignore_index=True)
        return both.assign(flagged=both["reason"].fillna("") != "")

    def at_height(self, eps: float) -> pd.DataFrame:
        """`estimators` at one height; llc has no height."""
        both = self.estimators
        return both[(both["eps"] == eps) | (both["method"] == "llc")]

    def volumes(self, eps: float) -> str:
        """A table of log effective radii (minus the learning coefficient for llc) by solution and method."""
        both = self.at_height(eps)
        methods = list(dict.fromkeys(both["method"]))
        body = []
        for (branch, level), group in both.groupby(["branch", "level"]):
            mine = [group[group["method"] == method] for method in methods]
            found = [mean_interval(m["value"].to_numpy(dtype=float), INTERVAL) for m in mine]
            flags = [f", {m['flagged'].sum()} of {len(m)} flagged" if m["flagged"].any() else "" for m in mine]
            cells = [with_interval(f) + flag for f, flag in zip(found, flags, strict=True)]
            body.append([f"{branch} {level}", *cells])
        return markdown(["solution", *methods], body)

    def volume_ranks(self, eps: float) -> str:
        """A table of rank correlations between methods over the solutions of a seed: means over seeds with intervals.

        The intervals end at -1 and 1.
        """
        both = self.at_height(eps).pivot_table(index=["seed", "branch", "level"], columns="method", values="value")
        ranks = [group.rank().corr() for _, group in both.groupby("seed")]
        names = list(both.columns)
        body = []
        for a in names:
            pairs = [[r.loc[a, b] for r in ranks] for b in names]
            found = [mean_interval(np.asarray(values), INTERVAL) for values in pairs]
            cells = (interval(f.mean, max(f.low, -1.0), min(f.high, 1.0), 1.0) for f in found)
            body.append([a, *("" if a == b else cell for b, cell in zip(names, cells, strict=True))])
        return markdown(["", *names], body)

    def volume_slopes(self) -> str:
        """A table of 2 d log V / d log eps over the dimension, by solution and method: 1 on a quadratic at its minimum.

        For llc it is 2 λ over the dimension.
        """
        body: list[list[str]] = []
        columns: dict[str, dict[tuple[str, int], list[float]]] = {}
        sizes = self.table("volumes").query("space == 'own'").groupby(["branch", "level"])["dimension"].first()
        for (method, branch, level, _), group in self.estimators.groupby(["method", "branch", "level", "seed"]):
            if method == "llc":
                slope = -2 * group["value"].iloc[0] / sizes[branch, level]
            elif method != "thermodynamic" and group["eps"].nunique() > 1:
                slope = 2 * np.polyfit(np.log(group["eps"]), group["log_volume"], 1)[0] / group["k"].iloc[0]
            else:
                continue
            columns.setdefault(method, {}).setdefault((branch, level), []).append(slope)
        for at in sizes.index:
            found = [mean_interval(np.asarray(c[at]), INTERVAL) if at in c else None for c in columns.values()]
            body.append([f"{at[0]} {at[1]}", *("" if f is None else with_interval(f) for f in found)])
        return markdown(["solution", *columns], body)

    def volume_reasons(self) -> str:
        """A list of what each method's flags say, each with one example."""
        rows = self.estimators[self.estimators["flagged"]]
        lines = []
        for method, group in rows.groupby("method", sort=False):
            whole = int((self.estimators["method"] == method).sum())
            line = f"- `{method}`: {len(group)} of {whole} estimates are flagged, such as: {group['reason'].iloc[0]}."
            lines.append(textwrap.fill(line, 118, subsequent_indent="  ", break_on_hyphens=False))
        return "\n".join(lines) or "No estimate is flagged."


def with_interval(found: Any, least: float = -math.inf) -> str:
    """``1.72 [1.39, 2.04]``, not below ``least``; the mean alone where all values are one."""
    middle = f"{found.mean:.3g}"
    return middle if math.isnan(found.low) else f"{middle} [{max(found.low, least):.3g}, {found.high:.3g}]"


def percent(share: float) -> str:
    """A share in percent, to two digits below ten and one decimal above."""
    value = 100 * share
    return f"{value:.2g}%" if value < 10 else f"{value:.3g}%"


def interval(effect: float, low: float, high: float, scale: float) -> str:
    """``+1.72 [+1.39, +2.04]``, rounded by the interval; what rounds to 0 has no sign."""
    if math.isnan(effect):
        return ""
    places = 2 if math.isnan(low) else decimals(scale * (high - low) / 2)
    found = [f"{scale * v:+z.{places}f}" for v in (effect, low, high)]
    middle, *limits = (text.lstrip("+") if float(text) == 0 else text for text in found)
    return middle if math.isnan(low) else f"{middle} [{', '.join(limits)}]"


def reread(folder: Path) -> dict[str, str]:
    """The tables ``verdicts`` and ``claims`` of a folder as text, computed from its other tables."""
    tables, summary = read(folder)
    study = summary["study"]
    return {"claims": to_csv(claims(tables, study)), "verdicts": to_csv(verdicts(tables, study=study))}


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def render(folder: Path) -> str:
    """The README of a folder. jinja2.UndefinedError for what the tables do not have."""
    source = (folder / TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    found: Any = Results(folder)
    return environment.from_string(source).render(r=found)


def findings() -> str:
    """What the project's README shows of the demo."""
    r = Results(ROOT / "results" / "demo")
    level = 10
    branches = {
        "imp": "IMP with rewinding",
        "reinit": "its mask, new initialisation",
        "random-prune": "random mask, rewound",
        "oneshot": "one-shot pruning, rewound",
        "finetune": "iterative pruning, fine-tuned",
        "finetune-mask": "IMP's mask, fine-tuned",
    }
    return f"""\
At {r.density(level)} of the weights, the test error in points. Means are over {r.seeds} seeds; differences are
paired by seed, with 90% t intervals.

{r.against(branches, level)}

Some claims of the paper do not hold on this network. After correction for multiple testing, these are contradicted:

{r.disagreements()}
"""


def plane() -> Figure | None:
    """The demo's plane through the dense network and two tickets; None where the demo has none."""
    tables, _ = read(ROOT / "results" / "demo")
    return next((one for one in figures(tables).all if one.key == "landscape"), None)


def landscape() -> str:
    """What the project's README shows first: the demo's plane, or the gallery's while the demo has none."""
    one = plane()
    if one is None:
        picture = "docs/figures/gallery/plane.png"
        words = (
            "The train loss on the plane through a dense network, its ticket (`imp`) and the same mask from a new "
            "initialisation (`reinit`). Colour is a sublevel set of the dense network, grey is outside: the ticket "
            "lies in the dense network's region, the re-initialised network in another basin. The code is in the "
            "[gallery](docs/gallery.md)."
        )
    else:
        picture, words = PICTURE, f"{one.how} {' '.join(one.notes)} {one.trap}"
    return f"![The loss landscape around a winning ticket]({picture})\n\n{textwrap.fill(words, 118)}\n"


def known() -> str:
    """What the page of open questions shows: each question's verdict in each published result that asks it."""
    found = []
    for folder in sorted(p.parent for p in (ROOT / "results").glob("*/summary.json")):
        rows = Results(folder).table("verdicts").query("family == 'exploratory'")
        for r in rows.itertuples():
            sentence = str(r.sentence).removesuffix(" Exploratory: not corrected for the number of claims.")
            found.append((r.claim, folder.name, f"**{r.verdict}**", sentence))
    body = [[claim, f"`results/{name}`", *rest] for claim, name, *rest in sorted(found)]
    return markdown(["", "result", "verdict", "in a sentence"], body) + "\n"


def between(page: str, marks: tuple[str, str], text: str) -> str:
    """A page with the text between two marks written again. ValueError where it has no such marks."""
    begin, end = (page.index(mark) for mark in marks)
    return f"{page[:begin]}{marks[0]}\n{text}{page[end:]}"


def with_findings(readme: str) -> str:
    """The project's README with its findings written again. ValueError where it has no place for them."""
    return between(between(readme, FINDINGS, findings()), LANDSCAPE, landscape())


def main(folders: Sequence[str]) -> None:
    """Write the READMEs of some folders, or of all that have a template."""
    chosen = [Path(f) for f in folders] or sorted(p.parent for p in (ROOT / "results").glob(f"*/{TEMPLATE}"))
    for folder in chosen:
        for name, text in reread(folder).items():
            (folder / "tables" / f"{name}.csv").write_text(text, encoding="utf-8")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summary["tables"] = schemas()
        summary["files"] |= {f"tables/{p.name}": digest(p.read_bytes()) for p in (folder / "tables").glob("*.csv")}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(render(folder), encoding="utf-8")
        sys.stdout.write(f"{folder / 'README.md'}\n")
    if not folders:
        if (one := plane()) is not None:
            shown(one.views[0], one.title, one.columns).savefig(ROOT / PICTURE, dpi=130, metadata={"Software": None})
        whole = ROOT / "README.md"
        whole.write_text(with_findings(whole.read_text(encoding="utf-8")), encoding="utf-8")
        questions = ROOT / QUESTIONS
        questions.write_text(between(questions.read_text(encoding="utf-8"), KNOWN, known()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
