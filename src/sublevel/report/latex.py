r"""LaTeX that can be pasted: the levels over seeds and the verdicts, for the package booktabs."""

from __future__ import annotations

import math

from sublevel.display import decimals
from sublevel.report.findings import counted
from sublevel.report.frame import Frame
from sublevel.report.numbers import in_points, percent, plain, probability
from sublevel.report.palette import known_first
from sublevel.report.prepare import over_seeds

ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "\u2212": "$-$",
    "\u00b1": r"$\pm$", "\u2026": r"\ldots{}", "\n": " ",
})  # fmt: skip


def escape(text: str) -> str:
    r"""Text escaped for LaTeX.

    >>> escape("a_b & 5% <x>")
    'a\\_b \\& 5\\% $<$x$>$'
    """
    return text.translate(ESCAPES)


def levels_table(levels: Frame) -> str:
    """Test error in per cent, mean over seeds with the half-width of its 90% t interval: levels by branches."""
    known = levels[levels["test_error"].notna()]
    if known.empty:
        return ""
    means = over_seeds(known, "test_error", ["branch", "level"])
    cells = {}
    for r in means.itertuples():
        half = 100 * (r.high - r.mean)
        places = min(decimals(half), 3)
        interval = rf"${100 * r.mean:.{places}f} \pm {half:.{places}f}$"
        cells[r.branch, r.level] = interval if math.isfinite(half) else f"{100 * r.mean:.2f}"
    branches = [b for b in known_first(known["branch"]) if b != "dense"]
    density = known.groupby("level")["density"].mean()
    rows = []
    if branches and ("dense", 0.0) in cells:
        rows.append(_row(["0", r"100\%", rf"\multicolumn{{{len(branches)}}}{{c}}{{dense: {cells['dense', 0.0]}}}"]))
    for level in sorted(v for v in density.index if v > 0):
        shown = [cells.get((b, level), "--") for b in branches]
        rows.append(_row([f"{level:g}", escape(percent(float(density[level]))), *shown]))
    n = known.groupby(["branch", "level"])["seed"].nunique()
    seeds = counted(int(n.max()), "seed") if n.min() == n.max() else f"{n.min()} to {n.max()} seeds"
    head = _row(["Level", "Left", *[escape(b) for b in branches]])
    return _table(
        "rr" + "r" * len(branches), head, rows,
        rf"Test error (\%), mean over {seeds} with the half-width of the 90\% t interval.",
        "tab:levels",
    )  # fmt: skip


def verdicts_table(table: Frame) -> str:
    """Claim, verdict, effect with interval, seeds, p and Holm's p."""
    if table.empty:
        return ""
    rows = [
        _row([
            escape(str(r["claim"])), escape(str(r["verdict"])), _effect(r), escape(in_points(str(r["unit"]))[1]),
            plain(float(r["n"])), escape(probability(float(r["p"]))), escape(probability(float(r["p_holm"]))),
        ])
        for _, r in table.iterrows()
    ]  # fmt: skip
    head = _row(["Claim", "Verdict", "Effect [interval]", "Unit", "Seeds", "$p$", r"$p_{\mathrm{Holm}}$"])
    return _table(
        "llllrrr", head, rows,
        "Verdicts of the claims, with 90\\% intervals over seeds. $p_{\\mathrm{Holm}}$ is corrected over the primary "
        "claims that are tested.", "tab:verdicts",
    )  # fmt: skip


def _effect(row: Frame) -> str:
    scale, _ = in_points(str(row["unit"]))
    effect, low, high = (scale * float(row[c]) for c in ("effect", "low", "high"))
    if not math.isfinite(effect):
        return "--"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"${effect:.4g}$"
    places = decimals((high - low) / 2)
    return f"${effect:z.{places}f}$ $[{low:z.{places}f}, {high:z.{places}f}]$"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _table(columns: str, head: str, rows: list[str], caption: str, label: str) -> str:
    body = "\n".join([head, r"\midrule", *rows])
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{{label}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}"
    )
