"""Tickets of a study: out of a run, trained again to the same bits, and the commands."""

from __future__ import annotations

import dataclasses
import getpass
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.utils import prune

import sublevel as sl
import tiny_runs
from sublevel.cli import main
from sublevel.errors import ConfigError, DataError, ModelError
from sublevel.study.given import read
from sublevel.study.spec import GivenSpec
from sublevel.study.tickets import retrain
from tickets_at_hand import odd, ticket_of

SOLUTIONS = [("dense", 0), ("imp", 2), ("finetune", 1), ("reinit", 1), ("imp-independent", 2)]


CODE = ("--code", "tiny_net:tiny")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workshop with a finished study, in a folder that tells of a person."""
    folder = tiny_runs.furnish(tmp_path_factory.mktemp("home-of-alice"))
    branches = ["imp", "finetune", "reinit", {"name": "imp", "order": "independent"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        sl.Study("small.toml", branches=branches, train={"epochs": 2}, seeds=[3]).run(jobs=1, report=False)
        result = sl.open("sublevel-runs/small")
        for branch, level in SOLUTIONS:
            result.ticket(branch, level, seed=3).save(f"{branch}.safetensors", end=branch == "imp")
    return folder


@pytest.fixture
def shop(studied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(studied)
    monkeypatch.syspath_prepend(studied)
    return studied


@pytest.fixture
def result(shop: Path) -> sl.Result:
    return sl.open("sublevel-runs/small")


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        return end.value.code, *capsys.readouterr()

    return run


def files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if "__pycache__" not in p.parts}


AGAIN = """
import sys
import sublevel as sl
from sublevel.study.tickets import retrain
from sublevel.codec import point_tensors
from sublevel.engine.store import digest, serialised

problem = sl.Problem("tiny_net:tiny", data="arrays", root="data.npz", validation=40)
for name in sys.argv[1:]:
    end = retrain(sl.load_ticket(f"{name}.safetensors"), problem)
    print(name, digest(serialised(point_tensors(end))))
