"""The page that puts studies side by side: one HTML file with no script and no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2
import pandas as pd
from markupsafe import Markup

from sublevel.foreign import plain, plain_all


def render(names: Sequence[str], tables: Mapping[str, tuple[str, pd.DataFrame]]) -> str:
    """The page as text. ``tables``: a sentence and the rows of each; an empty one gets a sentence in its place."""
    folder = files("sublevel.report") / "assets"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((folder / "side_by_side.html").read_text(encoding="utf-8"))
    return template.render(
        title=plain(" and ".join(names)),
        tables=[
            (title, says, plain_all(list(frame.columns)), plain_all(frame.to_numpy().tolist()))
            for title, (says, frame) in tables.items()
        ],
        style=Markup((folder / "side_by_side.css").read_text(encoding="utf-8")),
    )
