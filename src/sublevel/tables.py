"""The tables of a run: their names, columns and meaning, in one place.

Every number that a figure, a claim or a reader uses stands in one of these. They are written by
``study.tables`` as CSV (one header line, ``repr`` floats, empty where undefined), sorted by their
identifying columns, and hold no times, paths or host names: the same study gives the same bytes.
"""

from __future__ import annotations

SOLUTION = ("branch", "level", "seed")
"""What identifies a solution. The dense network is branch ``dense``, level 0."""

PATH = ("path", "branch", "level_from", "level_to", "seed", "order", "split", "buffers")
"""What identifies a path under one buffer policy.

``path`` is ``successive`` (level_from = level_to - 1, level 0 is the dense solution), ``to-dense``
(level_from = 0), ``from-start`` (the rewound start m * theta_k to the end of the same level) or ``orders``
(two data orders from the same start: instability). ``order`` is ``shared`` or ``independent``.
``split`` is ``train`` or ``test``. ``buffers`` is the BatchNorm policy: ``stored`` (those of the
first end), ``averaged``, ``recomputed``, ``batch``, or ``none`` for a network without statistics.
"""

COLUMNS: dict[str, tuple[str, ...]] = {
    # One row per trained solution. Losses are means over the whole split; errors are fractions in [0, 1].
    "levels": (
        *SOLUTION,
        "density",  # remaining / prunable
        "remaining",
        "prunable",
        "train_loss",
        "train_error",
        "validation_loss",
        "validation_error",
        "test_loss",
        "test_error",
        "buffers",
        "gradient_norm",  # of the train loss in R^D
        "gradient_norm_own",  # in the solution's own subspace
        "weight_norm",
        "collapsed_layers",  # prunable layers with no weight left
        "dead_filters",  # rows of prunable layers with no weight left
        "max_bn_gain",  # max over channels of 1 / sqrt(running_var + eps)
        "overlap_imp",  # share of this mask's weights that imp's mask of the same level has too
        "overlap_chance",  # the same share for a random mask of the same count
        "steps",
    ),
    # Weights left per layer.
    "layers": (*SOLUTION, "layer", "index", "prunable", "remaining", "density"),
    # Learning curves: running train loss (augmented, with the moving weights) and held-out loss per epoch.
    "history": (
        *SOLUTION,
        "step",
        "epoch",
        "lr",
        "train_loss",
        "validation_loss",
        "validation_error",
    ),
    # Both legs of a level. leg = prune: theta -> m_L * theta at the point that m_L was made from
    # (the level before; the dense end for one-shot; absent where nothing was pruned); leg = retrain: start -> end.
    "legs": (
        *SOLUTION,
        "leg",
        "split",
        "buffers",
        "loss_start",
        "loss_end",
        "error_start",
        "error_end",
        "distance",
        "cosine",
        "sign_agreement",  # over the coordinates that are non-zero at both ends
        "norm_start",
        "norm_end",
    ),
    # One row per path: its ends, its maximum, and the barrier in every definition in use.
    "paths": (
        *PATH,
        "points",
        "loss_from",
        "loss_to",
        "loss_max",
        "loss_alpha",  # where the maximum is
        "loss_height",  # max - max(L0, L1)
        "loss_barrier",  # max over alpha of L(alpha) - (1 - alpha) L0 - alpha L1
        "loss_rise",  # max - (L0 + L1) / 2
        "loss_margin",  # what refining the grid added to the maximum
        "error_from",
        "error_to",
        "error_max",
        "error_alpha",
        "error_height",
        "error_barrier",
        "error_rise",
        "error_margin",
        "distance",
        "subspace",  # the level whose mask contains the whole segment, "all" for R^D
    ),
    # The profile of each path.
    "profiles": (*PATH, "alpha", "loss", "error"),
    # Extreme eigenvalues of the Hessian. space = own | all | next; end = largest | smallest; index from 1.
    "spectra": (*SOLUTION, "space", "buffers", "end", "index", "eigenvalue", "residual", "converged"),
    # One row per spectrum: dimension, effort and what Lanczos saw.
    "curvature": (
        *SOLUTION,
        "space",
        "buffers",
        "dimension",
        "examples",
        "excluded",  # coordinates of dead filters left out
        "largest",
        "smallest",
        "negative_count",  # Ritz values below minus the tolerance: a lower bound on the index of the Hessian
        "negative_mass",  # share of a random vector's squared norm on them
        "gradient_norm",
        "products",
        "converged",
        "stop",
    ),
    # Volume of the basin, one row per method. top-k: the ellipsoid of the quadratic at theta in the span of the k
    # steepest directions, at the height eps + nonstationarity over its own minimum; no sublevel set of the loss itself.
    "volumes": (
        *SOLUTION,
        "space",
        "buffers",
        "method",
        "k",
        "dimension",  # of the space that the eigenvalues are those of
        "eps",
        "log_volume",
        "effective_radius",  # (V / omega_k)^(1/k) for top-k
        "se",
        "nonstationarity",  # 1/2 g^T H^-1 g on the span of the k eigenvectors
        "stationary",  # nonstationarity <= eps
        "reason",  # why log_volume is empty or not to be trusted
    ),
    # Comparisons with paired t intervals over seeds.
    "claims": (
        "claim",
        "statement",
        "comparison",
        "level",
        "density",
        "unit",
        "n",
        "effect",
        "low",
        "high",
        "p",
        "p_exact",
        "reading",
    ),
    # What did not finish, and why.
    "failures": (*SOLUTION, "cell", "kind", "error"),
}
