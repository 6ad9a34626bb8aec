"""Every table of a tiny study with every branch and every measurement, frozen.

Texts and whole numbers are compared exactly. Other numbers are computed in float64 and may differ by 1e-9 of their
size, or by 1e-9 where they are rounding errors themselves, such as residuals: processors add in another order. To
freeze the tables anew, run this file as a script, and explain every line of the diff.
"""

from __future__ import annotations

import csv
import io
import math
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from every import RUN
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.study import branches  # noqa: F401 - registers them
from sublevel.study.builder import BRANCHES
from sublevel.study.result import to_csv

FROZEN = Path(__file__).with_name("tables")
TOLERANCE = 1e-9


class Net(nn.Module):
    """A convolution with BatchNorm and a linear layer, which matching knows as a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.linear = nn.Linear(2 * 16, 3)

    def forward(self, x):
        return self.linear(self.norm(self.conv(x)).tanh().flatten(1))


def tables(folder: Path, device: str = "cpu", *criteria: str, dtype: str = "float64", **train: str) -> dict[str, str]:
    """Every table of the study as text, with a one-shot branch for each criterion."""
    data = tiny_runs.arrays()
    pairs = {split: (data[f"{split}_x"], data[f"{split}_y"]) for split in ("train", "test")}
    problem = sl.Problem(Net, **pairs, validation=40, version="1", dtype=dtype, device=device)
    chosen = [{"name": name, "levels": [1]} for name in sorted(BRANCHES) if name != "imp"]
    shot = {"name": "oneshot", "levels": [1]}
    chosen += [shot | {"label": name.replace(":", " of "), "options": {"criterion": name}} for name in criteria]
    settings = RUN | {"train": RUN["train"] | {"dtype": dtype} | train}
    study = sl.Study(problem, **settings, branches=[*chosen, {"name": "imp", "levels": [1, 2]}], out=folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="cells run one at a time")
        return {name: to_csv(table) for name, table in study.run(jobs=1, report=False).tables.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tables(tmp_path_factory.mktemp("golden"))


def test_the_study_has_every_table_and_no_failure(made: dict[str, str]) -> None:
    assert set(made) == {path.stem for path in FROZEN.glob("*.csv")}
    assert [name for name, text in made.items() if text.count("\n") < 2] == ["failures"]


@pytest.mark.parametrize("name", sorted(path.stem for path in FROZEN.glob("*.csv")))
def test_a_table_keeps_its_rows(made: dict[str, str], name: str) -> None:
    frozen, found = (list(csv.reader(io.StringIO(text))) for text in (read(name), made[name]))
    assert found[0] == frozen[0]
    assert len(found) == len(frozen)
    for number, (old, new) in enumerate(zip(frozen, found, strict=True)):
        other = [(column, a, b) for column, a, b in zip(found[0], old, new, strict=True) if not same(a, b)]
        assert not other, f"row {number} of {name}"


def read(name: str) -> str:
    return (FROZEN / f"{name}.csv").read_text(encoding="utf-8")


def same(a: str, b: str) -> bool:
    """Whether two fields are one text, one whole number, or two numbers that differ by rounding."""
    if a == b:
        return True
    try:
        return "." in a + b and math.isclose(float(a), float(b), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except ValueError:
        return False


def test_another_text_or_whole_number_is_seen_and_rounding_is_not() -> None:
    assert same("1.0", "1.0000000001")
    assert not same("1.0", "1.00000001")
    assert not same("3", "4")
    assert not same("", "0.0")
    assert not same("imp", "reinit")


if __name__ == "__main__":
    FROZEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in tables(Path(folder)).items():
            (FROZEN / f"{name}.csv").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FROZEN}\n")
