"""A caption speaks of what its figure draws, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from sublevel.report.describe import Axis, Figure, Panel, PerSeed, Series, log_ticks, view
from sublevel.report.figures.coordinates import coordinates, slices
from sublevel.report.figures.curvature import spectra
from sublevel.report.figures.densities import estimates
from sublevel.report.figures.planes import persistence, planes
from sublevel.report.figures.registry import Make
from sublevel.report.figures.sweep import fractions
from sublevel.report.figures.volume import volumes
from sublevel.report.figures.volume_methods import by_method, compared
from sublevel.report.frame import Tables
from sublevel.report.palette import PLAIN
from sublevel.report.prepare import clean, seeds_note


def one(make: Make, tables: Tables) -> Figure:
    found = make(tables)
    assert isinstance(found, Figure)
    return found


def caption(figure: Figure) -> str:
    return " ".join([figure.title, figure.caution, figure.how, figure.trap, *figure.notes]).lower()


CASES = {
    "fractions": (fractions, "paths", {"path": "none"}, ["barrier"]),
    "estimates": (estimates, "estimates", {"quantity": "trace"}, ["log-determinant", "learning", "chains"]),
    "coordinates": (coordinates, "coordinates", {"set": "pruned"}, ["steepest", "random", "keeps"]),
    "slices": (slices, "slices", {"set": "steepest"}, ["random", "unit vector"]),
    "planes": (planes, "planes", {"kind": "through"}, ["random directions"]),
    "persistence": (persistence, "persistence", {"dimension": 0.0}, ["ring"]),
}


@pytest.mark.parametrize("key", CASES)
def test_a_caption_does_not_speak_of_what_is_left_out(key, tables):
    make, name, equal, words = CASES[key]
    ready = clean(tables)
    whole, part = caption(one(make, ready)), ready[name]
    for column, value in equal.items():
        part = part[part[column] == value]
    less = caption(one(make, ready | {name: part}))
    assert [w for w in words if w not in whole] == []
    assert [w for w in words if w in less] == []


def test_every_figure_with_hollow_points_says_what_they_are(drawn):
    hollow = [f for f in drawn.all if any(any(s.hollow) for v in f.views for p in v.panels for s in p.series)]
    assert len(hollow) >= 3
    assert [f.key for f in hollow if "hollow" not in caption(f)] == []


def test_eigenvalues_that_had_not_converged_are_explained(tables):
    ready = clean(tables)
    loose = ready["spectra"].assign(converged=0.0)
    assert "hollow eigenvalues had not converged" in caption(one(spectra, ready | {"spectra": loose}))
    assert "hollow" not in caption(one(spectra, ready | {"spectra": loose.assign(converged=1.0)}))


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([2, 2], "Means over seeds (n = 2), without intervals: 3 seeds make one; single seeds are faint dots."),
        (
            [2, 4],
            "Means over seeds with 90% t intervals (n = 2 to 4, none below 3 seeds); single seeds are faint dots.",
        ),
        ([3, 3], "Means over seeds with 90% t intervals (n = 3); single seeds are faint dots."),
    ],
)
def test_an_interval_is_named_where_it_is_drawn(seeds, words):
    rows = [{"branch": "imp", "level": level, "seed": s} for level, n in enumerate(seeds) for s in range(n)]
    assert seeds_note(pd.DataFrame(rows)) == words


def test_a_figure_without_one_reliable_volume_says_so_above_it(tables):
    ready = clean(tables)
    mixed = one(volumes, ready)
    doubted = one(volumes, ready | {"volumes": ready["volumes"].assign(reason="a saddle")})
    assert mixed.caution == ""
    assert doubted.caution.startswith("None of the ")
    assert "mostly: a saddle. Draw no conclusion" in doubted.caution
    assert "unreliable (hollow markers)" not in " ".join(doubted.notes)


def test_one_volume_of_one_network_compares_nothing(tables):
    ready = clean(tables)
    table = ready["volumes"]
    method, eps = table["method"].iloc[0], table["eps"].iloc[0]
    alone = ready | {"volumes": table[(table["method"] == method) & (table["eps"] == eps)]}
    assert one(by_method, alone).views
    assert one(compared, alone).views == []
    assert one(compared, ready).views


def test_an_axis_of_shares_that_are_all_zero_has_no_negative_ones():
    line = Series(label="imp", x=[0.0, 1.0], y=[0.0, 0.0], style=PLAIN)
    (flat,) = view([Panel(title="Error (%)", x=Axis(), y=Axis(share=True), series=[line])]).panels
    assert flat.y.limits == (-0.02, 1.0)
    (risen,) = view([Panel(title="", x=Axis(), y=Axis(share=True), series=[replace(line, y=[0.0, 2.0])])]).panels
    assert risen.y.limits is None


@pytest.mark.parametrize("values", [[0.228], [5.1, 16.2], [0.31, 0.99], [1.1, 1.9], [0.458, 9.44], [1e-6, 1e3]])
def test_a_logarithmic_axis_has_two_ticks_in_its_range(values):
    room = 10 if len(values) == 1 else 1
    ticks = [v for v, _ in log_ticks(values) if min(values) / room <= v <= max(values) * room]
    assert len(ticks) >= 2


def test_single_seeds_have_their_place_on_a_logarithmic_axis():
    seeds = PerSeed(seed=[0, 1], at=[0, 0], y=[0.05, 20.0], geometric=True, dots=True)
    mean = Series(label="imp", x=[1.0, 2.0], y=[1.0, 2.0], style=PLAIN, samples=seeds)
    (panel,) = view([Panel(title="", x=Axis(), y=Axis(log=True), series=[mean])]).panels
    ticks = [v for v, _ in panel.y.ticks]
    assert min(ticks) < 0.1
    assert max(ticks) >= 20
