"""Figures of what the library returns: one function for each picture, the same as in the report.

    sl.plot.plane(mesh)                                    # a plotly figure
    sl.plot.plane(mesh, backend="matplotlib")              # a matplotlib one, for a paper
    sl.plot.spectrum({"dense": one, "ticket": other})      # several objects of a kind in one figure
    sl.plot.plane(result, seed=0, view="surface")          # from a finished run, with the choices of its report

Every function takes ``backend`` (``plotly`` or ``matplotlib``), ``ax`` (a matplotlib axes, or one for each panel; it
chooses that backend), ``panel`` (the beginning of a panel's title: only this one is drawn), ``caption`` (True: how to
read the figure, below it), and the choices of the figure by name. It returns the figure: a
``plotly.graph_objects.Figure`` or a ``matplotlib.figure.Figure``. Raises ConfigError for what cannot be drawn or
chosen.

>>> import torch, sublevel as sl
>>> tree = sl.topology.disconnectivity({"a": 0.1, "b": 0.2}, {("a", "b"): 0.5})
>>> sl.plot.tree(tree).layout.title.text
'<b>The disconnectivity graph</b>'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sublevel.errors import ConfigError, unknown
from sublevel.plot.choose import chosen, described

if TYPE_CHECKING:
    import pandas as pd

    from sublevel.report.describe import Figure

__all__ = [
    "accuracy", "draw", "eigenvalues", "figure", "masks", "path", "persistence", "plane", "profile", "spectrum",
    "surface", "tree", "use", "volumes",
]  # fmt: skip

BACKENDS = ("plotly", "matplotlib")
_default = BACKENDS[0]


MEASURED = {
    "planes": "planes", "landscape": "planes", "persistence": "planes", "densities": "density", "spectra": "spectra",
    "eigenvalues": "spectra", "disconnectivity": "topology", "slices": "coordinates", "volume": "volumes",
    "paths": "paths",
}  # fmt: skip
"""The measurement that a figure is made of, by the beginning of its key."""

CHECKPOINTS = {
    "accuracy": "checkpoints-accuracy",
    "densities": "checkpoints-densities",
    "spectra": "checkpoints-eigenvalues",
    "volume-methods": "checkpoints-volumes",
}
"""What the report of checkpoints from elsewhere has in place of a figure of a study."""


def use(backend: str) -> None:
    """Draw by this back end from now on where a call names none.

    Raises ConfigError for an unknown back end.
    """
    global _default
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    _default = backend


@runtime_checkable
class HasTables(Protocol):
    """A finished run, with its tables and the figures that they make."""

    @property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Its tables by name."""
        ...

    @property
    def described(self) -> Mapping[str, Figure]:
        """The figures of its report by key."""
        ...


def draw(of: Any, **how: Any) -> Any:
    """The figure that belongs to the type of an object: what its method ``plot`` returns.

    Of a result it is the accuracy against sparsity; a list or a mapping takes the type of its first member.
    """
    from sublevel.plot.objects import PLOTS, named, rows

    if isinstance(of, HasTables):
        return accuracy(of, **how)
    first = next(iter(named(of).values()), None)
    name = next((plot for kind, plot in PLOTS.items() if isinstance(first, kind)), "")
    return globals()[name](of, **how) if name else rows(first, "", 0)


def figure(result: HasTables, key: str, **how: Any) -> Any:
    """One figure of a report by its key (``result.figures`` lists them), with its choices as keywords."""
    known = result.described
    block = next((needed for begins, needed in MEASURED.items() if key.startswith(begins)), "")
    if block and not any(name.startswith(key.partition("-")[0]) for name in known):
        raise ConfigError(
            f"this run measured nothing for the figure {key!r}: add geometry = {{{block!r}: {{...}}}} to its study, or "
            "give the plot an object of the library in place of the result"
        )
    if key not in known:
        raise unknown("figure", key, known, "the report of this run")
    return _drawn(known[key], **how)


