"""The tables of a run: their names, columns and meaning, in one place.

Every number that a figure, a claim or a reader uses stands in one of these. They are written by ``study.tables`` as CSV
(one header line, ``repr`` floats, empty where undefined), sorted by their identifying columns, and hold no times, paths
or host names: the same study gives the same bytes.
"""

from __future__ import annotations

SOLUTION = ("branch", "level", "seed")
"""What identifies a solution. The dense network is branch ``dense``, level 0."""

SPECTRUM = (*SOLUTION, "space", "operator", "part", "buffers")
"""What identifies a spectrum."""

PATH = ("path", "branch", "level_from", "level_to", "seed", "order", "split", "buffers")
"""What identifies a path under one buffer policy.

``path`` is ``successive`` (level_from = level_to - 1, level 0 is the dense solution), ``to-dense`` (level_from = 0),
``from-start`` (the rewound start m * theta_k to the end of the same level), ``orders`` (two data orders from the same
start), ``start-to-dense`` (the rewound start to the dense solution), ``to-dense-aligned`` (to-dense, the solution's
hidden units permuted by weight matching) or ``instability`` (the dense run's end, and that of a run that left it at
``step`` for another data order). ``order`` is ``shared`` or ``independent``, ``split`` is ``train`` or ``test``.
``buffers``: ``averaged``, ``stored`` (of the first end), ``recomputed``, ``batch``, ``none`` (no BatchNorm).
"""

