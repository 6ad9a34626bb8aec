"""The figures of docs/geometry.md: each shows one fact about an estimator, on a case whose answer is known.

    python docs/figures/geometry.py            # all of them, into this folder
    python docs/figures/geometry.py ring wells # some

Seeds are fixed, and the same versions of matplotlib, numpy and torch write the same bytes. One core, under a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import log
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sublevel.field import Autograd, EveryExample, Quadratic
from sublevel.geometry.curvature import hessian, log_determinant_of, spectral_density
from sublevel.geometry.curvature.lanczos import lanczos
from sublevel.geometry.paths import connected, segment
from sublevel.geometry.topology import disconnectivity
from sublevel.geometry.volume import Volume, ellipsoid, learning_coefficient, log_volume, sweep
from sublevel.rng import generator

HERE = Path(__file__).parent
F64 = torch.float64

BLUE, RED, GREEN, ORANGE, GREY, BLACK = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#767676", "#222222"
"""From Okabe and Ito's palette; shape and dash repeat every distinction."""

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#dddddd", "grid.linewidth": 0.5, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.minor.size": 0, "ytick.minor.size": 0, "lines.linewidth": 1.3,
    "lines.markersize": 4, "legend.frameon": False, "legend.fontsize": 7.5, "figure.dpi": 100,
    "svg.hashsalt": "sublevel", "svg.fonttype": "path", "axes.unicode_minus": True, "text.usetex": False,
}  # fmt: skip
HEIGHT = 2.7
"""Inches."""

Draw = Callable[[], Figure]
FIGURES: dict[str, Draw] = {}
"""By name: what draws it."""


def figure(name: str) -> Callable[[Draw], Draw]:
    """Register what draws a figure."""

    def register(draw: Draw) -> Draw:
        FIGURES[name] = draw
        return draw

    return register


def save(name: str, folder: Path = HERE) -> Path:
    """Draw one figure and write it as ``folder/name.svg``."""
    path = folder / f"{name}.svg"
    with mpl.rc_context(STYLE):
        FIGURES[name]().savefig(path, metadata={"Date": None})
    return path


def panels(*titles: str, width: float, below: str | None = None) -> tuple[Figure, list[Axes]]:
    """A row of panels with their titles."""
    canvas = Figure(figsize=(width, HEIGHT), layout="constrained")
    axes = list(canvas.subplots(1, len(titles), squeeze=False)[0])
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        if below is not None:
            ax.set_xlabel(below)
    return canvas, axes


# --- Curvature.


