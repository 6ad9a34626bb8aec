"""Names of somebody else's in a page and its figures: files that are well formed, with nothing in them that acts."""

import xml.etree.ElementTree as ET

import synthetic

from sublevel.report import write

NAME = "a\x1b[2J\x00\ud800\u202e"


def test_figures_and_page_are_well_formed(tmp_path):
    made = synthetic.make(2, 2, ("imp",), curves=2)
    names = "levels", "legs", "paths", "profiles", "history", "spectra"
    tables = {name: made[name].assign(branch=made[name]["branch"].replace("imp", NAME)) for name in names}
    for name in ("paths", "profiles"):
        tables[name] = tables[name].query("path == 'successive'")
    page = write(tables, {**synthetic.summary(), "name": NAME}, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert not any(c in text for c in "\x1b\x00\u202e")
    assert r"a\x1b[2J" in text
    svgs = list((tmp_path / "figures").glob("*.svg"))
    assert svgs
    for svg in svgs:
        ET.fromstring(svg.read_text(encoding="utf-8"))
