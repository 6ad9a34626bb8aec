"""The output of commands: plain text on standard output, also of untrusted origin."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sublevel.foreign import plain


class PlainConsole(Console):
    """A console whose text cannot move the cursor, ring or change colours: the text may be untrusted."""

    def on_broken_pipe(self) -> None:
        """Let the command end; rich would exit, as own code may."""
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments to show, with `sublevel.foreign.plain` text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


@cache
def console() -> Console:
    """Standard output."""
    return PlainConsole(highlight=False, soft_wrap=True)


def say(line: object, style: str | None = None) -> None:
    """Print a line or a table; its text is not markup."""
    text = str(line).replace("\n", "\\n") if isinstance(line, str | Exception) else line  # names may hold line ends
    console().print(text, markup=False, style=style)


def clock(seconds: float) -> str:
    """A length of time in words.

    >>> clock(75), clock(4000)
    ('1 min 15 s', '1 h 6 min')
    """
    s = max(round(seconds), 0)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"
