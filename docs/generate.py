"""What the site says from the code itself, so that it cannot go stale: tables, commands, keys, registries.

A page holds ``<!-- generated: NAME -->`` on a line of its own; while the site is built the text of that name takes its
place. mkdocs calls `on_page_markdown`; ``python docs/generate.py NAME`` prints one of them.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "src" / "sublevel" / "tables.py"
MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)

GENERATED: dict[str, Callable[[], str]] = {}
"""By name: what writes it, as Markdown."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its markers replaced; KeyError for a name that nothing writes."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), markdown)


def generated(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register what writes a text."""

    def register(write: Callable[[], str]) -> Callable[[], str]:
        GENERATED[name] = write
        return write

    return register


def rows(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), ["---"] * len(list(head)), *map(list, body)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def prose(text: str) -> str:
    """Words of a comment or a docstring as Markdown: one line, with code in single backticks."""
    return escape(" ".join(text.replace("``", "`").split()), quote=False)


def listed(words: Iterable[str]) -> str:
    """Names one after the other."""
    return ", ".join(f"`{word}`" for word in words)


def first(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return prose((inspect.getdoc(thing) or "").partition("\n\n")[0])


def attributes(source: str) -> dict[str, str]:
    """What the texts below a module's constants say of them."""
    said = {}
    for before, after in pairwise(ast.parse(source).body):
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            said[ast.unparse(before.targets[0])] = prose(str(after.value.value))
    return said


# --- The tables of a run, as they are declared.


@generated("tables")
def tables() -> str:
    """Every table with its columns and their meaning, those that identify a row above it."""
    import sublevel.study.result  # noqa: F401 - all tables are declared below it
    from sublevel.tables import PATH, SOLUTION, SPECTRUM, TABLES

    about = dict(_about_tables())
    shared = {"path": PATH, "spectrum": SPECTRUM, "solution": SOLUTION}
    parts = []
    for name, table in sorted(TABLES.items()):
        columns = tuple(table.columns)
        what = next((word for word, group in shared.items() if columns[: len(group)] == group), "")
        own = columns[len(shared[what]) :] if what else columns
        said = [(f"`{column}`", prose(table.columns[column])) for column in own if table.columns[column]]
        notes = f"{rows(('column', 'meaning'), said)}\n" if said else ""
        whose = f"Of a [{what}](#identifying-columns): {listed(shared[what])}.\n\n" if what else ""
        parts.append(f"## {name}\n\n{about[name]}\n\n{whose}Columns: {listed(own)}.\n\n{notes}")
    return "\n".join(parts)


def _about_tables() -> Iterator[tuple[str, str]]:
    """What the docstring below the declaration of every table says."""
    from sublevel.tables import TABLES

    names = {id(table): name for name, table in TABLES.items()}
    for module in [m for n, m in sys.modules.items() if n.startswith("sublevel.")]:
        here = {variable: names[id(value)] for variable, value in vars(module).items() if id(value) in names}
        said = attributes(inspect.getsource(module)) if here else {}
        yield from ((name, said[variable]) for variable, name in here.items() if variable in said)


@generated("identity")
def identity() -> str:
    """What the module says of the columns that identify a solution, a spectrum, a path."""
    said = attributes(SCHEMA.read_text(encoding="utf-8"))
    return "\n\n".join(said[name] for name in ("SOLUTION", "SPECTRUM", "PATH"))


# --- The notebooks of examples/, as they were run.


@generated("notebook-own-network")
def notebook_own_network() -> str:
    """``examples/own_network.ipynb``."""
    return notebook("own_network")


@generated("notebook-checkpoints")
def notebook_checkpoints() -> str:
    """``examples/checkpoints.ipynb``."""
    return notebook("checkpoints")


def notebook(name: str) -> str:
    """A notebook with its outputs as Markdown; pictures lie in the page itself."""
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_output(output) for output in cell.get("outputs", ())]
    whole = f"The notebook is `examples/{name}.ipynb`."
    return "\n\n".join([parts[0], whole, *(part for part in parts[1:] if part)])


