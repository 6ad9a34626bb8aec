"""What a study may measure: one block for each measurement, each saying where, how and on how many examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sublevel.strict import Strict
from sublevel.train.recipe import Duration

Space = Literal["own", "all", "next"]
"""The solution's own subspace, R^D, and the subspace that the next level would leave it."""

Policy = Literal["stored", "recomputed", "batch"]
Operator = Literal["hessian", "ggn", "adaptive"]


class PlaceSpec(Strict):
    """Where cells run, which no number depends on and no result's identity holds: ``gpus`` of one that a cell takes on
    Ray or Slurm when the study runs on a GPU (a quarter: four cells share one, on Ray), and what to ask of Slurm for a
    worker job, in submitit's words (``partition``, ``account``, ``time`` in minutes, ``mem``, ``gres``, ``setup``).
    """

    gpus: float = Field(default=1.0, gt=0)
    slurm: dict[str, Any] = Field(default_factory=dict)


class Where(Strict):
    """Which solutions to measure: by branch, level and number of seeds; absent means all."""

    branches: tuple[str, ...] | None = None
    levels: tuple[int, ...] | None = None
    seeds: int | None = Field(default=None, ge=0)

    def admits(self, branch: str, level: int, nth_seed: int) -> bool:
        """Whether a solution is asked for."""
        return (
            (self.branches is None or branch in self.branches)
            and (self.levels is None or level in self.levels)
            and (self.seeds is None or nth_seed < self.seeds)
        )


class Examples(Where):
    """Where to measure, and on which training examples: ``size`` of them (absent: all), under a buffer policy.

    ``parts`` disjoint subsets are measured one by one, the same at every level: five of a fifth each show how much a
    number depends on the choice of examples.
    """

    size: int | None = Field(default=None, ge=1)
    policy: Policy = "stored"
    parts: int = Field(default=1, ge=1)


class LegsSpec(Where):
    """Both legs of a level, on ``size`` training examples and as many of the test set (absent: all)."""

    size: int | None = Field(default=None, ge=1)
    buffers: tuple[Literal["stored", "recomputed"], ...] = ("stored", "recomputed")


class PruningsSpec(Where):
    """What a level's mask does to the loss against ``draws`` random ones with its counts in every layer."""

    size: int | None = Field(default=None, ge=1)
    buffers: tuple[Literal["stored", "recomputed"], ...] = ("stored", "recomputed")
    draws: int = Field(default=20, ge=1)


class PathsSpec(Strict):
    """Segments: from one level to the next, to the dense solution, from the rewound start, between data orders.

    ``start_to_dense`` goes from the rewound start m * theta_k to the dense solution, ``aligned`` from the dense
    solution to one whose hidden units are permuted to match it. ``orders`` trains each solution again from its start
    under another data order; ``instability`` does so from the dense run's ``steps``.
    """

    points: int = Field(default=21, ge=3)
    refine: int = Field(default=2, ge=0)
    size: int | None = Field(default=None, ge=1)
    buffers: tuple[Literal["averaged", "recomputed", "batch"], ...] = ("averaged", "recomputed")
    successive: Where | None = Where()
    to_dense: Where | None = Where()
    from_start: Where | None = None
    start_to_dense: Where | None = None
    aligned: Where | None = None
    orders: Where | None = None
    instability: InstabilitySpec | None = None


class InstabilitySpec(Strict):
    """Other data orders from the dense run's ``steps`` on, for the first ``seeds`` seeds (Frankle et al. 1912.05671).

    ``orders`` of them train beside the dense run, and every two of the ``orders + 1`` ends are joined.
    """

    steps: tuple[Duration, ...] = Field(min_length=1)
    orders: int = Field(default=1, ge=1)
    seeds: int | None = Field(default=None, ge=0)


