"""The published results: each README is what its template makes of its tables."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(p.parent for p in (ROOT / "results").glob("*/README.md.j2"))


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_readme", ROOT / "tools" / "results_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_published_study_has_a_template() -> None:
    assert {p.parent for p in (ROOT / "results").glob("*/summary.json")} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_the_readme_is_made_from_the_tables(readme: ModuleType, folder: Path) -> None:
    assert readme.render(folder) == (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_published_verdicts_are_what_the_rules_make_of_the_tables(readme: ModuleType, folder: Path) -> None:
    for name, text in readme.reread(folder).items():  # processors add in another order
        found, there = (pd.read_csv(of) for of in (io.StringIO(text), folder / "tables" / f"{name}.csv"))
        pd.testing.assert_frame_equal(found, there, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_template_types_no_result(folder: Path) -> None:
    """Numbers with decimals come from tables: a template may type a setting, never an effect in brackets."""
    source = (folder / "README.md.j2").read_text(encoding="utf-8")
    typed = re.sub(r"{{.*?}}|{%.*?%}", "", source, flags=re.DOTALL)
    assert not re.findall(r"[+-]\d+\.\d+|\[\s*[+-]?\d+\.\d+,", typed)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_summary_names_no_folder_of_a_machine(folder: Path) -> None:
    assert not re.findall(r'"(?:hf:)?(?:/|[A-Za-z]:\\\\)[^"]*"', (folder / "summary.json").read_text(encoding="utf-8"))


def test_the_findings_of_the_project_are_those_of_the_demo(readme: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.with_findings(text) == text


def test_the_page_of_open_questions_has_the_published_verdicts(readme: ModuleType) -> None:
    page = (ROOT / "docs" / "open-questions.md").read_text(encoding="utf-8")
    known = readme.known()
    assert readme.between(page, readme.KNOWN, known) == page
    asked = {r.claim for f in FOLDERS for r in readme.Results(f).table("verdicts").itertuples() if r.claim[0] == "Q"}
    assert all(f"| {claim} | `results/" in known for claim in asked)


def test_what_the_tables_lack_is_an_error(readme: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    (tmp_path / "README.md.j2").write_text("{{ r.nothing_of_the_kind }}", encoding="utf-8")
    with pytest.raises(Exception, match="nothing_of_the_kind"):
        readme.render(tmp_path)


def test_a_mean_of_a_study_is_the_mean_of_its_rows(readme: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "summary.json").write_text('{"hardware": {"cores": 2, "processor": "AMD EPYC"}}', encoding="utf-8")
    rows = ["branch,level,seed,density,test_error", "imp,1,0,0.5,0.10", "imp,1,1,0.5,0.30", "dense,0,0,1,0.1"]
    (tmp_path / "tables" / "levels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    source = "{{ r.curve({'imp': 'IMP', 'reinit': 'new draw'}, [1]) }} {{ r.hardware }} {{ r.seeds }}"
    (tmp_path / "README.md.j2").write_text(source, encoding="utf-8")
    assert (
        readme.render(tmp_path)
        == "|  | 50% |\n| --- | --- |\n| IMP | 20.0 |\n| new draw |  | 2 cores of an AMD EPYC two"
    )


def test_a_step_counts_as_stable_only_where_its_interval_is_below_the_margin(
    readme: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    errors = {"dense": (0.1, 0.1, 0.1), "early": (0.1, 0.101, 0.099), "late": (0.1, 0.12, 0.08)}
    rows = [f"{b},{int(b != 'dense')},{s},0.5,{e}" for b, each in errors.items() for s, e in enumerate(each)]
    heights = {0: (0.0, 0.02, 0.01), 20: (0.0, 0.0, 0.0)}
    paths = [f"instability,test,{step},{h}" for step, each in heights.items() for h in each]
    for name, head, lines in (
        ("levels", "branch,level,seed,density,test_error", rows),
        ("paths", "path,split,step,error_height", paths),
    ):
        (tmp_path / "tables" / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    r = readme.Results(tmp_path)
    found = r.rewind_answer({"early": 5, "late": 9}, 1)
    assert "shows for step 5 that the ticket matches, and for step 20 that the dense run is stable" in found
    assert r.instability().splitlines()[3] == "| 20 | 0.00 [0.00, 0.08] |"  # 2.92 x 0.05 / sqrt 3


VOLUMES = """branch,level,seed,space,method,k,dimension,eps,log_volume,effective_radius,reason
a,0,0,own,radial,4,4,0.1,2.0,4.0,
a,0,0,own,radial,4,4,0.4,4.772588722239781,8.0,few rays
b,1,0,own,radial,4,4,0.1,1.0,2.0,
c,1,0,own,radial,4,4,0.1,0.0,1.0,
a,0,1,own,radial,4,4,0.1,2.0,4.0,
b,1,1,own,radial,4,4,0.1,1.0,2.0,
c,1,1,own,radial,4,4,0.1,0.0,1.0,
"""
ESTIMATES = """branch,level,seed,space,quantity,value,reason
a,0,0,own,learning coefficient,1.0,
b,1,0,own,learning coefficient,2.0,
c,1,0,own,learning coefficient,3.0,
a,0,1,own,learning coefficient,3.0,
b,1,1,own,learning coefficient,2.0,
c,1,1,own,learning coefficient,1.0,
"""


def test_a_smaller_coefficient_ranks_as_a_larger_volume(readme: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    for name, text in (("volumes", VOLUMES), ("estimates", ESTIMATES)):
        (tmp_path / "tables" / f"{name}.csv").write_text(text, encoding="utf-8")
    r = readme.Results(tmp_path)
    ranks = r.volume_ranks(0.1).splitlines()
    assert ranks[0] == "|  | llc | radial |"
    assert ranks[3].startswith("| radial | 0.0 [-1.0, +1.0] |")  # the two seeds say +1 and -1
    slopes = r.volume_slopes().splitlines()
    assert slopes[0] == "| solution | llc | radial |"
    assert slopes[2].split("|")[3].strip() == "1"  # log V rises by (4 / 2) log(0.4 / 0.1)
    assert r.volume_reasons() == "- `radial`: 1 of 7 estimates are flagged, such as: few rays."
