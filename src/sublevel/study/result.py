"""A run on disk: its manifest, its tables, its points.

sublevel-runs/NAME/study.json     the resolved study, the store, and every cell with its key
sublevel-runs/NAME/tables/*.csv   the same study gives the same bytes
sublevel-runs/NAME/summary.json   versions, hardware, times
sublevel-runs/NAME/report.html, figures/
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

from sublevel.claims import claims, verdicts
from sublevel.display import Shown
from sublevel.engine.store import Store, canonical, digest
from sublevel.engine.store.address import resolved, trusted
from sublevel.errors import ConfigError, StoreError, SublevelError, unknown
from sublevel.files import write_text
from sublevel.foreign import csv_cell, opened, read_json
from sublevel.problem import Problem
from sublevel.problem.spec import ProblemSpec
from sublevel.space import Point
from sublevel.study import manifest
from sublevel.study.branches import about
from sublevel.study.cells import stored_point
from sublevel.study.machine import versions
from sublevel.study.named_code import check_trusted
from sublevel.study.tables import build
from sublevel.study.tickets import of_training
from sublevel.tables import TABLES, schemas
from sublevel.tickets import Ticket

if TYPE_CHECKING:
    import pandas as pd

    from sublevel.report.describe import Figure


LIVE: dict[str, Problem] = {}
"""The problems of this process's runs that no other process can build, by the folder of the run."""