class SpectraSpec(Examples):
    """The ``k`` largest eigenvalues on ``size`` training examples, and the volume that they give.

    ``operators``: the Hessian, the Gauss-Newton matrix (``ggn``), the Hessian between filter-normalised directions
    (``adaptive``). ``layers`` adds the largest eigenvalues within each prunable layer.
    """

    k: int = Field(default=10, ge=1)
    spaces: tuple[Space, ...] = ("own", "all", "next")
    operators: tuple[Operator, ...] = ("hessian",)
    layers: bool = False
    tolerance: float | None = Field(default=None, gt=0)
    steps: int = Field(default=200, ge=2)
    restarts: int = Field(default=3, ge=0)
    negative: int = Field(default=3, ge=0)
    exclude_dead: bool = False
    eps: float = Field(default=0.1, gt=0)


class DensitySpec(Examples):
    """The whole spectrum by stochastic Lanczos quadrature: its density, trace and log-determinant.

    ``damping`` is the delta of log(max(lambda, 0) + delta): a prior precision over N, which decides the answer.
    """

    probes: int = Field(default=8, ge=1)
    steps: int = Field(default=60, ge=2)
    spaces: tuple[Space, ...] = ("own", "all")
    operator: Literal["hessian", "ggn"] = "hessian"
    damping: tuple[float, ...] = (1e-1, 1e-3)
    exclude_dead: bool = False


class CoordinatesSpec(Examples):
    """Curvature and finite-scale widths along the weights that a level prunes, keeps, and random ones.

    Before pruning (what the next level would prune) and at the retrained point (what its own level pruned), with equal
    counts in every layer. ``probes`` vectors give the mean curvature of a set, ``directions`` random unit
    vectors in it the widths at a rise of ``rise`` nats. Pruned and kept weights of a layer are ranked by each
    ``diagonal``: the Gauss-Newton matrix's, exact where the network allows, or the Hessian's from ``probes`` vectors;
    ``exact`` coordinates are checked against the Hessian's own entries. The dense network is always among the
    solutions.
    """

    probes: int = Field(default=16, ge=2)
    directions: int = Field(default=4, ge=0)
    rise: float = Field(default=0.1, gt=0)
    diagonal: tuple[Literal["ggn", "hessian"], ...] = Field(default=("ggn",), min_length=1)
    exact: int = Field(default=0, ge=0)


class OverlapsSpec(Examples):
    """How much of the span of the ``k`` steepest directions a solution shares with the dense one's."""

    k: int = Field(default=10, ge=1)


class VolumesSpec(Examples):
    """Volumes by several estimators, over several heights ``eps``; what their draws are is said in the release."""

    methods: tuple[Literal["logdet", "radial", "importance", "llc", "thermodynamic"], ...] = (
        "logdet",
        "radial",
        "importance",
        "llc",
    )
    eps: tuple[float, ...] = (0.03, 0.1, 0.3)
    spaces: tuple[Space, ...] = ("own", "all")
    rays: int = Field(default=64, ge=2)
    radius: float = Field(default=100.0, gt=0)
    damping: float = Field(default=1e-3, gt=0)
    k: int = Field(default=10, ge=1)
    probes: int = Field(default=8, ge=1)
    steps: int = Field(default=60, ge=2)
    chains: int = Field(default=4, ge=2)
    draws: int = Field(default=200, ge=10)
    burn_in: int = Field(default=200, ge=0)
    gamma: float = Field(default=100.0, gt=0)
    exclude_dead: bool = False


