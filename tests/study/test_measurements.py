"""Every measurement of a study: that its cells run, become rows, cost something, and do not depend on the job count."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import sublevel as sl
import tiny_runs
from sublevel.errors import ConfigError
from sublevel.tables import TABLES
from tiny_runs import cli, tables

EVERY = """
name = "every"
levels = 1
fraction = 0.4
rewind = "2it"
branches = ["imp", "reinit"]
[data]
name = "arrays"
root = "data.npz"
validation = 40
[model]
name = "tiny_net:tiny"
[train]
epochs = 1
trajectory = ["3it"]
batch_size = 50
lr = 0.05
[geometry.legs]
size = 60
[geometry.prunings]
size = 60
draws = 2
[geometry.spectra]
branches = ["imp"]
k = 2
operators = ["hessian", "ggn", "adaptive"]
spaces = ["own", "all"]
layers = true
parts = 2
size = 60
[geometry.density]
probes = 2
steps = 8
size = 60
[geometry.coordinates]
branches = ["dense", "imp"]
probes = 4
directions = 2
size = 60
[geometry.overlaps]
k = 2
size = 60
[geometry.anatomy]
k = 2
size = 60
[geometry.limits]
probes = 2
steps = 8
size = 60
[geometry.exits]
branches = ["imp"]
rays = 2
levels = [1]
size = 60
[geometry.training]
branches = ["dense"]
k = 1
size = 60
[geometry.volumes]
branches = ["imp"]
methods = ["logdet", "radial", "importance", "llc", "thermodynamic"]
eps = [0.1, 0.2]
spaces = ["own"]
levels = [1]
rays = 4
probes = 2
steps = 8
k = 2
chains = 2
draws = 10
burn_in = 5
size = 60
[geometry.pairs]
branches = ["imp"]
k = 2
size = 60
probes = 2
quadrature = 8
rays = 4
[geometry.connect]
iterations = 5
points = 5
size = 60
[geometry.planes]
through = [["dense", "imp/1", "reinit/1"]]
random = ["dense"]
eigen = ["imp/1"]
policy = "stored"
points = 3
refine = 0
size = 60
[geometry.topology]
points = 3
refine = 0
size = 60
[geometry.paths]
points = 3
refine = 0
size = 60
from_start = {}
start_to_dense = {}
aligned = {}
orders = {}
instability = { steps = ["0it", "2it"] }
"""


def furnish(folder: Path) -> Path:
    tiny_runs.furnish(folder)
    (folder / "every.toml").write_text(EVERY)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workshop in which a study with every measurement was run by two jobs."""
    folder = furnish(tmp_path_factory.mktemp("every"))
    done = cli("run", "every.toml", "--jobs", 2, cwd=folder, page=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "sublevel-runs" / "every" / "tables" / f"{name}.csv")


@pytest.mark.slow
def test_every_table_has_rows(measured: Path) -> None:
    empty = [name for name in TABLES if name not in ("claims", "verdicts", "failures") and table(measured, name).empty]
    assert empty == []
    assert table(measured, "failures").empty


@pytest.mark.full
def test_one_job_gives_the_same_tables(measured: Path, tmp_path: Path) -> None:
    alone = furnish(tmp_path / "alone")
    done = cli("run", "every.toml", "--jobs", 1, cwd=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(alone / "sublevel-runs" / "every") == tables(measured / "sublevel-runs" / "every")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_estimators(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows of several tables, computed again from the stored points by the public functions."""
    monkeypatch.chdir(measured)
    monkeypatch.syspath_prepend(measured)
    result = sl.open("sublevel-runs/every")
    ticket, field = result.ticket("imp", 1), result.problem.field("train", size=60)
    spectra = result.spectra.query("branch == 'imp' and level == 1 and end == 'largest' and part == 0")
    for operator, options in {
        "hessian": {},
        "ggn": {"operator": "ggn"},
        "adaptive": {"scale": sl.curvature.filter_norms(result.problem.space, ticket.end.theta)},
    }.items():
        for space, mask in (("own", ticket.mask), ("all", None)):
            rows = spectra.query(f"operator == '{operator}' and space == '{space}'").sort_values("index")
            found = sl.curvature.top_eigenvalues(field, ticket.end, k=2, mask=mask, **options)
            assert rows["eigenvalue"].tolist() == pytest.approx(found.values.tolist(), rel=1e-3)
    layer = next(result.problem.space.prunable_layers)
    rows = spectra.query(f"space == 'layer {layer.name}'").sort_values("index")
    inside = sl.curvature.layer_masks(result.problem.space)[layer.name]
    found = sl.curvature.top_eigenvalues(field, ticket.end, k=2, mask=inside)
    assert rows["eigenvalue"].tolist() == pytest.approx(found.values.tolist(), rel=1e-3)
    other = result.spectra.query("branch == 'imp' and part == 1 and space == 'all' and operator == 'hessian'")
    found = sl.curvature.top_eigenvalues(result.problem.field("train", size=60, part=1), ticket.end, k=2)
    largest = other.query("end == 'largest'").sort_values("index")["eigenvalue"]
    assert largest.tolist() == pytest.approx(found.values.tolist(), rel=1e-3)
    joins = result.joins.query("of == 'loss' and a == 'dense L0 s0' and b == 'imp L1 s0'").iloc[0]
    recomputed = result.problem.field("train", size=60, policy="recomputed")
    profile = sl.paths.segment(recomputed, result.point("dense"), ticket.end, points=3, refine=0)
    assert joins["maximum"] == pytest.approx(profile.loss.max(), rel=1e-6)


def test_parts_are_disjoint_and_the_same_for_everybody() -> None:
    problem = sl.Problem("lenet-300-100")
    parts = [problem.part("train", 1800, i) for i in range(5)]
    whole = problem.splits.train
    seen = [set(map(bytes, part.x.reshape(1800, -1).numpy())) for part in parts]
    assert len(set.union(*seen)) > 8900, "five fifths are nearly all images (a few are twice in the data)"
    assert all(part.y.bincount().tolist() == [180] * 10 for part in parts)
    assert len(whole) == 9000
    with pytest.raises(sl.SublevelError, match="6 disjoint subsets of 1800 need more than the 9000 train examples"):
        problem.part("train", 1800, 5)


def test_a_plane_through_a_solution_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(furnish(tmp_path / "workshop"))
    monkeypatch.syspath_prepend(tmp_path / "workshop")
    study = sl.Study("every.toml", geometry={"planes": {"random": ["imp/7"]}})
    with pytest.raises(
        ConfigError, match=r"geometry.planes: the study has no solution 'imp/7'; did you mean 'imp/1'\?"
    ):
        _ = study.cells


@pytest.mark.slow
def test_measuring_a_finished_study_retrains_nothing(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained for every measurement serves any of them, and none; only second data orders are new."""
    monkeypatch.chdir(measured)
    monkeypatch.syspath_prepend(measured)
    bare = sl.Study("every.toml", geometry={}).plan(jobs=1)
    assert bare.to_run == 0
    again = {"paths": {"instability": {"steps": ["0it", "2it"]}, "points": 3, "refine": 0, "size": 60}}
    assert sl.Study("every.toml", geometry=again).plan(jobs=1).cells["train"]["to run"] == 0
