"""A preset with fewer levels than it names."""

from __future__ import annotations

import pytest

import tiny_runs
from sublevel.errors import ConfigError
from sublevel.models import build
from sublevel.space import Space
from sublevel.study.assemble import assemble
from sublevel.study.documents import merged, preset_names, read
from sublevel.study.shortened import read_with_levels, shortened
from sublevel.study.spec import parse

SPACE = Space.of(build("lenet-300-100", input_shape=(1, 28, 28), classes=10))


@pytest.mark.parametrize("name", [name for name in preset_names() if not name.startswith("paper")])
def test_every_preset_is_a_study_down_to_one_level(name: str) -> None:
    last = parse(read(name)).levels
    for levels in range(1, last + 1):
        document, said = read_with_levels(name, levels)
        spec = parse(merged(document, {"levels": levels}) if "levels" in document else document)
        assert spec.levels == levels
        assert bool(said) == (levels < last)
        graph, solutions = assemble(spec, SPACE, 2000, [])
        assert max(s.level for s in solutions) == levels
        assert len(graph.nodes) > 3


def test_what_is_past_the_end_goes_and_nothing_else() -> None:
    document = {
        "levels": 5,
        "branches": ["imp", {"name": "oneshot", "levels": [4, 5]}, {"name": "reinit", "levels": [2, 5]}],
        "geometry": {
            "legs": {"branches": ["imp", "oneshot"], "size": 9},
            "spectra": {"branches": ["oneshot"]},
            "overlaps": {"levels": [4]},
            "paths": {"points": 5, "to_dense": {"levels": [1, 4]}, "orders": {"levels": [5]}, "aligned": {}},
            "planes": {"through": [["dense", "imp/2", "imp/5"], ["dense", "imp/1", "reinit/2"]], "eigen": ["imp/5"]},
        },
    }
    assert shortened(document, 2) == {
        "levels": 2,
        "branches": ["imp", {"name": "reinit", "levels": [2]}],
        "geometry": {
            "legs": {"branches": ["imp"], "size": 9},
            "paths": {"points": 5, "to_dense": {"levels": [1]}, "aligned": {}},
            "planes": {"through": [["dense", "imp/1", "reinit/2"]], "eigen": []},
        },
    }
    assert shortened(document, 5) == document


def test_a_study_file_means_what_it_says(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('levels = 3\nbranches = [{ name = "imp", levels = [3] }]\n')
    assert read_with_levels(str(path), 2) == (read(str(path)), "")
    with pytest.raises(ConfigError, match="asks for level 3"):
        parse(merged(read(str(path)), {"levels": 2}))


def test_the_command_says_so(tmp_path) -> None:
    done = tiny_runs.cli("plan", "demo", "--set", "levels=2", "--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: the preset demo without its levels after 2" in done.stdout + done.stderr