COLUMNS: dict[str, tuple[str, ...]] = {
    # One row per trained solution. Losses are means over the whole split; errors are fractions in [0, 1].
    "levels": (
        *SOLUTION,
        "base",  # the registered branch behind the label: dense, imp, ...; given for points trained elsewhere
        "fraction",  # share of the remaining weights that each level prunes; empty where prune lists densities
        "criterion",  # what chose the weights of the mask: the branch's or the study's; random for random masks
        "order",  # data order of the levels: shared | independent
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
        "train_loss_start",  # of the dense network, without augmentation, at the rewind step k (0: the initialisation)
        "soft_remaining",  # weights that continuous sparsification keeps by itself, before the cut to ``remaining``
    ),
    # Which examples a solution answers right. split = validation | test; bits: base64 of one bit per example in the
    # order of the split, the first in the highest bit of the first byte (numpy.packbits). No rows where targets are
    # numbers, or classes of tokens: a sequence is right in a share of its tokens, which is no bit.
    "correct": (*SOLUTION, "split", "examples", "bits"),
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
        "step",  # where a second data order began, for the instability of the dense run
        "pair",  # which two of its data orders: 0 is the dense run's own
        "points",
        "loss_from",
        "loss_to",
        "loss_max",
        "loss_alpha",  # where the maximum is
        "loss_height",  # max - max(L0, L1)
        "loss_barrier",  # max over alpha of L(alpha) - (1 - alpha) L0 - alpha L1
        "loss_barrier_alpha",  # where that is
        "loss_barrier_margin",  # what refining the grid added to it
        "loss_rise",  # max - (L0 + L1) / 2
        "loss_margin",  # what refining the grid added to the maximum
        "error_from",
        "error_to",
        "error_max",
        "error_alpha",
        "error_height",
        "error_barrier",
        "error_barrier_alpha",
        "error_barrier_margin",
        "error_rise",
        "error_margin",
        "distance",
        "subspace",  # the level whose mask contains the whole segment, "all" for R^D
    ),
    # The profile of each path.
    "profiles": (*PATH, "step", "pair", "alpha", "loss", "error"),
    # Extreme eigenvalues. operator = hessian | ggn | adaptive (the Hessian between filter-normalised directions); space
    # = own | all | next | layer NAME; part: which disjoint subset of the examples; end = largest | smallest; index from
    # 1. converged: the residual is small, and no copy of a larger eigenvalue may be missing.
    "spectra": (*SPECTRUM, "end", "index", "eigenvalue", "residual", "converged"),
    # One row per spectrum: dimension, effort and what Lanczos saw.
    "curvature": (
        *SPECTRUM,
        "dimension",
        "examples",
        "excluded",  # coordinates of dead filters left out
        "largest",
        "smallest",
        "negative_count",  # Ritz values below 0 beyond rounding: a lower bound on the index of the Hessian
        "negative_mass",  # share of a random vector's squared norm on them
        "gradient_norm",
        "products",
        "converged",
        "stop",
    ),
    # The whole spectrum by stochastic Lanczos quadrature: nodes and weights of every probe (weights sum to 1).
    "densities": (*SPECTRUM, "probe", "node", "weight"),
    # What is read off a spectrum. quantity = trace | negative mass (share of the eigenvalues below 0) | log-determinant
    # (of max(A, 0) + setting for the operator A, in nats) | learning coefficient (at N beta = setting with N the number
    # of training examples, from chains with their split R-hat and effective sample size).
    "estimates": (*SPECTRUM, "quantity", "setting", "value", "se", "draws", "r_hat", "ess", "reason"),
    # Curvature along sets of coordinates, of equal count in every layer: pruned, kept, random; and along the steepest
    # eigenvector. when = before (the weights that the next level will prune, at this solution) | retrained (those that
    # this level pruned, in the subspace of the level before, at this solution). width = the finite distance, both ways,
    # at which the loss has risen by ``rise`` along random unit vectors. Out of all sets: weights of inputs that are the
    # same in every example, of dead filters, and those on which no output depends. What ranks the pruned weights
    # against the kept ones stands in the row of the set pruned.
    "coordinates": (
        *SOLUTION,
        "when",
        "part",
        "buffers",
        "set",
        "count",
        "curvature",  # the mean of H_ii over the set
        "se",
        "rise",
        "width",  # the median over directions
        "width_low",
        "width_high",
        "directions",
        "capped",  # directions along which the loss did not rise that far within the radius looked at
        "curvature_w2",  # the mean of d_i w_i^2, d the first diagonal of the block: no rescaling of layers changes it
        "rank",  # P(a pruned weight has a larger d_i than a kept one), ties half, mean over layers: 1/2 means no order
        "rank_se",  # of its estimate from probes, by the jackknife; 0 where the diagonal is exact
        "rank_hessian",  # the same by the Hessian's diagonal, where it is not the first; its noise draws it to 1/2
        "rank_hessian_se",
        "excluded",  # weights that were there before, left out of all sets
        "exact",  # coordinates at which the Hessian's own entry was taken as a check
        "exact_rank",  # Spearman's correlation of d with it there
        "exact_z",  # root mean square of (estimate - entry) / se of the Hessian's diagonal: about 1
        "reason",
    ),
    # The loss along one random unit vector of each of these sets, and along the steepest eigenvector.
    "slices": (*SOLUTION, "when", "part", "buffers", "set", "radius", "loss", "error"),
    # Share of the span of the k steepest directions that a solution has in common with the dense one's, and by chance;
    # the smallest and the largest principal angle in radians.
    "overlaps": (*SOLUTION, "part", "k", "overlap", "chance", "smallest_angle", "largest_angle"),
    # Spectra along training, in the run's own subspace.
    "training": (
        *SOLUTION,
        "step",
        "part",
        "buffers",
        "index",
        "eigenvalue",
        "smallest",
        "converged",
        "loss",
        "error",
        "gradient_norm",
    ),
    # Can a solution be joined to the dense one below a height? found = segment | curve | not found, at the height of
    # the higher end; the maxima say it for every other height. Not found proves nothing: the effort stands beside it,
    # and is the same before and after weight matching.
    "membership": (
        *SOLUTION,
        "part",
        "buffers",
        "aligned",  # 1: its hidden units were first permuted to match the dense one (of another initialisation) | 0
        "loss",  # of the solution, and of the dense one, on the same examples
        "loss_dense",
        "threshold",
        "found",
        "segment_max",
        "curve_max",
        "lowest_max",
        "excess",  # lowest_max - threshold
        "height",  # lowest_max - max(loss, loss_dense): 0 where the higher end is the highest point
        "evaluations",
        "gradient_steps",
        "reason",
    ),
    # Train loss and error on planes; level = how often the grid was refined there.
    "planes": ("plane", "kind", "seed", "buffers", "x", "y", "loss", "error", "level", "reason"),
    # Where solutions and checkpoints lie on a plane, and how far from it.
    "landmarks": ("plane", "seed", "name", "branch", "level", "step", "x", "y", "residual"),
    # Sublevel persistence on a plane's grid: dimension 0 = basins, 1 = rings around peaks.
    "persistence": ("plane", "seed", "dimension", "birth", "death", "x", "y", "reason"),
    # Where on a plane BatchNorm's statistics change from one solution's to another's: a line, and how far (nats) the
    # loss jumps across it. None where they are recomputed.
    "seams": ("plane", "seed", "x0", "y0", "x1", "y1", "jump"),
    # Every two solutions, joined at the maximum of their segment (an upper bound). of = loss | error.
    "joins": ("of", "a", "b", "buffers", "height_a", "height_b", "maximum"),
    # The disconnectivity graph that the joins make, as its drawing: a leaf is a solution at its height (x0, y0), a line
    # rises to the height at which sublevel sets merge, or leads across there.
    "tree": ("of", "part", "name", "x0", "y0", "x1", "y1"),
    # Volume of the basin, one row per method. top-k, logdet: the ellipsoid of the quadratic at theta, at the height
    # eps + nonstationarity over its own minimum; no sublevel set of the loss. logdet: of max(GGN, 0) + damping.
    # radial, importance: by the loss along rays. thermodynamic: the log of the partition function, no volume at eps.
    "volumes": (
        *SOLUTION,
        "space",
        "part",
        "buffers",
        "method",
        "k",  # dimension of what has the volume: k steepest for top-k and importance, else that of the space
        "dimension",  # of the space: own, all or next, without the dead filters left out
        "eps",
        "log_volume",
        "effective_radius",  # (V / omega_k)^(1/k); thermodynamic: exp(log Z / k) / sqrt(gamma), a width
        "se",
        "nonstationarity",  # 1/2 g^T A^-1 g: A = H on the span (top-k), GGN + damping (logdet); empty for others
        "stationary",  # nonstationarity <= eps
        "reason",  # why log_volume is empty or not to be trusted
    ),
    # What pruning does to the loss, by whom the weights were chosen: chosen_by = criterion (draw 0), or random with the
    # criterion's counts in every layer (draw from 1).
    "prunings": (
        *SOLUTION,
        "buffers",
        "chosen_by",
        "draw",
        "loss_start",
        "loss_end",
        "error_start",
        "error_end",
    ),
    # Volumes of two points in R^D, by the same method, examples, and without the coordinates of filters that are dead
    # at either: what may be compared. pair = matched-loss (a solution and the dense one of its seed, the one that ended
    # lower at the point that its own run stored whose loss is nearest; no rows where train.trajectory stores none) |
    # prune (theta, the point that the mask was made from, and mask * theta). ``reference`` is the dense one, or theta.
    # method = top-k (the ellipsoid of the k steepest directions) | logdet (of the Gauss-Newton matrix, damped) | rays
    # (by the loss along rays in the span of the k steepest).
    "volume_pairs": (
        *SOLUTION,
        "pair",
        "method",
        "operator",
        "setting",  # the damping of logdet, else k
        "part",
        "buffers",
        "k",  # dimension of what has the volume
        "eps",
        "log_volume",
        "log_volume_reference",
        "se",
        "se_reference",
        "trace_top",  # sum of the k eigenvalues (top-k)
        "trace_top_reference",
        "loss",
        "loss_reference",
        "step",  # where on its run's path each point is, in steps of training (matched-loss)
        "step_reference",
        "weight_norm",
        "weight_norm_reference",
        "nonstationarity",
        "nonstationarity_reference",
        "excluded",  # coordinates of dead filters left out
        "converged",
        "reason",
    ),
    # One row per claim: what this study says about it. verdict = supported | contradicted | undecided | not measured.
    "verdicts": (
        "claim",
        "statement",
        "verdict",
        "family",  # primary | exploratory: exploratory claims are not corrected for how many there are
        "why",  # what decided it density by density, or what is missing
        "sentence",  # to quote, with effect, interval and seeds
        "effect",  # at ``density``, of the part on which the verdict rests
        "low",
        "high",
        "unit",
        "margin",
        "margin_flip",  # the margin at which that part would read otherwise; empty where the margin is 0
        "density",
        "interval",  # over what the interval is: seeds, and test examples or the error of a threshold
        "n",
        "p",  # of the claim's test
        "p_holm",  # after Holm's correction over the primary claims but C1, which is tested first and by itself
        "p_contrary",  # of the opposite's test
        "p_contrary_holm",  # after Holm's correction over the opposites, by themselves
        "figure",  # the key of the figure that shows it
    ),
    # What the verdicts rest on: comparisons with paired 95% intervals, each read alone.
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
        "margin",
        "margin_flip",
        "interval",
        "role",  # decides | beyond (a fixed density at which the ticket does not match) | comparison | empty
    ),
    # What did not finish, and why.
    "failures": (*SOLUTION, "cell", "kind", "error"),
}
