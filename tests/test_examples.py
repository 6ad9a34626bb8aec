"""The examples: each runs in a small form, and what it prints is what its run holds."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from math import exp, log
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import sublevel as sl
import sublevel.report
from tiny_runs import python

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def no_report(
    tables: object, summary: object, out: Path, *, page: str, figures: bool = True, views: str = "first"
) -> Path:
    """The report has tests of its own, and the run as a whole is in the full suite."""
    (out / page).touch()
    return out / page


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to run in, with the examples importable as they are for their own workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sublevel.report, "write", no_report)
    yield tmp_path
    for name in NAMES:
        sys.modules.pop(name, None)


def ran(name: str, **options: Any) -> tuple[ModuleType, sl.Result]:
    """The example as a module, and its run in this process, read again from its folder."""
    example = importlib.import_module(name)
    example.main(jobs=1, out=Path("runs"), **options)
    return example, sl.open(Path("runs") / name.replace("_", "-"))


def check(result: sl.Result, counts: list[int], printed: str, column: str = "test_error") -> None:
    """Tickets have the counts [by level] that were asked for, are 0 elsewhere, and the printed table is the run's."""
    assert len(result.failures) == 0
    levels = result.levels
    assert sorted(set(levels["remaining"]), reverse=True) == counts
    assert set(levels["branch"]) >= {"dense", "imp", "random-prune"}
    space = result.problem.space
    for row in levels[levels["level"] > 0].itertuples():
        ticket = result.ticket(row.branch, row.level, seed=row.seed)
        assert space.remaining(ticket.mask) == counts[row.level]
        assert int(ticket.end.theta[~ticket.mask].count_nonzero()) == 0
        assert bool(ticket.end.theta.isfinite().all())
    means = levels.groupby(["remaining", "branch"])[column].mean()
    for (remaining, branch), mean in means.items():
        line = re.search(rf"^{remaining} .*$", printed, re.MULTILINE)
        assert line, f"{branch}: no line of {remaining} weights"
        assert any(abs(float(n) - mean) <= 6e-4 for n in line[0].split()[1:]), (branch, mean, line[0])


def numbers(pattern: str, printed: str) -> list[tuple[float, ...]]:
    """The numbers in every match of a pattern."""
    return [tuple(map(float, found)) for found in re.findall(pattern, printed)]


def error(result: sl.Result, branch: str, column: str = "test_error") -> float:
    """The mean over seeds at the last level."""
    levels = result.levels
    return float(levels[(levels["branch"] == branch) & (levels["level"] == levels["level"].max())][column].mean())


def test_every_example_says_what_to_look_for_and_how_to_run_it():
    assert len(NAMES) >= 5
    for name in NAMES:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        doc = text.split('"""')[1]
        assert "Teaches:" in doc, name
        assert "Look for:" in doc, name
        assert f"python examples/{name}.py" in doc, name
        assert text.rstrip().endswith('if __name__ == "__main__":\n    cyclopts.run(main)'), name


@pytest.mark.slow
def test_the_cnn_reads_the_folder_that_it_wrote_and_beats_the_random_mask(desk, capsys):
    example = importlib.import_module("own_cnn")
    root = example.write_images(desk / "images", train=300, test=100)
    assert len(list(root.glob("train/*/*.png"))) == 300
    _, result = ran("own_cnn", root=root, epochs=3, levels=3, seeds=1)
    printed = capsys.readouterr().out
    check(result, [3784, 1892, 946, 473], printed)
    assert result.problem.splits.input_shape == (1, 28, 28)
    assert len(result.problem.splits.classes) == 10
    assert error(result, "imp") < error(result, "random-prune")
    walls = numbers(r"train loss (\d\.\d+) nats at alpha (\d\.\d+)", printed)
    assert len(walls) == 3
    field = result.problem.field("train", size=300, policy="recomputed")
    wall = sl.paths.barrier(field, result.point("dense"), result.point("imp", 3), points=11)
    assert f"imp to dense: barrier of the train loss {wall.height:.3f} nats" in printed