def plane(of: Any, *, level: float | None = None, **how: Any) -> Any:
    """Loss and error on a plane as contours, of a `Plane`, a `Mesh` or a result; ``level`` draws its sublevel set.

    Of a result without a choice: the plane through the dense network and two tickets.
    """
    if isinstance(of, HasTables):
        first = "landscape" if "landscape" in of.described and not {"plane", "seed"} & set(how) else "planes"
        return figure(of, first, **{"view": "contour", **how})
    return _of(of, "planes", level=level, **{"view": "contour", "panel": "Train loss", **how})


def surface(of: Any, **how: Any) -> Any:
    """A plane as a surface in three dimensions, of the same objects as `plane`."""
    return plane(of, **{"view": "surface", **how})


def spectrum(of: Any, **how: Any) -> Any:
    """The density of all eigenvalues with the Ritz values behind it, of a `SpectralDensity` or a result."""
    return _either(of, "densities", **how)


def eigenvalues(of: Any, **how: Any) -> Any:
    """The ends of the spectrum by index, of a `Spectrum` or a result; hollow points have not converged."""
    return _either(of, "spectra", **how)


def path(of: Any, path: str = "", **how: Any) -> Any:
    """Loss and error along a path, of a `Profile`, a `Connection` or a result.

    Of a result ``path`` is the kind: ``successive``, ``to-dense``, ``from-start``, ... (the first that was measured).
    """
    if isinstance(of, HasTables):
        first = next((k for k in of.described if k.startswith(("paths-", "checkpoints-profiles"))), "paths-successive")
        return figure(of, f"paths-{path}" if path else first, **how)
    return _of(of, "profiles", **how)


def tree(of: Any, **how: Any) -> Any:
    """The disconnectivity graph, of a `MergeTree` or a result."""
    return _either(of, "disconnectivity", **how)


def persistence(of: Any, **how: Any) -> Any:
    """Birth against death of basins and rings, of a `Persistence` or a result."""
    return _either(of, "persistence", **how)


def profile(of: Any, **how: Any) -> Any:
    """Loss and error along a direction, of a `Line` or a result."""
    return _either(of, "slices", **how)


def volumes(of: Any, **how: Any) -> Any:
    """Effective radius and log volume over the height, of `Volume`s (a sweep, or several methods by name) or a result.

    ``{"logdet": sweep, "radial": sweep}`` draws a line for each sweep.
    """
    return _either(of, "volume-methods", **how)


def accuracy(of: Any, **how: Any) -> Any:
    """Error and loss against the share of the weights that remains, of a result."""
    return _either(of, "accuracy", **how)


def masks(of: Any, **how: Any) -> Any:
    """The share of the weights that a mask leaves in each layer, of a `Ticket`, several, or a result."""
    return _either(of, "layers", **how)


def _either(of: Any, key: str, **how: Any) -> Any:
    if not isinstance(of, HasTables):
        return _of(of, key, **how)
    other = CHECKPOINTS.get(key, key)
    return figure(of, other if other in of.described else key, **how)


def _of(of: Any, key: str, *, level: float | None = None, **how: Any) -> Any:
    return _drawn(described(of, key, level=level), **how)


def _drawn(
    one: Figure, *, backend: str = "", ax: Any = None, panel: str = "", caption: bool = False, **choice: Any
) -> Any:
    """The chosen view of a described figure by a back end."""
    backend = backend or (_default if ax is None else "matplotlib")
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if ax is not None and backend != "matplotlib":
        raise ConfigError("ax is an axes of matplotlib: it does not go with backend='plotly'")
    view, title = chosen(one, choice, panel)
    text = " ".join(filter(None, (one.caution, one.how, one.trap))) if caption else ""
    if backend == "plotly":
        from sublevel.plot.plotly_figure import drawn

        return drawn(view, title, one.columns, text)
    from sublevel.report.render_mpl import draw_on, shown

    return shown(view, title, one.columns, text) if ax is None else draw_on(ax, view)