class Result(Shown):
    """A finished run, read from its folder. ``result.levels`` is the table of that name; so for every table.

    Reading runs no code; `problem`, `identity` and `ticket` import the study's own network, loss and loop. ``trusted``
    are the import paths for which that is allowed (None: all).

    `problem`, points and tickets lie on one device, wherever the study ran: that of the Problem which a Study was given
    in Python, else the CPU.
    """

    def __init__(
        self, folder: str | Path, *, problem: Problem | None = None, trusted: Collection[str] | None = None
    ) -> None:
        self.folder, self._trusted = Path(folder), trusted
        self._problem = problem or LIVE.get(str(self.folder.resolve()))
        self.document = manifest.read(self.folder)

    @cached_property
    def store(self) -> Store:
        """The store of the results."""
        return Store(trusted(resolved(self.document["store"], self.folder), self.folder), create=False)

    @property
    def store_at(self) -> str:
        """The address of the store, which is not opened."""
        return resolved(self.document["store"], self.folder)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name (see ``sublevel.tables``)."""
        about = self.document["study"]
        with reading(f"the results of {self.folder}"):
            measured = build(self.document, self.store)
            return {**measured, "claims": claims(measured, about), "verdicts": verdicts(measured, study=about)}

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name in TABLES:
            return self.tables[name]
        raise AttributeError(f"a result has no {name!r}; its tables are {', '.join(TABLES)}")

    @cached_property
    def described(self) -> dict[str, Figure]:
        """The figures of the report by key, as descriptions that `sublevel.plot` draws."""
        from sublevel.report.figures import figures

        return {one.key: one for one in figures(self.tables).all}

    @property
    def figures(self) -> pd.DataFrame:
        """What the report shows: the key of each figure, its title, and the choices that it offers."""
        import pandas as pd

        rows = []
        for key, one in self.described.items():
            words = {word: dict.fromkeys(v.choice.get(word, "") for v in one.views) for word in one.views[0].choice}
            offered = "; ".join(f"{word}: {', '.join(found)}" for word, found in words.items() if len(found) > 1)
            rows.append({"figure": key, "title": one.title, "choices": offered})
        return pd.DataFrame(rows, columns=["figure", "title", "choices"]).set_index("figure")

    def figure(self, key: str, **how: Any) -> Any:
        """One figure of the report by its key, ``result.figure("accuracy", branch="imp")``; see `sublevel.plot`."""
        from sublevel import plot

        return plot.figure(cast("Any", self), key, **how)  # the checker takes a cached property for no property

    def _facts(self) -> dict[str, object]:
        cells = self.document["cells"]
        failed = sum(cell["status"] == "failed" for cell in cells)
        about = self.document["study"]
        return {
            "": about["name"],
            "network": (about.get("model") or {}).get("name") or "own",
            "data": (about.get("data") or {}).get("name") or "own",
            "branches": sorted({c["labels"]["branch"] for c in cells if c["kind"] in ("train", "given")}),
            "seeds": len({c["labels"]["seed"] for c in cells if c["kind"] in ("train", "given")}),
            "cells": f"{len(cells)}, {failed} failed" if failed else len(cells),
            "test error (%):": self._errors(),
            "report": os.path.relpath(self.folder / "report.html"),
        }

    def _errors(self) -> list[str]:
        """The mean test error of the dense networks and of each branch's sparsest level, with 90% t intervals."""
        from sublevel.report.numbers import estimate, percent
        from sublevel.report.prepare import over_seeds

        try:
            levels = self.tables["levels"]
        except SublevelError:
            return []
        means = over_seeds(levels, "test_error", ["branch", "level"], 100)
        left: Any = levels.groupby(["branch", "level"])["density"].mean()
        last = means.loc[means.groupby("branch")["level"].idxmax()].sort_values("level")
        return [
            branch + (f" at {percent(left[branch, level])}: " if level else " ") + estimate(*interval)
            for branch, level, *interval in last[["branch", "level", "mean", "low", "high"]].to_numpy().tolist()
        ]

    @property
    def failures(self) -> pd.DataFrame:
        """The cells that did not finish, with the reasons."""
        return self.tables["failures"]

    @cached_property
    def problem(self) -> Problem:
        """The problem of the study, built again; this imports the study's own code, if it has any."""
        if self._problem is not None:
            self._check_fits(self._problem)
            return self._problem
        if self.document["problem"] is None:
            raise ConfigError(
                "this run's network was defined in its own script or notebook and cannot be built from here; define it "
                f"again and pass it: sl.open({str(self.folder)!r}, problem=sl.Problem(...))"
            )
        check_trusted(self.document["problem"], self._trusted, f"the run in {self.folder}")
        with reading(f"the parts of the problem in {self.folder}"):
            spec = ProblemSpec.of({**self.document["problem"], "device": "cpu"})
            return Problem.of(spec, self.store.get_tensors)

    def _check_fits(self, problem: Problem) -> None:
        """ConfigError where a problem has other data or another number of parameters than the run."""
        about = self.document["about"]
        for what, here, there in (
            ("parameters", problem.space.dim, about["model"]["parameters"]),
            ("data", problem.splits.digest, about["data"]["digest"]),
        ):
            if here != there:
                raise ConfigError(f"the problem has other {what} than the run in {self.folder}: {here}, not {there}")

    @cached_property
    def identity(self) -> dict[str, Any] | None:
        """The problem's part of a cell's key, from its current code and data (see `Problem.fingerprint`)."""
        return self.problem.fingerprint()

    def point(self, branch: str = "dense", level: int = 0, seed: int = 0) -> Point:
        """The end point of a solution; level 0 of any branch is the dense one."""
        found = stored_point(self.store, self._end(self._training(branch, level, seed)))
        return found if self._problem is None else found.to(self._problem.device)

    def ticket(self, branch: str, level: int, seed: int = 0) -> Ticket:
        """A solution as a portable ticket: mask, start, end, recipe and provenance (see `sublevel.tickets`)."""
        entry = self._training(branch, level, seed)
        if "start" not in entry["inputs"]:
            raise ConfigError(f"{branch!r} was trained elsewhere, so its start is not known here")
        return of_training(self.document, self.problem, self.identity, self.store, entry, self._end(entry))

    @property
    def unfinished(self) -> list[dict[str, Any]]:
        """The cells that failed, that were skipped because of a failure, or that the time limit left."""
        return [cell for cell in self.document["cells"] if cell["status"] != "done"]

    def write(self, force: bool = False, *, figures: bool = True, views: str = "first") -> bool:
        """Write tables, summary, report and ``figures``, unless they are up to date; return whether they were written.

        ``views="all"`` writes every menu choice of every figure for print, ``"first"`` the first one.
        Raises StoreError if a folder of the run is a link, since the run may be untrusted.
        """
        keys = {cell["cell"]: [cell["key"], cell["status"]] for cell in self.document["cells"]}
        made_of = {"cells": keys, "study": self.document["study"], "versions": versions(), "figures": figures}
        state = digest(canonical(made_of))
        path = self.folder / "summary.json"
        for inside in (self.folder / "tables", self.folder / "figures"):
            if inside.is_symlink():
                raise StoreError(f"{inside} is a link, and nothing is written through it: remove it")
        if not force and self._written(path, state):
            return False
        for name, table in self.tables.items():
            write_text(self.folder / "tables" / f"{name}.csv", to_csv(table))
        summary = self.summary()
        summary |= {"written_with": versions()}
        self.report(self.folder / "report.html", summary, figures=figures, views=views)
        summary |= {"state": state, "files": self._digests()}
        write_text(path, json.dumps(summary, indent=1, sort_keys=True) + "\n")
        return True

    @property
    def files(self) -> list[str]:
        """The outputs that are checked against the summary."""
        return ["report.html", *(f"tables/{name}.csv" for name in TABLES)]

    def _written(self, summary: Path, state: str) -> bool:
        """Whether the outputs on disk are those of this state."""
        try:
            said = read_json(summary)
            same = said["files"] == self._digests()
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return same and said["state"] == state

    def _digests(self) -> dict[str, str]:
        found = {}
        for name in self.files:
            with opened(self.folder / name) as file:
                found[name] = digest(file.read())
        return found

    def summary(self) -> dict[str, Any]:
        """The study, its versions and hardware, and its run times, without this machine's folders."""
        d = self.document
        seconds = d["about"]["seconds"]
        branches = about(chosen["name"] for chosen in d["study"].get("branches", ()))
        return {
            "name": d["study"]["name"],
            "study": without_places(d["study"]),
            "numerics": d["numerics"],
            **d["about"],
            "branches": branches | d["about"].get("branches", {}),  # older runs do not say what theirs are
            "tables": schemas(),
            "seconds": {"total": round(sum(seconds["cells"].values()), 3), **seconds},
            "sublevel": versions()["sublevel"],
        }

    def report(
        self, path: str | Path, summary: dict[str, Any] | None = None, *, figures: bool = True, views: str = "first"
    ) -> Path:
        """Write the report as one HTML file, and its ``figures`` for print in a folder next to it."""
        from sublevel import report

        path = Path(path)
        try:
            tables = self.tables
            with reading(f"the results of {self.folder}"):
                about = summary or self.summary()
                return report.write(tables, about, path.parent, page=path.name, figures=figures, views=views)
        except OSError as error:
            raise StoreError(f"cannot write the report in {path.parent}: {error.strerror or error}") from error

    def _end(self, entry: Mapping[str, Any]) -> str:
        """The digest of a training's end point. Raises StoreError if its weights were released."""
        name = entry["objects"]["end"]
        if name in entry.get("released", ()):
            raise StoreError(
                "these weights were released (sublevel gc --weights); a run of the study with a measurement that needs "
                "them trains them again, to the same bits"
            )
        return name

    def _training(self, branch: str, level: int, seed: int) -> dict[str, Any]:
        trained = [c["labels"] for c in self.document["cells"] if c["kind"] in ("train", "given")]
        if branch not in (known := {labels["branch"] for labels in trained}):
            raise unknown("branch", branch, known, "this run")
        wanted = {"branch": branch if level else "dense", "level": level, "seed": seed}
        for cell in self.document["cells"]:
            if cell["kind"] in ("train", "given") and cell["labels"] in (wanted, wanted | {"branch": branch}):
                entry = self.store.read_entry(cell["key"]) if cell["key"] else None
                if entry is None or "failure" in entry:
                    why = cell.get("error", {}).get("message", "run the study again")
                    raise StoreError(f"there is no result for {cell['cell']}: {why}")
                return entry
        of = [labels for labels in trained if labels["branch"] == branch]
        levels, seeds = (", ".join(map(str, sorted({labels[name] for labels in of}))) for name in ("level", "seed"))
        raise ConfigError(
            f"no solution of branch {branch!r} at level {level} with seed {seed}: it has levels {levels}, seeds {seeds}"
        )


def without_places(value: Any) -> Any:
    """A document with each absolute path replaced by its last part, since a summary is published.

    >>> without_places({"data": {"root": "/home/ada/cifar10"}, "model": "hf:/models/bert", "loss": "nets:loss"})
    {'data': {'root': 'cifar10'}, 'model': 'hf:bert', 'loss': 'nets:loss'}
    """
    if isinstance(value, Mapping):
        return {name: without_places(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    if not isinstance(value, str):
        return value
    scheme, path = ("hf:", value[3:]) if value.startswith("hf:") else ("", value)
    kinds = (PurePosixPath(path), PureWindowsPath(path))
    return scheme + next((each.name for each in kinds if each.is_absolute()), path)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Read untrusted parts. Raises StoreError, with its cause, if they do not fit together."""
    try:
        yield
    except (SublevelError, OSError):
        raise
    except Exception as error:
        raise StoreError(f"{what} do not fit together: {type(error).__name__}: {error}") from error


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV: floats in their shortest exact form, undefined values empty, and no text that is a formula."""
    texts = [name for name in table if table[name].dtype.kind not in "biufc"]
    return table.assign(**{str(name): table[name].map(csv_cell) for name in texts}).to_csv(
        index=False, lineterminator="\n"
    )
