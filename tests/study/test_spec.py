"""An invalid study is refused with one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sublevel.study.branches  # noqa: F401 - registers them
from sublevel import Study
from sublevel.errors import ConfigError, DataError, ModelError
from sublevel.study.builder import BRANCHES
from sublevel.study.documents import override, preset_names, read
from sublevel.study.solutions import label
from sublevel.study.spec import parse
from sublevel.train.recipe import Duration, Recipe

SMALL: dict[str, Any] = {
    "levels": 2,
    "data": {"name": "fashion-mnist-small", "train_size": 300, "test_size": 100, "validation": 100},
    "train": {"epochs": 2, "batch_size": 100},
}


def changed(**keys: Any) -> dict[str, Any]:
    """The small study with keys set as on the command line: ``train__lr=1``."""
    document: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in SMALL.items()}
    for path, value in keys.items():
        *groups, last = path.split("__")
        at = document
        for group in groups:
            at = at.setdefault(group, {})
        at[last] = value
    return document


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"level": 3}, r"unknown key 'level'; did you mean 'levels'\?"),
    ({"epochs": 3}, r"unknown key 'epochs'; it belongs to train: train = \{ epochs = \.\.\. \}"),
    ({"train__learning_rate": 3}, r"unknown key 'train.learning_rate'"),
    ({"train__epoch": 3}, r"unknown key 'train.epoch'; did you mean 'epochs'\?"),
    ({"train__batchsize": 3}, r"unknown key 'train.batchsize'; did you mean 'batch_size'\?"),
    ({"data__nmae": "x"}, r"unknown key 'data.nmae'; did you mean 'name'\?"),
    ({"geometry__paths__pionts": 3}, r"unknown key 'geometry.paths.pionts'; did you mean 'points'\?"),
    ({"geometry__paths__successive": {"branch": ["imp"]}}, r"'geometry.paths.successive.branch'.*'branches'\?"),
    ({"branches": [{"name": "imp", "level": [1]}]}, r"unknown key 'branches.0.level'; did you mean 'levels'\?"),
    ({"levels": 0}, r"levels: .*got 0"),
    ({"levels": "many"}, r"levels: .*got 'many'"),
    ({"levels": 1.5}, r"levels: .*got 1.5"),
    ({"levels": True}, r"levels: .*got True"),
    ({"fraction": 0}, r"fraction: .*greater than 0, got 0"),
    ({"fraction": 1}, r"fraction: .*less than 1, got 1"),
    ({"fraction": 20}, r"fraction: .*less than 1, got 20"),
    ({"fraction": float("nan")}, r"fraction: .*got nan"),
    ({"rewind": 2000}, r"rewind: .*'2000it' or '160ep'; got 2000"),
    ({"rewind": "2000"}, r"rewind: .*got '2000'"),
    ({"rewind": "2000 steps"}, r"rewind: .*got '2000 steps'"),
    ({"rewind": "1.5it"}, r"rewind: steps are whole; got '1.5it'"),
    ({"rewind": "-1it"}, r"rewind: .*got '-1it'"),
    ({"rewind": ["1it"]}, r"rewind: "),
    ({"train__epochs": "2ep"}, r"train: epochs is a number.*got '2ep'"),
    ({"train__epochs": 0}, r"train: epochs is a number above 0 and at most 10,000,000, got 0"),
    ({"train__epochs": 1e308}, r"train: epochs is a number above 0 and at most 10,000,000, got 1e\+308"),
    ({"rewind": "99999999999it"}, r"at most 10,000,000 steps; got '99999999999it'"),
    ({"seeds": 10**20}, "seeds: a study has at most 10,000 seeds"),
    ({"train__epochs": float("inf")}, r"train: .*got inf"),
    ({"train__length": "9ep"}, r"train: epochs and length set the same thing"),
    ({"train__lr": 0}, r"train: lr must be positive.*, got 0"),
    ({"train__lr": float("nan")}, r"train: lr must be positive.*got nan"),
    ({"train__lr": float("inf")}, r"train: lr .*got inf"),
    ({"train__weight_decay": float("inf")}, r"train: weight_decay .*got inf"),
    ({"train__momentum": 1}, r"train: momentum must be in \[0, 1\), got 1"),
    ({"train__schedule": "cosin"}, r"train: schedule must be one of constant, milestones, cosine, got 'cosin'"),
    ({"train__milestones": ["1ep"]}, r"train: milestones and schedule = 'milestones' belong together"),
    ({"train__schedule": "milestones"}, r"train: milestones and schedule = 'milestones' belong together"),
    ({"train__dtype": "float16"}, r"train: dtype must be one of float32, float64, got 'float16'"),
    ({"train__batch_size": 0}, r"train: batch_size must be at least 1, got 0"),
    ({"finetune_lr": 0}, r"finetune_lr: .*got 0"),
    ({"finetune_lr": float("inf")}, r"finetune_lr: .*got inf"),
    ({"geometry__spectra__eps": float("inf")}, r"geometry.spectra.eps: .*got inf"),
    ({"geometry__spectra__k": 0}, r"geometry.spectra.k: .*got 0"),
    ({"geometry__paths__points": 2}, r"geometry.paths.points: .*got 2"),
    ({"seeds": 0}, r"seeds: .*"),
    ({"seeds": [0, 1, 0]}, r"seeds are given twice: \[0, 1, 0\]"),
    ({"seeds": "three"}, r"seeds: .*'three'"),
    ({"threads": 0}, r"threads: .*got 0"),
    ({"order": "random"}, r"order: .*'shared' or 'independent', got 'random'"),
    ({"scope": "local"}, r"scope: .*'global', 'layer' or 'erk', got 'local'"),
    ({"name": "../elsewhere"}, r"name: .*got '../elsewhere'"),
    ({"name": ""}, r"name: .*got ''"),
    ({"branches": ["imp", "imp"]}, r"two branches are called 'imp': give one of them a label"),
    ({"branches": ["imp", {"name": "oneshot", "label": "imp"}]}, r"two branches are called 'imp'"),
    ({"branches": [{"name": "imp", "levels": [3]}]}, r"branch 'imp' asks for level 3; the study has levels 1 to 2"),
    ({"branches": [{"name": "imp", "levels": [0]}]}, r"branch 'imp' asks for level 0; the study has levels 1 to 2"),
    ({"branches": [{"name": "imp", "levels": []}]}, r"branch 'imp'.*no level"),
    ({"branches": [{"name": "imp", "label": "dense"}]}, r"'dense'"),
    ({"branches": ["reinit", {"name": "oneshot", "label": "imp"}]}, r"'imp'.*label"),
    ({"branches": [{"name": "imp", "order": "independant"}]}, r"branches.0.order: .*got 'independant'"),
    ({"geometry__legs": {"branches": ["inp"]}}, r"geometry.legs asks for branch 'inp'; did you mean 'imp'\?"),
    ({"geometry__spectra": {"levels": [7]}}, r"geometry.spectra asks for level 7"),
    # What only the network and the data tell.
    ({"branches": ["impp"]}, r"unknown branch 'impp' \(branches\); did you mean 'imp'\?"),
    ({"branches": [{"name": "reinit", "options": {"from": "0it"}}]}, r"unknown option of branch 'reinit' 'from'"),
    ({"branches": [{"name": "imp", "options": {"x": 1}}]}, r"unknown option of branch 'imp' 'x'"),
    ({"branches": [{"name": "reinit", "options": {"from_step": "1ep"}}]}, r"reinit: from_step must be .*got '1ep'"),
    ({"branches": [{"name": "random-prune", "options": {"per_layer": "no"}}]}, r"'per_layer' .* is a bool, got 'no'"),
    ({"criterion": "magnitud"}, r"unknown pruning score 'magnitud'; did you mean 'magnitude'\?"),
    ({"levels": 30, "fraction": 0.9}, r"levels 30: level \d+ of fraction 0.9 .*fewer levels"),
    ({"levels": 2, "fraction": 1e-9}, r"levels 2: level 1 of fraction 1e-09"),
    ({"rewind": "6it"}, r"rewind 6it is step 6, past the end: training has 6 steps of 3 an epoch"),
    ({"rewind": "2ep"}, r"rewind 2ep is step 6, past the end"),
    ({"train__batch_size": 301}, r"train.batch_size 301 is larger than the 300 training examples"),
    ({"train__schedule": "milestones", "train__milestones": ["1ep", "3ep"]}, r"train.milestones: 3ep is step 9, past"),
    ({"train__checkpoints": ["7it"]}, r"train.checkpoints: 7it is step 7, past the end at step 6"),
    ({"train__warmup": "3ep"}, r"train.warmup: 3ep is step 9, past the end at step 6"),
    ({"train__epochs": 0.01}, r"train.*no step"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "sentence"), REFUSED, ids=[str(k)[:70] for k, _ in REFUSED])
def test_an_invalid_study_is_refused(keys: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Study(changed(**keys), out=tmp_path / "runs").cells
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "kind", "sentence"),
    [
        ({"data__name": "fashion-mnist-smal"}, ConfigError, "'fashion-mnist-small'"),
        ({"model__name": "lenet300"}, ConfigError, "did you mean 'lenet-300-100'"),
        ({"model__options": {"widht": 2}}, ConfigError, "unknown option 'widht'"),
        ({"model__name": "absent_module:net"}, ModelError, "no module 'absent_module'"),
        ({"model__name": "json:net"}, ModelError, "json has no 'net'"),
        ({"loss": "cross_entropy"}, ConfigError, "cross-entropy"),
        ({"data__train_size": 10**6}, DataError, "data.train_size"),
        ({"data__test_size": 10**6}, DataError, "data.test_size"),
        ({"data__validation": 1.0}, DataError, "1.0"),
        ({"data__options": {"size": 3}}, ConfigError, "size"),
    ],
)
def test_what_the_data_and_the_network_refuse(keys: dict[str, Any], kind: type, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=sentence):
        use(Study(changed(**keys), out=tmp_path / "runs"))
    assert not list(tmp_path.iterdir())


def use(study: Study) -> None:
    study.cells, study.notes(), study.problem.per_example_loss()


def test_several_errors_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"my.toml: levels: .*; my.toml: fraction: .*"):
        parse(changed(levels=0, fraction=2), "my.toml")


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_studies(name: str) -> None:
    spec = parse(read(name), name)
    assert spec.name == name
    assert parse({**spec.document()}) == spec, "the resolved study does not give the same study"
    assert {b.name for b in spec.branches} <= set(BRANCHES)


def test_the_demo_needs_no_files(tmp_path: Path) -> None:
    graph, solutions = Study("demo", out=tmp_path / "runs").cells
    assert len(graph.nodes) > 100
    assert len({(s.branch, s.level, s.seed) for s in solutions}) == len(solutions)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("levels=3", ["levels"], 3),
        ("fraction=0.5", ["fraction"], 0.5),
        ("train.lr=1e-3", ["train", "lr"], 1e-3),
        ("train.flip=true", ["train", "flip"], True),
        ("data.root=/a b/c=d", ["data", "root"], "/a b/c=d"),
        ("rewind=2000it", ["rewind"], "2000it"),
        ('rewind="2000it"', ["rewind"], "2000it"),
        ("seeds=[1, 2]", ["seeds"], [1, 2]),
        ("branches=imp,oneshot", ["branches"], "imp,oneshot"),
        ('branches=["imp", {name="reinit"}]', ["branches"], ["imp", {"name": "reinit"}]),
        ("new.group.key=x", ["new", "group", "key"], "x"),
        (" levels = 3", ["levels"], 3),
    ],
)
def test_overrides(assignment: str, path: list[str], value: Any) -> None:
    document: dict[str, Any] = {"levels": 1, "train": {"lr": 9}}
    document = override(document, assignment)
    for key in path:
        document = document[key]
    assert document == value


@pytest.mark.parametrize("assignment", ["levels", "=3", "a..b=1", ".a=1", "levels.deep=3", ""])
def test_overrides_that_are_none(assignment: str) -> None:
    with pytest.raises(ConfigError):
        override({"levels": 1}, assignment)


def test_a_length_replaces_a_length() -> None:
    document: dict[str, Any] = {"train": {"epochs": 2}}
    document = override(document, "train.length=500it")
    assert parse(document).train.length == Duration(500, "it")
    document = override(document, "train.epochs=3")
    assert parse(document).train.length == Duration(3, "ep")


def test_branches_as_words() -> None:
    assert [b.name for b in parse({"branches": "imp, oneshot"}).branches] == ["imp", "oneshot"]


def test_labels_carry_the_data_order() -> None:
    spec = parse({"branches": ["imp", {"name": "imp", "order": "independent"}, {"name": "imp", "label": "other"}]})
    assert [label(spec, b) for b in spec.branches] == ["imp", "imp-independent", "other"]


@pytest.mark.parametrize("epochs", [1, 160, 0.5, 1_000_000, 1234567, 0.1234567, 1 / 3])
def test_a_length_is_said_and_read_exactly(epochs: float) -> None:
    recipe = parse({"train": {"epochs": epochs}}).train
    assert recipe.length == Duration(epochs, "ep")
    assert Recipe.from_document(recipe.document()) == recipe
    assert Duration.parse(str(recipe.length)) == recipe.length


def test_study_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("levels = = 3")
    with pytest.raises(ConfigError, match=r"bad.toml is not valid TOML"):
        read(str(bad))
    with pytest.raises(ConfigError, match=r"no study file .*absent.toml"):
        read(str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match=r"neither a study file .* nor a preset; did you mean 'demo'\?"):
        read("demmo")
    bad.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read(str(bad))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"no study file .*folder.toml"):
        read(str(tmp_path / "folder.toml"))


def test_where_a_study_runs_is_no_part_of_it():
    placed = parse({"run": {"gpus": 0.25, "slurm": {"partition": "gpu", "time": 240}}})
    assert placed.run.slurm == {"partition": "gpu", "time": 240}
    assert placed.document() == parse({}).document()
    with pytest.raises(ConfigError, match=r"unknown key 'run.gpu'; did you mean 'gpus'"):
        parse({"run": {"gpu": 1}})
