"""Studies side by side: what differs, how well they do, what they say, and the page in which they stand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sublevel as sl
from sublevel.errors import ConfigError
from tiny_runs import cli, inside


@pytest.fixture(scope="module")
def runs(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study beside one of other data and a name with markup in its branch."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("compared") / "runs"))
    text = (folder / "small.toml").read_text()
    text = text.replace('name = "small"', 'name = "other"\nseeds = 2').replace(
        '"finetune"]', '{ name = "finetune", label = "ft (slow)" }]'
    )
    (folder / "other.toml").write_text(text)
    done = cli("run", "other.toml", "--jobs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sublevel-runs"


def test_settings_that_differ_and_no_others(runs: Path) -> None:
    found = sl.compare(runs / "tiny", runs / "other").settings.set_index("setting")
    assert found.loc["seeds"].tolist() == ["[3, 5]", "[0, 1]"]
    assert found.loc["train.length"].tolist() == ["2ep", "1ep"]
    assert "data.name" not in found.index
    assert "model: parameters" not in found.index


def test_test_errors_stand_beside_each_other(runs: Path) -> None:
    found = sl.compare(runs / "tiny", runs / "other").accuracy.set_index(["branch", "density"])
    levels = sl.open(runs / "other").levels
    mean = 100 * levels.query("branch == 'imp' and level == 2")["test_error"].mean()
    density = float(f"{levels.query('level == 2')['density'].iloc[0]:.3g}")
    row = found.loc[("imp", density)]
    assert row["other"].startswith(f"{mean:.2f}%")
    assert row["other"].endswith("2 seeds")
    assert row["tiny"]
    assert found.loc[("ft (slow)", density)].tolist()[0] == ""


def test_verdicts_stand_beside_each_other_and_two_seeds_decide_nothing(runs: Path) -> None:
    found = sl.compare(runs / "tiny", runs / "other").verdicts.set_index("claim")
    assert {"C1", "C2", "C12"} <= set(found.index)
    for name in ("tiny", "other"):
        assert not found[name].str.startswith("supported").any()
        assert not found[name].str.startswith("contradicted").any()


def test_the_command_prints_and_writes_a_page(runs: Path) -> None:
    printed = inside("compare", "tiny", "other", cwd=runs.parent)
    assert printed.returncode == 0, printed.stderr
    assert "train.length" in printed.stdout
    written = inside("compare", "tiny", "other", "--html", "both.html", cwd=runs.parent)
    assert written.returncode == 0, written.stderr
    page = (runs.parent / "both.html").read_text()
    assert "tiny and other, side by side" in page
    assert "train.length" in page
    assert "http" not in page.replace("http-equiv", "")


def test_one_run_and_no_run_are_refused(runs: Path) -> None:
    with pytest.raises(ConfigError, match="a comparison needs two runs or more; got 1"):
        sl.compare(runs / "tiny")
    with pytest.raises(ConfigError, match="nowhere is not the folder of a run"):
        sl.compare(runs / "tiny", runs / "nowhere")


def test_a_run_of_the_same_name_is_numbered(runs: Path) -> None:
    assert sl.compare(runs / "tiny", runs / "tiny").names == ("tiny (1)", "tiny (2)")
    assert sl.compare(runs / "tiny", runs / "tiny").settings.empty