class PairsSpec(Examples):
    """Volumes of two points in R^D, by the same method and without what is dead at either.

    ``kinds``: a solution and the dense one of its seed at matched loss; a point and what pruning makes of it. The
    points compared are not those at the end of a training run, so BatchNorm's statistics are recomputed by default.
    Losses are matched at the points that each run stored of its own path (``train.trajectory``; without it they are not
    measured), and say so where they differ by more than the share ``match``. ``methods``: the ellipsoid of the ``k``
    steepest directions, by each of ``operators``; the log-determinant of the Gauss-Newton matrix at each ``damping``,
    from ``probes`` runs of ``quadrature`` steps; ``rays`` in the span of the ``k`` steepest directions, within
    ``radius``. ``tolerance``, ``steps`` and ``restarts`` are those of ``spectra``.
    """

    policy: Policy = "recomputed"
    k: int = Field(default=10, ge=1)
    eps: float = Field(default=0.1, gt=0)
    methods: tuple[Literal["top-k", "logdet", "rays"], ...] = ("top-k", "logdet", "rays")
    operators: tuple[Operator, ...] = ("hessian", "adaptive")
    kinds: tuple[Literal["matched-loss", "prune"], ...] = ("matched-loss", "prune")
    match: float = Field(default=0.1, gt=0)
    damping: tuple[Annotated[float, Field(gt=0)], ...] = (1e-1, 1e-2, 1e-3)
    probes: int = Field(default=8, ge=2)
    quadrature: int = Field(default=60, ge=2)
    rays: int = Field(default=64, ge=2)
    radius: float = Field(default=100.0, gt=0)
    tolerance: float | None = Field(default=None, gt=0)
    steps: int = Field(default=200, ge=2)
    restarts: int = Field(default=3, ge=0)


class ConnectSpec(Examples):
    """Whether a solution can be joined to the dense one without leaving its sublevel set: a segment, then a curve.

    ``aligned`` looks for both with the same effort once more after weight matching, where the solution has another
    initialisation than the dense one and the network's hidden units are known.
    """

    bends: int = Field(default=1, ge=1)
    iterations: int = Field(default=200, ge=1)
    points: int = Field(default=21, ge=3)
    batch_size: int = Field(default=128, ge=1)
    aligned: bool = True


class PlanesSpec(Strict):
    """Planes: through three solutions of one seed, along two random filter-normalised directions, or two eigenvectors.

    A solution is written ``dense`` or ``branch/level``. Cells whose corners differ by more than ``tolerance`` nats are
    refined ``refine`` times. Under the policy ``stored`` BatchNorm's statistics are those of the nearest solution: the
    loss jumps half-way between two, where the figure draws a line.
    """

    through: tuple[tuple[str, str, str], ...] = ()
    random: tuple[str, ...] = ()
    eigen: tuple[str, ...] = ()
    seeds: int | None = Field(default=1, ge=0)
    size: int | None = Field(default=None, ge=1)
    policy: Policy = "recomputed"
    points: int = Field(default=15, ge=3)
    refine: int = Field(default=1, ge=0)
    radius: float = Field(default=1.0, gt=0)
    tolerance: float = Field(default=0.5, gt=0)


class TopologySpec(Where):
    """The disconnectivity graph of all chosen solutions: a segment between every two of them."""

    points: int = Field(default=11, ge=3)
    refine: int = Field(default=1, ge=0)
    size: int | None = Field(default=None, ge=1)
    buffers: Literal["averaged", "recomputed", "batch"] = "recomputed"


class TrainingSpec(Examples):
    """Spectra along training, at the recipe's checkpoints and the rewind step."""

    k: int = Field(default=3, ge=1)


class GeometrySpec(Strict):
    """What is measured beside the losses of every solution; an absent block is not measured."""

    legs: LegsSpec | None = None
    prunings: PruningsSpec | None = None
    paths: PathsSpec | None = None
    spectra: SpectraSpec | None = None
    density: DensitySpec | None = None
    coordinates: CoordinatesSpec | None = None
    overlaps: OverlapsSpec | None = None
    training: TrainingSpec | None = None
    volumes: VolumesSpec | None = None
    pairs: PairsSpec | None = None
    connect: ConnectSpec | None = None
    planes: PlanesSpec | None = None
    topology: TopologySpec | None = None

    def wheres(self) -> Iterator[tuple[str, Where]]:
        """Every choice of solutions among the blocks, with the name of its key."""
        for name in type(self).model_fields:
            yield from _wheres(f"geometry.{name}", getattr(self, name))


def _wheres(name: str, block: Any) -> Iterator[tuple[str, Where]]:
    if isinstance(block, Where):
        yield name, block
    elif isinstance(block, BaseModel):
        for inner in type(block).model_fields:
            yield from _wheres(f"{name}.{inner}", getattr(block, inner))