"""


def test_another_process_trains_a_ticket_to_the_bits_of_the_study(result: sl.Result) -> None:
    """Of every kind: from an initialisation, from step k, at a constant rate, in another data order."""
    done = tiny_runs.python("-c", AGAIN, *(branch for branch, _ in SOLUTIONS), cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    stored = {branch: result._training(branch, level, 3)["objects"]["end"] for branch, level in SOLUTIONS}
    assert found == stored
    assert len(set(stored.values())) == len(SOLUTIONS)


def test_what_a_ticket_says_of_its_origin(result: sl.Result) -> None:
    about = sl.load_ticket("finetune.safetensors").about
    entry = result._training("finetune", 1, 3)
    assert [about[k] for k in ("study", "branch", "level", "seed", "rewind")] == ["small", "finetune", 1, 3, 1]
    assert about["training"]["recipe"] == entry["inputs"]["recipe"]
    assert about["training"]["lr"] == entry["inputs"]["lr"] == 0.05
    assert about["data"]["digest"] == result.problem.splits.digest
    assert (about["data"]["mean"], about["data"]["std"]) == (
        list(result.problem.splits.mean),
        list(result.problem.splits.std),
    )
    assert about["model"]["name"] == "tiny_net:tiny"
    assert re.fullmatch("[0-9a-f]{64}", about["model"]["fingerprint"])
    assert about["versions"]["torch"] == torch.__version__
    assert sl.load_ticket("imp-independent.safetensors").about["training"]["order"] == "level-2"


def test_a_fingerprint_is_that_of_the_code_that_ran(result: sl.Result, shop: Path) -> None:
    """An edited network draws the same initial weights or not: the ticket does not claim to know."""
    edited = shop / "edited_net.py"
    edited.write_text(tiny_runs.NET.replace(".relu()", ".tanh()"))
    other = sl.Result(
        result.folder, problem=sl.Problem("edited_net:tiny", data="arrays", root="data.npz", validation=40)
    )
    ticket = other.ticket("imp", 1, seed=3)
    assert ticket.about["model"]["fingerprint"] is None
    assert torch.equal(ticket.end.theta, result.ticket("imp", 1, seed=3).end.theta)


def test_nothing_personal_is_in_the_file(shop: Path) -> None:
    for path in shop.glob("*.safetensors"):
        with safe_open(path, "pt") as opened:
            text = opened.metadata()["sublevel-ticket"]
        about = json.dumps(json.loads(text)["about"])
        assert "/" not in about
        assert "alice" not in text
        assert "data.npz" not in text
        assert socket.gethostname() not in text
        assert f'"{getpass.getuser()}"' not in text


def test_options_that_may_be_paths_stay_at_home(shop: Path) -> None:
    (shop / "optional_net.py").write_text(
        tiny_runs.NET + "\n\ndef with_file(classes, width=4, file=''):\n    return Net(classes, width)\n"
    )
    problem = sl.Problem("optional_net:with_file", data="arrays", root="data.npz", validation=40,
                         options={"width": 5, "file": "/home/alice/weights"})  # fmt: skip
    keys = {"levels": 1, "branches": ["imp"], "train": {"length": "2it", "batch_size": 50}, "rewind": "1it"}
    result = sl.Study(problem, name="optional", **keys).run(jobs=1, report=False)
    assert result.ticket("imp", 1, seed=0).about["model"]["options"] == {"width": 5}


def test_a_ticket_of_a_run_is_a_point_and_a_mask_of_its_problem(result: sl.Result) -> None:
    row = result.levels.query("branch == 'imp' and level == 2").iloc[0]
    ticket, problem = sl.load_ticket("imp.safetensors"), result.problem
    assert ticket.space == problem.space
    assert problem.field("train").evaluate(ticket.end).loss == pytest.approx(row["train_loss"], rel=1e-6)
    assert ticket.space.remaining(ticket.mask) == row["remaining"]
    top = sl.curvature.top_eigenvalues(problem.field("train", size=60), ticket.end, k=1, mask=ticket.mask)
    assert torch.isfinite(top.values).all()
    assert int(ticket.end.theta[~ticket.mask].count_nonzero()) == 0
    assert int(ticket.start.theta[~ticket.mask].count_nonzero()) > 0, "the start is unmasked"


def test_training_again_refuses_what_is_not_the_study_s(result: sl.Result, shop: Path) -> None:
    ticket = sl.load_ticket("imp.safetensors")
    np.savez(shop / "other.npz", **tiny_runs.arrays(1))
    base = {"data": "arrays", "validation": 40}
    for problem, kind, sentence in (
        (
            sl.Problem("tiny_net:tiny", root="other.npz", **base),
            DataError,
            "data are not those .* their digests differ",
        ),
        (
            sl.Problem("tiny_net:tiny", root="data.npz", options={"width": 3}, **base),
            ModelError,
            r"parameter 1 is 'conv.w",
        ),
        (
            sl.Problem("tiny_net:tiny", root="data.npz", prunable=lambda n, m, p: n == "conv.weight", **base),
            ModelError,
            "in which other weights may be pruned",
        ),
    ):
        with pytest.raises(kind, match=sentence):
            retrain(ticket, problem)
    with pytest.raises(ConfigError, match="the ticket has no recipe"):
        retrain(ticket_of(odd(1), odd(2)), result.problem)


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipe": None}, {"recipe": {"length": "1000000000000ep"}}, {"recipe": {"schedule": -1}}, {"recipe": {"x": 1}},
        {"seed": "x"}, {"order": 3}, {"first": None}, {"lr": [1]}, {"lr": 10**400}, {"numerics": {"threads": 100_000}},
        {"numerics": {}}, {"numerics": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_recipe_of_any_kind_is_refused_in_a_sentence(result: sl.Result, wrong: dict[str, Any]) -> None:
    ticket = sl.load_ticket("imp.safetensors")
    numerics = wrong.get("numerics", ticket.about["numerics"])
    training = {**ticket.about["training"], **{k: v for k, v in wrong.items() if k != "numerics"}}
    about = {**ticket.about, "training": training, "numerics": numerics}
    with pytest.raises(DataError, match="the recipe of the ticket cannot be read"):
        retrain(dataclasses.replace(ticket, about=about), result.problem)


# --- The commands.


def test_export_show_apply(do, shop: Path, result: sl.Result, tmp_path: Path) -> None:
    out, state = tmp_path / "deep" / "t.safetensors", tmp_path / "state.safetensors"
    named = ("--branch", "imp", "--level", 2, "--seed", 3)
    code, said, _ = do("ticket", "export", "small", *named, "--out", out, "--end", *CODE)
    assert (code, said) == (0, f"ticket: {out} (82 of 228 prunable weights left, 36 %; start and end weights)\n")
    assert out.read_bytes() == (shop / "imp.safetensors").read_bytes()
    code, said, _ = do("ticket", "show", out)
    assert code == 0
    for words in ("branch imp, level 2, seed 3", "tiny_net:tiny", "82 of 228", "conv.weight", "all checksums match"):
        assert words in said
    ticket = sl.load_ticket(out)
    for at in ("start", "end"):
        assert do("ticket", "apply", out, "--model", "tiny_net:tiny", "--out", state, "--at", at)[0] == 0
        written, expected = load_file(state), ticket.module(result.problem.module, at).state_dict()
        assert written.keys() == expected.keys()
        assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())


def test_a_state_with_masks_is_measured_as_the_sparse_network(
    do, shop: Path, result: sl.Result, tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"
    code, said, _ = do("ticket", "apply", "imp.safetensors", "--model", "tiny_net:tiny", "--out", state, "--masks")
    assert code == 0
    assert "end weights" in said
    given = read(GivenSpec(name="a", path=str(state)), result.problem)
    ticket = sl.load_ticket("imp.safetensors")
    assert torch.equal(given.at.theta, ticket.end.theta)
    tensors = sl.load_ticket("imp.safetensors").to_torch_prune(result.problem.build(0, "init"))
    assert prune.is_pruned(tensors)
    from sublevel.codec import mask_tensors
    from sublevel.engine.store import serialised

    assert given.mask == serialised(mask_tensors(ticket.mask))


@pytest.fixture
def hostile(shop: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a ticket that says other things of itself, with every checksum."""

    def make(**about: Any) -> Path:
        true = sl.load_ticket("imp.safetensors")
        return dataclasses.replace(true, about={**true.about, **about}).save(tmp_path / "hostile.safetensors")

    return make


