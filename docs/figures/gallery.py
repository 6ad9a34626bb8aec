"""Draw the pictures of the gallery by the code of its page: the last expression of each snippet is one.

python docs/figures/gallery.py
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import sublevel.plot

DOCS = Path(__file__).parent.parent
SECTION = re.compile(r"!\[[^\]]*\]\(figures/gallery/([\w-]+)\.png\)\n\n```python\n(.*?)```", re.DOTALL)


def main() -> None:
    """Run the page from top to bottom, and save what each section draws."""
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("small_net.py").write_text(re.findall(r'```python title="small_net.py"\n(.*?)```', page, re.DOTALL)[0])
        sys.path.insert(0, folder)
        exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
        sublevel.plot.use("matplotlib")
        for name, code in SECTION.findall(page):
            *before, last = ast.parse(code).body
            assert isinstance(last, ast.Expr)
            drawn = ast.Assign([ast.Name("canvas", ast.Store())], last.value)
            exec(compile(ast.fix_missing_locations(ast.Module([*before, drawn], [])), name, "exec"), names)
            canvas: Any = names["canvas"]
            canvas.savefig(DOCS / "figures" / "gallery" / f"{name}.png", dpi=110, metadata={"Software": None})
            print(name, canvas)


if __name__ == "__main__":
    main()