def _output(output: Mapping[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="what the code above draws" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    text = "".join(data.get("text/html") or "").replace("\n", " ")
    plain = "".join(data.get("text/plain") or output.get("text", ""))
    return text if text and "<script" not in text else f"```text\n{plain.strip()}\n```" if plain.strip() else ""


# --- The commands.


@generated("commands")
def commands() -> str:
    """Every command with its options, as cyclopts documents them."""
    from sublevel.cli import app

    text = app.generate_docs(output_format="markdown")
    return "## " + text.partition("\n## sublevel ")[2].join(["sublevel ", ""])


# --- The keys of a study.


@generated("keys")
def keys() -> str:
    """The keys of a study and of its groups, with their defaults."""
    from sublevel.problem.spec import DataSpec, ModelSpec
    from sublevel.study.solutions import BranchSpec
    from sublevel.study.spec import GivenSpec, PlaceSpec, StudySpec
    from sublevel.train.recipe import Recipe

    groups = {"A study": StudySpec, "data": DataSpec, "model": ModelSpec, "branches": BranchSpec, "given": GivenSpec}
    groups |= {"run": PlaceSpec}
    parts = [_group(name, cls, cls.model_fields) for name, cls in groups.items()]
    return "\n".join([*parts, _group("train", Recipe, Recipe.__dataclass_fields__)])


@generated("blocks")
def blocks() -> str:
    """The blocks of ``geometry`` and the keys of each, with their defaults."""
    from sublevel.study.measurements.paths import InstabilitySpec
    from sublevel.study.options import Where
    from sublevel.study.spec import GeometrySpec

    inside = {"PathsSpec": {"geometry.paths.instability": InstabilitySpec}}
    parts = [_group("Which solutions (of most blocks)", Where, Where.model_fields)]
    for name, key in GeometrySpec.model_fields.items():
        cls = next(c for c in get_args(key.annotation) if isinstance(c, type))
        for path, each in {f"geometry.{name}": cls, **inside.get(cls.__name__, {})}.items():
            own = {k: v for k, v in each.model_fields.items() if k not in Where.model_fields or k == "seeds"}
            parts.append(_group(path, each, own if issubclass(each, Where) else each.model_fields))
    return "\n".join(parts)


def _group(name: str, cls: type, fields: Mapping[str, Any]) -> str:
    body = ((f"`{key}`", f"`{_default(field)}`") for key, field in fields.items())
    title = name if " " in name else f"`{name}`"
    about = prose((inspect.getdoc(cls) or "").partition("\n\nA field")[0])
    return f"### {title}\n\n{about}\n\n{rows(('key', 'default'), body)}\n"


def _default(field: Any) -> str:
    """A field's default as it reads best: text without its type."""
    made = getattr(field, "default_factory", None)
    value = made() if callable(made) else field.default
    if "Undefined" in repr(value) or "MISSING" in repr(value):
        return "required"
    if type(value).__name__ in ("DataSpec", "ModelSpec", "GeometrySpec", "PlaceSpec", "Recipe"):
        return "see below"
    if type(value).__name__ == "Where":
        return "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(_word(v) for v in value)}]"
    return _word(value)


def _word(value: object) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    return getattr(value, "name", None) or str(value) or '""'


# --- The registries.


@generated("branches")
def branches() -> str:
    """Every branch with its options."""
    from sublevel.study import branches  # noqa: F401 - registers them
    from sublevel.study.builder import BRANCHES, OPTIONS

    def options(name: str) -> str:
        return ", ".join(f"`{option} = {value!r}`" for option, value in OPTIONS[name].items())

    body = ((f"`{name}`", first(made), options(name)) for name, made in BRANCHES.items())
    return rows(("branch", "what it is", "options"), body)


@generated("scores")
def scores() -> str:
    """Every pruning criterion."""
    from sublevel.prune import SCORES

    return rows(
        ("criterion", "score; the lowest go first"), ((f"`{n}`", first(each.function)) for n, each in SCORES.items())
    )


@generated("models")
def model_names() -> str:
    """Every registered network."""
    from sublevel.models.registry import REGISTRY

    body = ((", ".join(f"`{n}`" for n in e.examples), first(e.builder)) for e in REGISTRY.values())
    return rows(("network", "what it is"), body)


@generated("sources")
def sources() -> str:
    """Every data source."""
    from sublevel.data import names
    from sublevel.data.sources import _SOURCES

    return rows(("source", "what it reads"), ((f"`{n}`", first(_SOURCES[n])) for n in names()))


@generated("claims")
def claims() -> str:
    """Every claim with its sentence."""
    from sublevel.claims.registry import registered

    return rows(("claim", "statement"), ((each.name, prose(each.statement)) for each in registered()))


@generated("calibration")
def calibration() -> str:
    """How often claims are supported on tables of a known truth, from the newest record."""
    record = json.loads(max((ROOT / "benchmarks" / "records").glob("*-calibration.json")).read_text(encoding="utf-8"))
    columns = {
        "at most supported on null tables": "worst share supported on null tables",
        "power, 3 seeds": "share supported at 2 sd, 3 seeds",
        "power, 5 seeds": "share supported at 2 sd, 5 seeds",
    }
    body = [[n, *(f"{100 * c[share]:.0f}%" for share in columns.values())] for n, c in record["claims"].items()]
    tables, error = record["tables of each kind"], 100 * record["standard error of a share of 5%"]
    mean = 100 * record["mean share supported on null tables with one part on its bound"]
    kinds = record["kinds of them"]
    return (
        f"{tables} tables of each kind; a share of 5% has a standard error of {error:.1f} points. On null tables with "
        f"one part on its bound a claim is supported in {mean:.1f}% on average over {kinds} kinds.\n\n"
        + rows(("claim", *columns), body)
    )


@generated("margins")
def margins() -> str:
    """What claims are judged by, with the values, from the attributes of sublevel.claims.margins."""
    from sublevel.claims import margins as fixed

    source = Path(inspect.getfile(fixed)).read_text(encoding="utf-8")
    body = ((f"`{name}`", f"`{getattr(fixed, name)!r}`", text) for name, text in attributes(source).items())
    return rows(("name", "value", "meaning"), body)


if __name__ == "__main__":
    print(GENERATED[sys.argv[1]]())