@pytest.mark.slow
def test_the_ticket_of_the_table_stands_on_the_columns_that_matter(desk, capsys):
    example, result = ran("table_regression", rows=600, epochs=25, levels=5, seeds=1)
    printed = capsys.readouterr().out
    check(result, [5440, 2720, 1360, 680, 340, 170], printed, "test_loss")
    assert error(result, "imp", "test_loss") < error(result, "random-prune", "test_loss")
    assert result.levels["test_loss"].min() > 0.9 * 0.2**2 / 2  # the noise is not to be predicted
    shares = numbers(r"of (\d+) first-layer weights (\d+)%", printed)
    kept = result.ticket("imp", 5).masks()["0.weight"]
    assert shares[0] == (int(kept.sum()), round(100 * float(kept[:, :5].sum() / kept.sum())))
    assert shares[0][1] > 50 > 40 > max(shares[1][1], shares[2][1])  # 25 by chance
    assert error(result, "imp", "test_loss") < error(result, "random-layers", "test_loss")
    x, y = example.friedman(50_000, 7, 0.0, seed=3)
    assert abs(float(y.mean())) < 0.02
    assert abs(float(y.std()) - 1) < 0.02
    assert float(x.abs().max()) <= 1


@pytest.mark.slow
def test_the_transformer_is_never_sharper_in_its_own_subspace(desk, capsys):
    _, result = ran("vit_tiny", train_size=300, depth=1, epochs=6, levels=3)
    printed = capsys.readouterr().out
    check(result, [10080, 5040, 2520, 1260], printed)
    found = numbers(r"in R\^D (-?[\d.]+) \+- ([\d.]+), in its own subspace (-?[\d.]+) \+- ([\d.]+)", printed)
    assert len(found) == 3
    for top, residual, own, of_own in found:
        assert own <= top + residual + of_own + 0.01
    ticket = result.ticket("imp", 3)
    field = result.problem.field("train", size=200)
    v = torch.randn(result.problem.space.dim, generator=torch.Generator().manual_seed(0)) * ticket.mask
    rayleigh = float(v @ field.hvp(ticket.end, v) / (v @ v))
    assert rayleigh <= found[0][2] + found[0][3]  # no direction of the subspace is steeper than its largest eigenvalue


