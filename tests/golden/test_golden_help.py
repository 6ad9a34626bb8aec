"""What every command says of itself, frozen: its words, its options and their defaults.

To freeze them anew, run this file as a script, and explain every line of the diff.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

from sublevel.cli import app

FROZEN = Path(__file__).with_name("help.txt")


def commands(of: App, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command below one: its name, what it says, and its options as an option of the shell has them."""
    yield f"== {' '.join(('sublevel', *path))}\n{inspect.cleandoc(of.help)}\n"
    if of.default_command is not None:
        for argument in of.assemble_argument_collection():
            default = argument.field_info.default
            said = f" = {default}" if default is not inspect.Parameter.empty else ""
            yield f"{', '.join(argument.names)}{said}: {inspect.cleandoc(argument.parameter.help or '')}\n"
    for name in sorted(n for n in of if not n.startswith("-")):
        yield from commands(of[name], (*path, name))


def test_the_help_of_every_command_is_the_same() -> None:
    assert "".join(commands(app)) == FROZEN.read_text(encoding="utf-8")


if __name__ == "__main__":
    FROZEN.write_text("".join(commands(app)), encoding="utf-8")
    sys.stdout.write(f"{FROZEN}\n")
