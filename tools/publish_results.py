"""Copy a run into results/: its study, tables, summary and chosen figures, then write the README from its template.

    python tools/publish_results.py sublevel-runs/demo [FIGURE.svg ...]

Tables with no row are left out, and so are figures that are not named.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from results_readme import ROOT, TEMPLATE, render

from sublevel.study.result import without_places


def publish(run: Path, figures: list[str]) -> Path:
    """The folder of results that a run was copied into; its template must stand there."""
    folder = ROOT / "results" / run.name
    if not (folder / TEMPLATE).is_file():
        raise SystemExit(f"write {folder / TEMPLATE} first: what the page asks, shows and warns of")
    tables = folder / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir(parents=True)
    for table in sorted((run / "tables").glob("*.csv")):
        if len(table.read_text(encoding="utf-8").splitlines()) > 1:
            shutil.copy(table, tables)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    summary["study"] = without_places(summary["study"])  # a run of an older version may name its folders
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    source = ROOT / "src" / "sublevel" / "presets" / f"{run.name}.toml"
    if source.is_file():
        shutil.copy(source, folder / "study.toml")
    shutil.rmtree(folder / "figures", ignore_errors=True)
    (folder / "figures").mkdir()
    for name in figures:
        shutil.copy(run / "figures" / name, folder / "figures")
    (folder / "README.md").write_text(render(folder), encoding="utf-8")
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{publish(Path(sys.argv[1]), sys.argv[2:])}\n")