def test_code_of_ones_own_is_called_with_the_options_of_its_user(do, hostile, tmp_path: Path) -> None:
    """Not with those that a ticket names, which are left out and named."""
    path = hostile(model={"name": "tiny_net:tiny", "options": {"width": 9, "command": "rm -rf \x1b[2J"}})
    apply = ("ticket", "apply", path, "--model", "tiny_net:tiny", "--out", tmp_path / "state")
    code, said, _ = do(*apply)
    assert code == 0
    assert "note: own code that would run: tiny_net:tiny (network, " in said
    assert "called with input_shape [1, 6, 6], classes 3\n" in said
    assert "left out: command rm -rf \\x1b[2J, width 9 (--option NAME=VALUE)" in said
    code, said, error = do(*apply, "--option", "width=9")
    assert code == 2
    assert "called with input_shape [1, 6, 6], classes 3, width 9\n" in said
    assert "'conv.weight' [9, 1, 3, 3] in Net" in error


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        ({"input_shape": [10**6, 10**6], "classes": 3}, {}, r"lenet-300-100 cannot be built|another network"),
        ({"input_shape": [2**62, 2**62], "classes": 2**62}, {}, "lenet-300-100 cannot be built"),
        ({"input_shape": [1, 6, 6], "classes": 10**9}, {}, "another network"),
        ({"input_shape": 5, "classes": 3}, {}, "input_shape is 5"),
        ({"input_shape": "x", "classes": "y"}, {}, "input_shape is 'x'"),
        ({"input_shape": {"a": []}, "classes": 3}, {}, "lenet-300-100 cannot be built"),
        ({"input_shape": [1, 6, 6], "classes": [1]}, {}, r"classes is \[1\]"),
        ({"input_shape": [1, 6, 6], "classes": 3}, {"command": "x"}, "unknown option 'command'"),
        ({"input_shape": [1, 6, 6], "classes": 3}, {"input_shape": [10**9]}, "another network"),
        ({"input_shape": [1, 6, 6], "classes": 3}, [1], "another network"),
    ],
    ids=range(10),
)
def test_a_ticket_may_ask_a_registered_network_for_anything(
    do, hostile, tmp_path: Path, data: dict[str, Any], options: Any, sentence: str
) -> None:
    """One sentence, and no memory: the network is first built without."""
    path = hostile(model={"name": "lenet-300-100", "options": options}, data=data)
    code, _, error = do("ticket", "apply", path, "--model", "lenet-300-100", "--out", tmp_path / "state")
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(sentence, error), error
    assert not (tmp_path / "state").exists()


