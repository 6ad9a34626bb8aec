"""In what two studies differ, and what they share: known fields, and the keys that runs turn out to have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import sublevel as sl
from sublevel.cli import main
from sublevel.errors import ConfigError
from sublevel.study.differences import difference
from sublevel.study.documents import read


@pytest.fixture
def there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workshop where the tiny study has run, as the working directory."""
    monkeypatch.chdir(finished)
    monkeypatch.syspath_prepend(finished)
    monkeypatch.setenv("COLUMNS", "200")
    return finished


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code, *capsys.readouterr()


# --- Fields.


def test_each_field_that_differs_with_both_values_and_no_other(there: Path) -> None:
    found = difference("small.toml", "small.toml", overrides=["fraction=0.5", "train.lr=0.1"], out="sublevel-runs")
    assert found.names == ("small.toml", "small.toml --set fraction=0.5 --set train.lr=0.1")
    assert found.fields == {"fraction": ("0.4", "0.5"), "train.lr": ("0.05", "0.1")}


def test_defaults_are_resolved_and_branches_stand_by_name(there: Path, tmp_path: Path) -> None:
    """A default that is written out is no difference; a branch is compared with the branch of its name."""
    text = (there / "small.toml").read_text().replace('name = "small"', 'name = "small"\norder = "shared"\nseeds = 1')
    text = text.replace('["imp", "finetune"]', '["finetune", { name = "imp", levels = [1] }, "reinit"]')
    full = tmp_path / "said.toml"
    full.write_text(text + "momentum = 0.9\noptimizer = 'sgd'\n")
    fields = difference("small.toml", str(full), out="sublevel-runs").fields
    assert fields == {
        "branches.imp.levels": ("null", "[1]"),
        "branches.reinit.name": ("-", "reinit"),
        "branches.reinit.levels": ("-", "null"),
        "branches.reinit.order": ("-", "null"),
    }


def test_what_a_fidelity_changes_is_named(there: Path) -> None:
    fields = difference("demo", "demo", overrides=["fidelity=open_lth"], out="sublevel-runs").fields
    assert fields["fidelity"] == ("paper", "open_lth")
    assert fields["rounding"] == ("exact", "open_lth")
    assert fields["dense_start"] == ("init", "rewind")
    assert fields["protect"] == ("[]", '["fc.weight"]')
    assert fields["model.options.bias_init"] == ("-", "uniform")
    assert "train.lr" not in fields, "the demo says it"


# --- Cells.


@pytest.mark.parametrize(
    ("overrides", "networks"),
    [
        ([], (24, 24, 24)),
        (["seeds=[5, 7]"], (24, 24, 12)),
        (["finetune_lr=0.01"], (24, 24, 18)),  # all but finetune (2) and finetune-mask (1)
        (["fraction=0.41"], (24, 24, 2)),  # the dense ones
        (["data.validation=41"], (24, 24, 0)),
        (["train.lr=0.1", "geometry={}"], (24, 22, 0)),  # the two orders are no longer compared
    ],
)
def test_networks_that_two_studies_share(there: Path, overrides: list[str], networks: tuple[int, ...]) -> None:
    """12 a seed: dense 1, imp 2, oneshot 1 and finetune-mask 1 (their level 1 is imp's and finetune's), the other
    three 2, and a sibling.
    """
    found = difference("tiny.toml", "tiny.toml", overrides=overrides, out="sublevel-runs")
    assert found.cells["train"] == networks
    assert found.networks == networks[2]


def test_a_run_and_its_study_are_the_same(there: Path) -> None:
    for run in ("sublevel-runs/tiny", "tiny"):
        found = difference(run, "tiny.toml", out="sublevel-runs")
        assert found.fields == {}
        assert all(a == b == both for a, b, both in found.cells.values())
        assert sum(both for _, _, both in found.cells.values()) > 100


def test_what_is_counted_is_what_runs_then_share(there: Path, tmp_path: Path) -> None:
    """Keys in the manifests of both runs, by kind; what was counted before the second one ran."""
    folder = Path(shutil.copytree(there, tmp_path / "both"))
    keys = {"name": "other", "branches": "imp,reinit,finetune", "seeds": [5, 6]}
    overrides = [f"{name}={value}" for name, value in keys.items()] + ["geometry.spectra.k=3"]
    before = difference("tiny.toml", "tiny.toml", overrides=overrides, out="sublevel-runs")
    geometry = read("tiny.toml")["geometry"]
    geometry["spectra"] |= {"k": 3}
    sl.Study("tiny.toml", **keys, geometry=geometry, out=folder / "sublevel-runs").run(jobs=1, report=False)
    shared: dict[str, int] = {}
    cells = [json.loads((folder / f"sublevel-runs/{n}/study.json").read_text())["cells"] for n in ("tiny", "other")]
    for kind in {cell["kind"] for cell in cells[1]}:
        a, b = ({cell["key"] for cell in side if cell["kind"] == kind} for side in cells)
        shared[kind] = len(a & b)
    assert shared == {kind: row[2] for kind, row in before.cells.items() if kind in shared}
    assert shared["train"] > 5


# --- The command.


def test_the_command_says_fields_cells_and_networks(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "plan", "--diff", "tiny", "tiny.toml", "--set", "seeds=[5, 7]")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "field tiny tiny.toml --set seeds=[5, 7]"
    assert "seeds [3, 5] [5, 7]" in lines
    assert "train 24 24 12" in lines
    assert lines[-1] == "networks in both: 12"
    assert said(capsys, "plan", "--diff", "tiny", "tiny.toml")[1].startswith("no field differs\ncells")


def test_a_study_whose_data_are_not_here_is_compared_by_its_fields(there: Path, capsys) -> None:
    code, out, _ = said(capsys, "plan", "--diff", "small.toml", "small.toml", "--set", "data.root=absent.npz")
    assert code == 0
    assert "data.root" in out
    assert "cells are not compared: data source 'arrays': data.root must be an .npz or .safetensors file" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--diff", "demo", "dmeo"), "'dmeo' is neither a study file (.toml), nor a preset, nor a run; did you mean"),
        (("--diff", "absent.toml", "demo"), "there is no study file absent.toml"),
        (("--diff", "tiny", "tiny", "--set", "seeds=2"), "tiny is a finished run: --set cannot change it"),
        (("--diff", "demo", "demo", "--set", "level=3"), "demo: unknown key 'level'; did you mean 'levels'?"),
        (("demo", "--diff", "demo", "mini"), "plan takes one study, or two after --diff; got 'demo' with them"),
        (("--diff", "demo"), "--diff"),
        ((), "plan takes a study: a preset or a study file; or two after --diff"),
    ],
)
def test_what_is_no_study_is_one_line(there: Path, capsys, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = said(capsys, "plan", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert sentence in err


def test_a_damaged_run_is_said_to_be_one(there: Path, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(Exception, match="is damaged") as found:
        difference(str(tmp_path), "demo", out="sublevel-runs")
    assert not isinstance(found.value, ConfigError)