def hessian_like(n: int = 3000) -> torch.Tensor:
    """A few large eigenvalues over a bulk that falls by nine decades, a tenth of it negative and small."""
    bulk = torch.logspace(-8, -1, n - n // 10 - 10, dtype=F64)
    return torch.cat([torch.logspace(0, 2, 10, dtype=F64), bulk, -torch.logspace(-8, -3, n // 10, dtype=F64)])


@figure("spectrum")
def spectrum() -> Figure:
    """A density against the exact one, and a log-determinant that damping decides, with what the rule misses of it."""
    canvas, (left, middle, right) = panels(
        "Density, 8 probes of 40 steps", "Log-determinant [nats]", "Quadrature error [nats]", width=8.4
    )
    _density(left)
    values = hessian_like()
    at = torch.zeros(len(values), dtype=F64)
    deltas = np.logspace(-7, 0, 15)
    exact = [float(np.log(np.maximum(values.numpy(), 0) + delta).sum()) for delta in deltas]
    middle.plot(deltas, exact, color=GREY, label="exact")
    drawn = [hessian(Quadratic(values), at).draw(0, i, stream="probe:quadrature").numpy() for i in range(8)]
    for steps, colour, marker in ((30, RED, "s"), (120, BLUE, "o")):
        found = spectral_density(Quadratic(values), at, probes=8, steps=steps)
        seen = [log_determinant_of(found, delta) for delta in deltas]
        middle.plot(deltas, [e.value for e in seen], marker, color=colour, fillstyle="none", label=f"{steps} steps")
        truth = [np.mean([_of_probe(values.numpy(), v, delta) for v in drawn]) for delta in deltas]
        error = np.array([e.value for e in seen]) - truth
        right.plot(deltas, error, color=colour, linewidth=0.8)
        for e, delta, missed in zip(seen, deltas, error, strict=True):
            right.plot(delta, missed, marker, color=colour, fillstyle=_fill(e.reason))
    right.plot([], [], "o", color=GREY, fillstyle="none", label="flagged in reason")
    right.plot([], [], "o", color=GREY, label="not flagged")
    right.set_yscale("symlog", linthresh=1)
    for ax in (middle, right):
        ax.set_xscale("log")
        ax.set_xlabel("damping δ")
        ax.legend()
    return canvas


def _of_probe(values: np.ndarray, v: np.ndarray, delta: float) -> float:
    """What the quadrature of one probe would give without an error of its own."""
    return float(len(v) * (v**2 @ np.log(np.maximum(values, 0) + delta)) / (v @ v))


def _density(ax: Axes) -> None:
    n, width = 600, 0.06
    bulk = np.cos(np.pi * (np.arange(n - 4) + 0.5) / (n - 4))
    values = np.concatenate([0.6 * bulk + 0.3, [1.8, 2.5, 2.5, 3.6]])
    grid = np.linspace(-0.8, 4.1, 250)
    exact = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
    found = spectral_density(Quadratic(torch.from_numpy(values)), torch.zeros(n, dtype=F64), probes=8, steps=40)
    seen = found.density(grid, width)
    low = np.maximum(seen.density - 2 * seen.se, 1e-6)
    ax.fill_between(grid, low, seen.density + 2 * seen.se, color=BLUE, alpha=0.25, linewidth=0)
    ax.plot(grid, seen.density, color=BLUE, label="quadrature ± 2 se")
    ax.plot(grid, exact, "--", color=BLACK, linewidth=1, label="exact")
    ax.set(yscale="log", ylim=(1e-3, 3), xlabel="eigenvalue")
    ax.legend()


@figure("ghosts")
def ghosts() -> Figure:
    """Ritz values of the plain recurrence in float32, and of the reorthogonalised one, over the steps."""
    values = torch.cat([torch.tensor([100.0, 50.0, 25.0, 12.0, 6.0]), torch.logspace(-4, 0, 600)])
    start = torch.randn(len(values), generator=generator(0, "probe:figure"))
    bases = {
        "Plain recurrence, float32": _plain(values, start, 80),
        "Reorthogonalised twice, float32": lanczos(lambda v: values * v, start, steps=80).basis,
    }
    canvas, axes = panels(*bases, "Loss of orthogonality", width=8.4, below="step")
    for ax, basis, colour, marker in zip(axes, bases.values(), (RED, BLUE), ("s", "o"), strict=False):
        for value in values[:5]:
            ax.axhline(float(value), color=GREY, linewidth=0.6)
        for line in _ritz_over_steps(basis, values):
            ax.plot(range(1, len(line) + 1), line, color=colour, linewidth=0.9)
        ax.set(yscale="log", ylim=(3, 200), ylabel="Ritz values above 3")
        gram = (basis.double() @ basis.double().T).numpy() - np.eye(len(basis))
        worst = [np.abs(gram[: m + 1, : m + 1]).max() for m in range(1, len(basis))]
        axes[2].plot(range(2, len(basis) + 1), worst, color=colour, marker=marker, markevery=10)
    axes[2].set(yscale="log", ylabel="largest |VᵀV - 1|")
    return canvas


def _plain(values: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
    """The basis of the three-term recurrence, as textbooks write it."""
    rows, v, before, beta = [], start / start.norm(), torch.zeros_like(start), torch.zeros(())
    for _ in range(steps):
        rows.append(v)
        w = values * v - beta * before
        w = w - (w @ v) * v
        beta = w.norm()
        before, v = v, w / beta
    return torch.stack(rows)


def _ritz_over_steps(basis: torch.Tensor, values: torch.Tensor) -> np.ndarray:
    """The i-th largest eigenvalue [i, steps] of the tridiagonal part of V A V^T, the recurrence's own matrix."""
    rows = basis.double().numpy()
    full = rows * values.double().numpy() @ rows.T
    found = np.diag(np.diag(full)) + np.diag(np.diag(full, 1), 1) + np.diag(np.diag(full, 1), -1)
    lines = np.full((25, len(rows)), np.nan)
    for m in range(1, len(rows) + 1):
        top = np.linalg.eigvalsh(found[:m, :m])[::-1][:25]
        lines[: len(top), m - 1] = np.where(top > 3, top, np.nan)
    return lines[~np.isnan(lines).all(axis=1)]


# --- Paths and topology.


@figure("ring")
def ring() -> Figure:
    """Two points of a ring: the segment crosses the hill, a curve stays in the sublevel set."""
    field = Autograd(lambda x: (x.norm() - 1) ** 2, 2)
    a, b = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([-1.0, 0.0], dtype=F64)
    found = connected(field, a, b, 0.05)
    straight = segment(field, a, b, refine=4)
    canvas, (left, right) = panels("L(θ) = (|θ| - 1)²", "Loss along both", width=6.6)
    _contours(left, field, np.linspace(-1.5, 1.5, 61), [0.05, 0.2, 0.4, 0.6, 0.8])
    curve = np.array([found.path.at_length(s).theta.tolist() for s in np.linspace(0, 1, 61)])
    left.plot([1, -1], [0, 0], "--", color=RED)
    left.plot(*curve.T, color=BLUE)
    left.plot([1, -1], [0, 0], "o", color=BLACK)
    left.set_aspect("equal")
    right.plot(
        straight.alphas, straight.loss, "s--", color=RED, markersize=3, label=f"segment, max {found.segment:.2f}"
    )
    label = f"Bezier curve, max {found.lowest_maximum:.3f}"
    right.plot(found.profile.alphas, found.profile.loss, "o-", color=BLUE, markersize=3, label=label)
    right.axhline(found.threshold, color=GREY, linewidth=1, linestyle=":", label=f"threshold {found.threshold:g}")
    right.set(xlabel="share of the length", ylabel="loss", ylim=(-0.03, 1.45))
    right.legend()
    return canvas


def _contours(ax: Axes, field: Autograd, grid: np.ndarray, levels: list[float], rows: np.ndarray | None = None) -> None:
    ys = grid if rows is None else rows
    loss = [[field.loss(torch.tensor([x, y], dtype=F64)) for x in grid] for y in ys]
    lines = ax.contour(grid, ys, loss, levels=levels, colors=GREY, linewidths=0.6)
    ax.clabel(lines, fontsize=6)
    ax.grid(visible=False)


CENTERS = {"a": (-1.8, 0.0), "b": (0.0, 1.3), "c": (1.8, 0.0), "d": (0.2, -2.3)}
DEPTHS = {"a": 1.0, "b": 0.7, "c": 0.9, "d": 0.8}
HILL = (0.95, 0.85), 0.3
"""A hill on the straight way from b to c, and its width: the true pass goes around it."""
SADDLES = {"ab": (-0.9, 0.8), "bc": (0.62, 0.45), "ad": (-0.8, -1.1), "cd": (1.0, -1.2)}
"""Where Newton's method starts."""


@figure("wells")
def wells() -> Figure:
    """Four wells: segments between all pairs, and the merge tree that their maxima make, against the true saddles."""
    field = _landscape()
    at = {name: _critical(field, place) for name, place in CENTERS.items()}
    saddles = {pair: _critical(field, place) for pair, place in SADDLES.items()}
    pairs = [(i, j) for i in at for j in at if i < j]
    joins = {(i, j): segment(field, at[i], at[j], refine=4).barrier().maximum for i, j in pairs}
    tree = disconnectivity({name: field.loss(point) for name, point in at.items()}, joins)
    canvas, (left, right) = panels("Wells, saddles, and the segments of the tree", "Disconnectivity graph", width=7.2)
    _contours(
        left, field, np.linspace(-3, 3, 61), [-0.9, -0.7, -0.5, -0.4, -0.3, -0.2, -0.1], np.linspace(-3.3, 2.3, 57)
    )
    used = {node.height for node in tree.nodes if node.children}
    for (i, j), top in joins.items():
        style = {"color": BLUE} if top in used else {"color": RED, "linestyle": "--", "linewidth": 0.9}
        left.plot(*torch.stack([at[i], at[j]]).T, **style)
    for name, point in at.items():
        left.plot(*point, "o", color=BLACK)
        left.annotate(name, point.tolist(), xytext=(4, 4), textcoords="offset points")
    for point in saddles.values():
        left.plot(*point, "x", color=GREEN, markersize=6)
    left.set_aspect("equal")
    for line in tree.layout()[1]:
        right.plot([line.x0, line.x1], [line.y0, line.y1], color=BLUE)
    for name, x in tree.layout()[0].items():
        right.annotate(name, (x, field.loss(at[name])), xytext=(0, -9), textcoords="offset points", ha="center")
    for pair, point in saddles.items():
        right.axhline(field.loss(point), color=GREEN, linewidth=0.8, linestyle="--")
        right.annotate(f"saddle {pair}", (3.4, field.loss(point)), fontsize=6.5, va="bottom", color=GREEN)
    right.set(ylabel="loss", xticks=[], xlim=(-0.4, 4.1), ylim=(-1.12, 0))
    right.grid(visible=False)
    return canvas


def _landscape() -> Autograd:
    middle, depth = torch.tensor(list(CENTERS.values()), dtype=F64), torch.tensor(list(DEPTHS.values()), dtype=F64)
    top, width = torch.tensor(HILL[0], dtype=F64), HILL[1]

    def loss(x: torch.Tensor) -> torch.Tensor:
        holes = (depth * torch.exp(-(x - middle).square().sum(dim=1) / 1.28)).sum()
        return 0.2 * torch.exp(-(x - top).square().sum() / (2 * width**2)) - holes

    return Autograd(loss, 2)


def _critical(field: Autograd, near: tuple[float, float]) -> torch.Tensor:
    """The stationary point that Newton's method finds from ``near``."""
    x = torch.tensor(near, dtype=F64)
    for _ in range(30):
        x = x - torch.linalg.solve(field.hvp(x, torch.eye(2, dtype=F64)), field.grad(x))
    return x


# --- Volumes.


@figure("radial")
def radial() -> Figure:
    """On an anisotropic quadratic plain rays fall short by the same nats at every height; rays that follow H do not."""
    n, radius = 100, 1e6
    canvas, (left, right) = panels("n = 100, three decades: log V [nats]", "Shortfall [nats], eps = 0.1", width=7.2)
    heights = np.logspace(-3, 1, 5).tolist()
    field, at, values = _anisotropic(n, 3.0)
    methods = {
        "radial, 1000 rays": ("radial", {"radius": radius, "samples": 1000}, RED, "s"),
        "importance, k = 20, 100 rays": ("importance", {"radius": radius, "k": 20, "samples": 100}, ORANGE, "D"),
        "importance, P = H^(-1/2), 60 rays": (
            "importance",
            {"radius": radius, "preconditioner": values**-0.5, "samples": 60},
            BLUE,
            "o",
        ),
    }
    truth = [ellipsoid(sorted(values.tolist(), reverse=True), [0.0] * n, eps=eps).log_volume for eps in heights]
    left.plot(heights, truth, color=GREY, label="exact: slope n/2")
    for label, (method, options, colour, marker) in methods.items():
        seen = sweep(field, at, method=method, eps=heights, **options)
        for v in seen:
            left.plot(v.eps, v.log_volume, marker, color=colour, fillstyle=_fill(v.reason))
        left.plot([], [], marker, color=colour, label=label)
    left.set(xscale="log", xlabel="eps")
    left.legend(fontsize=6.5)
    for label, (method, options, colour, marker) in methods.items():
        decades = np.linspace(0, 3, 7)
        short = [_shortfall(n, d, method, options) for d in decades]
        right.plot(decades, [s for s, _ in short], color=colour, linewidth=0.8)
        for d, (s, v) in zip(decades, short, strict=True):
            right.plot(d, s, marker, color=colour, fillstyle=_fill(v.reason))
        right.plot([], [], marker, color=colour, label=label)
    right.plot([], [], "o", color=GREY, fillstyle="none", label="hollow: flagged in reason")
    right.set(xlabel="decades between the largest and the smallest eigenvalue")
    right.legend(fontsize=6.5)
    return canvas


def _anisotropic(n: int, decades: float) -> tuple[Quadratic, torch.Tensor, torch.Tensor]:
    values = torch.logspace(-decades / 2, decades / 2, n, dtype=F64)
    return Quadratic(values), torch.zeros(n, dtype=F64), values


def _shortfall(n: int, decades: float, method: str, options: dict) -> tuple[float, Volume]:
    field, at, values = _anisotropic(n, decades)
    options = options | ({"preconditioner": values**-0.5} if "preconditioner" in options else {})
    found = log_volume(field, at, method=method, eps=0.1, **options)
    exact = ellipsoid(sorted(values.tolist(), reverse=True), [0.0] * n, eps=0.1).log_volume
    return exact - found.log_volume, found


@figure("dimensions")
def dimensions() -> Figure:
    """A quadratic in R^1000 and its slice in 100 coordinates: which has more volume depends on eps alone."""
    dense = torch.logspace(1, -4, 1000, dtype=F64).tolist()
    sparse = dense[::10]
    heights = np.logspace(-3, 3, 25)
    seen = {n: [ellipsoid(v, [0.0] * len(v), eps=eps) for eps in heights] for n, v in ((1000, dense), (100, sparse))}
    canvas, (left, right) = panels(
        "log V₁₀₀₀ - log V₁₀₀ [nats]", "Effective radius (V/ω)^(1/n)", width=6.6, below="eps"
    )
    difference = np.array([a.log_volume - b.log_volume for a, b in zip(seen[1000], seen[100], strict=True)])
    left.axhline(0, color=BLACK, linewidth=0.8)
    left.fill_between(heights, difference, 0, where=difference >= 0, color=BLUE, alpha=0.2, linewidth=0)
    left.fill_between(heights, difference, 0, where=difference <= 0, color=RED, alpha=0.2, linewidth=0)
    left.plot(heights, difference, color=BLACK)
    left.annotate("the dense basin\nis larger", (1e2, 0), xytext=(10, 8), textcoords="offset points", ha="center")
    left.annotate("the slice\nis larger", (1e-2, 0), xytext=(4, -26), textcoords="offset points", ha="center")
    left.set(xscale="log")
    for n, colour, dash in ((1000, BLUE, "-"), (100, RED, "--")):
        right.plot(heights, [v.effective_radius for v in seen[n]], dash, color=colour, label=f"n = {n}")
    right.set(xscale="log", yscale="log")
    right.legend()
    return canvas


@figure("learning-coefficient")
def learning() -> Figure:
    """Langevin chains on a quadratic: the coefficient over the step size, and that of uncorrected steps."""
    h = torch.logspace(-0.5, 0.5, 10, dtype=F64)
    n_beta, gamma = 100.0, 1.0
    a = n_beta * h + gamma
    plain = float((n_beta * h / a).sum() / 2)
    stabilities = np.logspace(log(0.03) / log(10), log(3.2) / log(10), 9)
    seen = []
    for stability in stabilities:
        options = {"n_beta": n_beta, "gamma": gamma, "step_size": float(stability / a.max())}
        start = torch.zeros(10, dtype=F64)
        seen.append(learning_coefficient(EveryExample(Quadratic(h)), start, burn_in=500, draws=2000, **options))
    fine = np.linspace(0.03, 3.4, 200)
    biased = [float((n_beta * h / (a * (1 - s / a.max() * a / 4))).sum() / 2) for s in fine]
    canvas, (left, right) = panels("λ of a quadratic, n = 10", "Effective sample size of 8000 draws", width=6.6)
    left.plot(fine, biased, color=GREY, label="closed form of uncorrected steps")
    left.axhline(plain, color=BLACK, linewidth=0.8, linestyle="--", label=f"true value: {plain:.2f}")
    for s, found in zip(stabilities, seen, strict=True):
        left.errorbar(s, found.value, 2 * found.se, color=BLUE, marker="o", fillstyle=_fill(found.reason), capsize=2)
        right.plot(s, found.ess, "o", color=BLUE, fillstyle=_fill(found.reason))
    left.plot([], [], "o", color=BLUE, label="chains ± 2 se")
    left.plot([], [], "o", color=BLUE, fillstyle="none", label="flagged in reason")
    right.axhline(100, color=GREY, linewidth=1, linestyle=":", label="least that is not flagged")
    right.set(yscale="log")
    right.legend(loc="lower right")
    left.legend(loc="upper left")
    for ax in (left, right):
        ax.set(xscale="log", xlabel="step size × steepest curvature")
    return canvas


def _fill(reason: str) -> str:
    return "none" if reason else "full"


def main(names: list[str]) -> None:
    """Write the named figures, or all."""
    torch.set_num_threads(1)
    for name in names or FIGURES:
        path = save(name)
        print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: {path.stat().st_size:,} B")


if __name__ == "__main__":
    main(sys.argv[1:])