APPLY = ("--model", "tiny_net:tiny", "--out", "out")
BAD: list[tuple[tuple[object, ...], str]] = [
    (("export", "small", "--level", 2, "--seed", 3), "--out"),
    (("export", "absent", "--level", 1, "--out", "out"), "not the folder of a run"),
    (("export", "small", "--level", 9, "--seed", 3, "--out", "out"), "no solution of branch 'imp' at level 9"),
    (("export", "small", "--branch", "impp", "--level", 1, "--seed", 3, "--out", "out"), "unknown branch 'impp'"),
    (("export", "small", "--level", 2, "--seed", 3, "--out", "out"), "unless you name it too: tiny_net:tiny"),
    (("export", "small", "--level", 2, "--seed", 3, "--out", "data.npz/t", *CODE), "cannot write data.npz/t"),
    (("show", "absent"), "there is no ticket absent"),
    (("show", "small.toml"), "small.toml is not a ticket"),
    (("show", "damaged"), "damaged is damaged: the SHA-256 of 'mask' is"),
    (("show", "short"), "short is cut short"),
    (("apply", "damaged", *APPLY), "damaged is damaged"),
    (("apply", "reinit.safetensors", *APPLY, "--at", "end"), "does not hold 'end'"),
    (("apply", "reinit.safetensors", *APPLY, "--at", "middle"), "middle"),
    (("apply", "imp.safetensors", "--model", "tiny_net:tinny", "--out", "out"), "did you mean 'tiny'?"),
    (("apply", "imp.safetensors", "--model", "wide_net:wide", "--out", "out"), "'conv.weight' [4, 1, 3, 3]"),
    (("apply", "by-hand", *APPLY), "does not hold the shape of the inputs: give --input-shape"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(map(str, a)) for a, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(do, shop: Path, arguments: tuple[object, ...], sentence: str) -> None:
    good = (shop / "reinit.safetensors").read_bytes()
    (shop / "damaged").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (shop / "short").write_bytes(good[:-1])
    (shop / "wide_net.py").write_text(tiny_runs.NET + "\n\ndef wide(classes):\n    return Net(classes, 5)\n")
    ticket_of(odd(1), odd(2)).save(shop / "by-hand")
    before = files(shop)
    code, out, err = do("ticket", *arguments)
    assert code == 2, out
    assert sentence in err
    assert err.startswith("sublevel: ")
    assert len(err.splitlines()) == 1 or "tinny" in str(arguments), err
    assert files(shop) == before
    assert out == "" or out.startswith("note: own code that would run: ")
