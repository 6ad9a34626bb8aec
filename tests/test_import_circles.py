"""No file imports itself by way of others, imports inside functions and for types alone included."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"


def imports() -> dict[str, set[str]]:
    """For every module, those of the package that it imports somewhere."""
    files = {
        ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SRC.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= names & files.keys() or {str(node.module)}
        found[module] = wanted & files.keys() - {module}
    return found


def circular(graph: dict[str, set[str]]) -> set[str]:
    """The modules from which a way of imports leads back to them."""
    found = set()
    for module in graph:
        todo, seen = [module], set[str]()
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        found |= {module} & seen
    return found


def test_circles_are_seen() -> None:
    assert circular({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {"b", "c"}


def test_no_file_is_in_a_circle() -> None:
    assert not circular(imports())


def test_the_engine_imports_nothing_that_knows_science() -> None:
    allowed = {f"sublevel.{name}" for name in ("cache", "errors", "files", "foreign", "processes")}
    for module, found in imports().items():
        if module.startswith("sublevel.engine"):
            outside = {name for name in found if not name.startswith("sublevel.engine")}
            assert outside <= allowed, module
