"""Text and documents of others: nothing of theirs moves a terminal, breaks a file, or becomes a formula."""

import io
import json
import os
import re

import pandas as pd
import pytest
from rich.table import Table

from sublevel.cli import main
from sublevel.cli.output import PlainConsole, console, say
from sublevel.errors import ConfigError
from sublevel.foreign import DEEPEST, bounded, csv_cell, load_json, plain, plain_all
from sublevel.study.documents import override, read
from sublevel.study.result import to_csv
from sublevel.study.spec import parse

HOSTILE = ["\x1b[2J\x1b]0;owned\x07", "a\x9b31m", "a\rb", "\u202egnp", "\ud800", "\x00", "\ufeff", "\u2028", "\x7f"]
HONEST = ["imp", "Größe 大小", "नमस्ते", "می‌خواهم", "a\tb\nc", "50 % [bold] {x} \\x1b", "👩‍🔬"]


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_are_written_out(text):
    shown = plain(text)
    assert shown != text
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert plain(shown) == shown
    shown.encode()


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_stays(text):
    assert plain(text) == text
    assert plain_all({text: [text, (1, None)]}) == {text: [text, [1, None]]}


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_printed_moves_the_terminal(terminal):
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=terminal, color_system="standard" if terminal else None, width=200)
    table = Table("run", title=HOSTILE[0])
    for text in HOSTILE:
        table.add_row(text)
        console.print(f"run {text} done", markup=False, style="red" if terminal else None)
    console.print(table)
    said = out.getvalue()
    if terminal:
        assert "\x1b[31m" in said  # the console's own colour
        said = re.sub("\x1b\\[[0-9;]*m", "", said)
    assert not any(c in said for c in "\x1b\x9b\x07\x00\u202e\x7f")
    assert r"\x1b[2J" in said


def test_a_line_that_is_printed_is_one_line(capsys):
    console.cache_clear()
    say("study a\nverify: all is well [bold]")
    say(ConfigError("b\nc"))
    console.cache_clear()
    assert capsys.readouterr().out == "study a\\nverify: all is well [bold]\nb\\nc\n"


def test_an_error_of_the_system_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["ls", "--out", str(tmp_path / ("c" * 300))])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("sublevel: File name too long: ")


def test_an_error_of_the_command_line_is_plain(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["report", "\x1b[2Jrun"])
    said = capsys.readouterr().err
    assert r"\x1b[2Jrun" in said
    assert "\x1b" not in said


def test_names_are_no_formulas_and_numbers_stay_numbers():
    table = pd.DataFrame(
        {
            "branch": ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\t=1", "imp", None],
            "loss": [-1.5, float("nan"), 2.0, -3.0, 0.0, 1e-300, -0.0],
            "level": [-1, 2, 3, 4, 5, 6, 7],
            "mixed": pd.Series([-1, None, -2.5, "x", "-y", True, "\ud800"], dtype=object),
        }
    )
    text = to_csv(table)
    text.encode()
    found = pd.read_csv(io.StringIO(text))
    assert list(found["branch"][:5]) == ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@x", "'\t=1"]
    assert list(found["loss"].dropna()) == [-1.5, 2.0, -3.0, 0.0, 1e-300, -0.0]
    assert list(found["mixed"])[:5:2] == ["-1", "-2.5", "'-y"]
    honest = table[["loss", "level"]].assign(branch="imp")
    assert to_csv(honest) == honest.to_csv(index=False, lineterminator="\n")
    assert csv_cell(-1) == -1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 5_000 + "]" * 5_000, "levels deep"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "levels deep"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "levels deep"),
        ("NaN", "the number nan"),
        ("[-Infinity]", "the number -inf"),
        ("1e999", "the number inf"),
        ("1" * 5_000, "digit"),
        ("1" * 30, "more than 64 bits"),
        (r'"\ud800"', "not UTF-8"),
        (r'{"\udfff": 1}', "not UTF-8"),
        (b"\xff\xfe\x00", "decode"),
        ("", "Expecting value"),
        ("[1", "Expecting"),
        ('"' + "x" * 2**25 + '"', "bytes; allowed"),
    ],
    ids=range(14),
)
def test_documents_that_are_none(text, why):
    with pytest.raises(ValueError, match=why):
        load_json(text)


def test_documents_that_are_read():
    for document in ([[]], {"a": [1, -2.5, None, True, "é\n"]}, 2**63):
        assert load_json(json.dumps(document)) == document
    assert load_json("[" * 90 + "]" * 90)
    assert bounded({"lr": float("inf")}, numbers=False) == {"lr": float("inf")}


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 5_000 + "]" * 5_000,
        "x = " + "{a=" * 5_000 + "1" + "}" * 5_000,
        "x = " + "[" * 300 + "]" * 300,
        ".".join("a" * 5_000) + " = 1",
        ".".join(["''"] * 200_000) + " = 1",
        "x = { " + "a . " * 200_000 + "a = 1 }",
        "#" * 2**21,
        "levels = " + "9" * 5_000,
        "[" + ".".join("a" * 3_000) + "]",
        "levels = \ud800",
        "levels = 1\x00",
    ],
    ids=range(11),
)
def test_a_study_file_of_any_shape_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "s.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"s\.toml is not valid TOML"):
        read(str(tmp_path / "s.toml"))


@pytest.mark.parametrize(
    "assignment",
    ["levels=" + "9" * 5_000, "levels=" + "[" * 5_000, ".".join("a" * 5_000) + "=1", "x=" + "[" * 300 + "]" * 300],
    ids=range(4),
)
def test_an_override_of_any_shape_is_refused_in_a_sentence(assignment):
    with pytest.raises(ConfigError) as refused:
        parse(override({}, assignment))
    assert len(str(refused.value)) < 400


def test_a_study_with_many_faults_names_a_few():
    with pytest.raises(ConfigError, match=r"unknown key 'k0'.*; and 4,990 more$") as refused:
        parse({f"k{i}": 1 for i in range(5_000)})
    assert len(str(refused.value)) < 10_000


@pytest.mark.parametrize(
    "study",
    [
        {"seeds": [2**64]},
        {"geometry": {"paths": {"size": 10**30}}},
        {"model": {"options": {"name": "\ud800"}}},
    ],
)
def test_what_no_run_could_write_down_is_refused_before_training(study):
    with pytest.raises(ConfigError, match=r"no study: it holds (a whole number of more|text that is not)"):
        parse(study)


@pytest.mark.parametrize("name", ["run\x1b[2J", "a\nb", "\ud800", ""])
def test_a_name_that_no_table_can_hold_is_refused_before_training(name):
    with pytest.raises(ConfigError, match=r"name|UTF-8"):
        parse({"given": [{"name": name, "path": "a.pt"}]})


@pytest.mark.parametrize("name", ["run{1}.pt", "{}", "{0}{x!r}", "a}b{", "ß/ü"])
def test_braces_in_a_name_are_text(name):
    assert parse({"given": [{"name": name, "path": "a.pt"}]}).given[0].name == name


def test_a_pipe_that_its_reader_has_closed_is_no_exit_of_own_code() -> None:
    """The message of ``ls | head -1`` blamed code of the user's."""
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError), open(write, "w", encoding="utf-8") as closed:
        PlainConsole(file=closed).print("a run")
