"""Docstrings as the site shows them: examples become code, where Markdown would see quotations in ``>>>``."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with every example, up to the next empty line, in a fence; the star of a shape [*K, D] stays one."""
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", text.replace("[*", r"[\*"))


class Examples(Extension):
    """Called by griffe with every object that it has read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Fence the examples of a docstring."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