@pytest.mark.slow
def test_noise_in_training_is_repeated_and_is_off_in_a_field(desk, capsys):
    example, result = ran("efficientnet", width=4, train_size=250, epochs=3, levels=2)
    printed = capsys.readouterr().out
    check(result, [2764, 1382, 691], printed)
    left = re.findall(r"^(depthwise|pointwise|squeeze-and-excitation|stem and classifier) +(\d+) +(\d+)", printed, re.M)
    assert len(left) == 4
    assert [sum(int(n) for n in column) for column in list(zip(*left, strict=True))[1:]] == [2764, 691]
    assert (
        len(re.findall(r"statistics (?:stored|recomputed) *: barrier of the train loss \d+\.\d{3} nats", printed)) == 4
    )
    drop, ones = example.DropPath(0.25), torch.ones(40_000, 1, 1, 1)
    assert sorted({float(v) for v in drop.train()(ones).flatten()}) == pytest.approx([0, 4 / 3])
    assert float(drop(ones).mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(drop.eval()(ones), ones)
    again = sl.Study(result.problem, name="again", out=desk / "again", **kept_keys(result))
    assert float(again.run(jobs=1, report=False).levels["train_loss"][0]) == result.levels["train_loss"][0]


def kept_keys(result: sl.Result) -> dict[str, Any]:
    """The dense network's training again, from its recipe, and nothing else."""
    study = result.document["study"]
    return {"levels": 1, "branches": [], "rewind": study["rewind"], "seeds": study["seeds"], "train": study["train"]}


@pytest.mark.slow
def test_the_language_model_reads_more_than_the_character_before(desk, capsys):
    example, result = ran("char_lm", windows=300, length=16, dim=16, epochs=4, levels=2)
    printed = capsys.readouterr().out
    check_perplexities(result, printed)
    assert sorted(set(result.levels["remaining"]), reverse=True) == [6752, 3376, 1688]
    splits = result.problem.splits
    assert splits.input_shape == (16,)
    assert torch.equal(splits.test.x[:, 1:], splits.test.y[:, :-1])  # the target is the next character
    letters = example.text()
    pairs = {}
    for one, two in pairwise(letters[: 300 * 16 + 1]):
        pairs.setdefault(one, Counter())[two] += 1
    inside = [n * log(n / sum(row.values())) for row in pairs.values() for n in row.values()]
    assert numbers(r"of characters ([\d.]+), of pairs ([\d.]+)", printed)[0][1] == pytest.approx(
        exp(-sum(inside) / (300 * 16)), abs=0.06
    )
    at, x, y = result.point("imp", 2), splits.test.x, splits.test.y
    with torch.no_grad():
        scores = result.problem.space.call(result.problem.module.eval(), at.theta, {}, x).log_softmax(-1)
    loss = -scores.gather(-1, y[..., None]).mean()
    row = result.levels.query("branch == 'imp' and level == 2").iloc[0]
    assert row["test_loss"] == pytest.approx(float(loss), rel=1e-4)
    assert row["test_error"] == pytest.approx(float((scores.argmax(-1) != y).float().mean()), abs=1e-6)
    changed = torch.cat([x[:1, :8], x[1:2, 8:]], dim=1)
    with torch.no_grad():
        both = result.problem.space.call(result.problem.module, at.theta, {}, torch.cat([x[:1], changed]))
    torch.testing.assert_close(both[0, :8], both[1, :8])  # no position sees a later one


def check_perplexities(result: sl.Result, printed: str) -> None:
    """The printed table holds exp of the mean losses."""
    assert len(result.failures) == 0
    for (remaining, _), losses in result.levels.groupby(["remaining", "branch"])["test_loss"]:
        (line,) = re.findall(rf"^{remaining} .*$", printed, re.MULTILINE)
        mean = sum(map(exp, losses)) / len(losses)
        assert any(abs(float(n) - mean) <= 6e-3 for n in line.split()[1:]), (mean, line)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_the_example_says_so_in_a_sentence(desk, capsys):
    with pytest.raises(SystemExit, match=r"needs timm \(pip install timm\), which cannot be imported here: No module"):
        ran("timm_by_name")
    assert not (desk / "runs").exists()


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_a_network_of_timm_holds_its_ticket(desk, capsys):
    _, result = ran("timm_by_name", train_size=200, epochs=2, levels=1)
    printed = capsys.readouterr().out
    check(result, [371280, 185640], printed)
    ((again,),) = numbers(r"in timm's own test_resnet: test error ([\d.]+)", printed)
    assert again == pytest.approx(error(result, "imp"), abs=6e-4)


@pytest.mark.full
def test_a_script_shares_its_factory_with_worker_processes(desk):
    options = ["--rows", "200", "--epochs", "3", "--levels", "1", "--seeds", "1", "--jobs", "2"]
    done = python(EXAMPLES / "table_regression.py", *options, cwd=desk)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    result = sl.open(desk / "sublevel-runs" / "table-regression")
    check(result, [5440, 2720], done.stdout, "test_loss")


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in NAMES if name != "timm_by_name" or find_spec("timm")])
def test_the_examples_run_as_they_are(name, desk):
    done = python(EXAMPLES / f"{name}.py", cwd=desk, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    result = sl.open(desk / "sublevel-runs" / name.replace("_", "-"))
    column = "test_loss" if name in ("table_regression", "char_lm") else "test_error"
    if name == "char_lm":
        check_perplexities(result, done.stdout)
    else:
        check(result, sorted(set(result.levels["remaining"]), reverse=True), done.stdout, column)
    assert error(result, "imp", column) < error(result, "random-prune", column)
