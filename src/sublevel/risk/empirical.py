"""`EmpiricalRisk`: loss, gradient, and Hessian, Gauss-Newton and Fisher products of a network over its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sublevel._types import Bool, Float, Tensor
from sublevel.data.batches import spans
from sublevel.data.streamed import Rows
from sublevel.errors import ModelError, unknown
from sublevel.field.base import Evaluation, Likelihood, PointLike
from sublevel.field.products import gradient_graph, output_hessian, sandwich, second_backward
from sublevel.heads import computed, deferred, in_chunks, large_heads
from sublevel.inputs import Inputs, each
from sublevel.risk.batchnorm import POLICIES, Calibration, Completed, check_batch_size, fixed_mode, least_of, policy_of
from sublevel.risk.example_gradients import ExampleGradients
from sublevel.risk.graph_cache import GraphCache
from sublevel.risk.losses import Loss, counting, labels_of, loss_function, relabelled, takes_scores, wrong
from sublevel.risk.sums import EvaluationSums, Prepared
from sublevel.risk.weight_norm import twice_differentiable
from sublevel.rng import generator
from sublevel.space import Point, Space, as_point

FISHER = ("empirical", "monte-carlo")
CHUNK = 2**24
"""Most numbers in a chunk of per-example gradients."""
POINTS, NUMBERS = 64, 2**25
"""Most points that are evaluated together, and most numbers in them."""


class EmpiricalRisk(Likelihood):
    """The mean loss of ``module`` over the examples ``(x, y)``, under a buffer policy.

    ``prepare(x)`` makes the network's inputs from a batch of stored examples (normalisation). ``calibration`` are the
    examples over which ``recomputed`` averages statistics, by default ``x``, or a `Calibration` that fields share. The
    module is used as a function: its parameters and buffers are never written, and read only if they are not part of
    theta.

    ``keep_bytes`` is memory for the graphs of gradients, kept between Hessian products at one point (see
    `kept_batches`). A product then costs only its second backward pass; no bit changes. The default is 0. Attention
    uses the kernel with a second derivative in all products that need one, and weight normalisation its formula.
    """

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        x: Rows,
        y: Tensor,
        *,
        loss: str | Loss = "cross-entropy",
        prepare: Callable[[Tensor], Inputs] | None = None,
        policy: str = "stored",
        batch_size: int = 1000,
        calibration: Rows | Calibration | None = None,
        keep_bytes: int = 0,
    ) -> None:
        if policy not in POLICIES:
            raise unknown("buffer policy", policy, POLICIES)
        if not len(x):
            raise ValueError("a field over no examples has no loss")
        self.space, self.module = space, module
        loss, y = relabelled(loss, y)  # type: ignore[assignment]
        self.x, self.y = x, y
        self.examples = len(x)
        self.loss_of = counting(loss_function(loss), y)
        self.heads = large_heads(module) if takes_scores(self.loss_of) else []
        self._rows = ExampleGradients()
        self.prepare = prepare or (lambda batch: each(batch, torch.clone))  # a network may write into its input
        self.policy = policy_of(policy, space, module)
        self.batch_size = batch_size
        check_batch_size(self.policy, batch_size)
        if not isinstance(calibration, Calibration):
            calibration = Calibration(
                space, module, x if calibration is None else calibration, self.prepare, batch_size
            )
        self.calibration = calibration
        self._settled: tuple[Point, int, Point] | None = None
        self._completed = Completed(space, module)
        self._graphs = GraphCache(keep_bytes)

    @property
    def dim(self) -> int:
        """D."""
        return self.space.dim

    @property
    def kept_batches(self) -> int:
        """Number of batches whose graphs are kept, for the point of the last Hessian product."""
        return len(self._graphs)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the kept graphs, at most ``keep_bytes``."""
        return self._graphs.bytes

    def release(self) -> None:
        """Drop the kept graphs."""
        self._graphs.release()

    def evaluate(self, at: PointLike) -> Evaluation:
        """Mean loss and share of wrong answers."""
        return self._evaluated([self.settle(at)])[0]

    def evaluation_and_correct(self, at: PointLike) -> tuple[Evaluation, Bool[Tensor, "N"]]:
        """The evaluation, and which examples are answered correctly; empty unless each example has one class.

        With a label per token, an example is correct in a share of its tokens and not as a whole.
        """
        point = self.settle(at)
        tally, right = EvaluationSums(point.theta.device), [torch.zeros(0, dtype=torch.bool, device=point.theta.device)]
        with torch.no_grad():
            for rows in self._batches():
                outputs, y = self._forward(point.theta, point, rows, defer=True)
                tally.add(self.loss_of(outputs, y), outputs, y)
                if y.dtype == torch.int64 and y.ndim == 1:
                    right.append(wrong(outputs, y) == 0)
        return tally.result(), torch.cat(right)

    def evaluations(self, points: Iterable[PointLike]) -> list[Evaluation]:
        """`evaluate` at many points; each batch of examples is read and prepared once for a group of points."""
        if not self._has("evaluate", "settle"):
            return super().evaluations(points)
        found: list[Evaluation] = []
        every = (Point(p.theta.clone(), p.buffers) for p in map(self.point, points))  # the next may be written into it
        while some := list(islice(every, together(self.dim))):
            found += self._evaluated(self.calibration.at(some) if self.policy == "recomputed" else some)
        return found

    def evaluation_and_grad(self, at: PointLike) -> tuple[Evaluation, Float[Tensor, "D"]]:
        """Loss, error and gradient from one forward pass, with constant buffers.

        The loss may differ from `evaluate` in the last bits for networks that take another path without gradients, such
        as PyTorch's encoder layers.
        """
        if not self._has("evaluate", "grad"):
            return super().evaluation_and_grad(at)
        point = self.settle(at)
        theta = point.theta.detach().requires_grad_()
        tally = EvaluationSums(theta.device)

        def part(rows: slice) -> Tensor:
            outputs, y = self._forward(theta, point, rows, defer=True)
            losses = self.loss_of(outputs, y)
            tally.add(losses, outputs, y)
            return torch.autograd.grad(losses.sum() / len(self.x), theta)[0]

        gradient = self._total(part)
        return tally.result(), gradient

    def losses(self, at: PointLike) -> Float[Tensor, "N"]:
        """The loss of every example."""
        point = self.settle(at)
        with torch.no_grad():
            every = (self._forward(point.theta, point, rows, defer=True) for rows in self._batches())
            return torch.cat([self._losses(outputs, y) for outputs, y in every])

    def grad(self, at: PointLike) -> Float[Tensor, "D"]:
        """The gradient of the mean loss, with constant buffers."""
        point = self.settle(at)
        theta = point.theta.detach().requires_grad_()
        return self._total(lambda rows: torch.autograd.grad(self._share(theta, point, rows), theta)[0])

    @sdpa_kernel(SDPBackend.MATH)
    def hvp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Hessian products; each batch's graph is built once for all rows of v, or taken from an earlier product."""
        point = self.settle(at)
        constants = [t for t in (self.x, self.y, *self.module.parameters()) if isinstance(t, Tensor)]
        theta = self._graphs.leaf(point, constants)

        def product(rows: slice) -> Tensor:
            with twice_differentiable(self.module):
                build = lambda: gradient_graph(self._share(theta, point, rows), theta)  # noqa: E731
                gradient, keep = self._graphs.gradient(rows.start, build)
            return second_backward(gradient, theta, v, keep=keep)

        return self._total(product)

    @sdpa_kernel(SDPBackend.MATH)
    def ggn_vp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """``J^T H J v / N`` with the Jacobian J of a batch's outputs; under ``batch`` J includes the statistics."""
        point = self.settle(at)
        theta = point.theta.detach().requires_grad_()

        def product(rows: slice) -> Tensor:
            outputs, y = self._forward(theta, point, rows, defer=True)
            loss = lambda z: self.loss_of(z, y).sum()  # noqa: E731
            if in_chunks(outputs, y):
                parts, middle = outputs.curvature(y, loss)
                return sandwich(parts, theta, v, middle)
            outputs = computed(outputs)
            return sandwich(outputs, theta, v, output_hessian(loss, outputs))

        return self._total(product) / len(self.x)

    @sdpa_kernel(SDPBackend.MATH)
    def fisher_vp(
        self, at: PointLike, v: Float[Tensor, "*K D"], *, kind: str = "empirical", seed: int = 0
    ) -> Float[Tensor, "*K D"]:
        """``J^T J v / N`` with the Jacobian J of the examples' losses, with the given labels or with drawn ones.

        Labels are drawn from the distribution whose negative log-likelihood is the loss
        (`sublevel.risk.losses.LABELS`), so the mean over seeds is the GGN. They depend on the seed and the example, not
        on the batches.

        Raises ValueError under ``batch`` (see `example_grads`), ModelError for a user's loss without a distribution,
        ConfigError for an unknown kind.
        """
        if kind not in FISHER:
            raise unknown("kind of Fisher matrix", kind, FISHER)
        self._separate("a Fisher matrix")
        point = self.settle(at)
        theta = point.theta.detach().requires_grad_()
        drawn = labels_of(self.loss_of) if kind == "monte-carlo" else None
        noise = drawn and drawn.noise(self.y, generator(seed, "probe:labels")).to(self.x.device)

        def product(rows: slice) -> Tensor:
            outputs, y = self._forward(theta, point, rows, defer=True)
            if drawn is None or noise is None:
                return sandwich(self._losses(outputs, y), theta, v, lambda w: w)
            y = drawn.draw(outputs, noise[rows])
            scale = y[0].numel() ** 0.5 if in_chunks(outputs, y) else 1.0  # see `sublevel.risk.losses.categorical`
            return sandwich(scale * self._losses(outputs, y), theta, v, lambda w: w)

        return self._total(product) / len(self.x)

    def example_grads(self, at: PointLike, *, chunk: int | None = None) -> Iterator[Float[Tensor, "B D"]]:
        """The gradient of every example's loss, in order, ``chunk`` examples at a time.

        The default chunk is a batch, or less if D is large. Gradients are vectorised over the examples
        (`torch.func.vmap`), or taken one by one if ``chunk`` is 1 or the forward pass cannot be vectorised.

        Raises ValueError under ``batch``, where the loss of an example depends on the others.
        """
        self._separate("a gradient per example")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        size = chunk or max(1, min(self.batch_size, CHUNK // self.dim))
        return self._example_grads(self.settle(at), size)

    def point(self, at: PointLike) -> Point:
        """Convert ``at`` to a point with all buffers of the network.

        A plain vector may omit buffers that the policy recomputes and constants of the network.

        Raises ModelError if ``at`` lacks a buffer that the loss reads under the policy.
        """
        return self.completed(at, self.policy)

    def completed(self, at: PointLike, policy: str) -> Point:
        """`point` under another policy."""
        return self._completed(as_point(at), policy)

    def recomputed(self) -> EmpiricalRisk:
        """The field under the policy ``recomputed`` if this one is ``stored``; else self."""
        if self.policy != "stored":
            return self
        check_batch_size("recomputed", self.batch_size)
        twin = copy(self)
        twin.policy, twin._settled, twin._graphs = "recomputed", None, GraphCache(self._graphs.limit)
        return twin

    def restricted(self, names: str | Sequence[str], at: PointLike) -> tuple[EmpiricalRisk, Point]:
        """The loss as a function of some layers alone, by name (with wildcards), and the point in that space.

        All other parameters are constants at their values in ``at``. Hessian and Gauss-Newton products are those of the
        diagonal block, and cost less time and memory than products in R^D.

        Raises ModelError for a name without a match.
        """
        twin, point = copy(self), self.point(at)
        twin.space = self.space.restricted(names)
        shared = self.calibration
        twin.calibration = Calibration(twin.space, self.module, shared.x, shared.prepare, shared.batch_size)
        twin._completed, twin._rows = Completed(twin.space, self.module), ExampleGradients()
        twin._settled, twin._graphs = None, GraphCache(self._graphs.limit)
        return twin, twin.space.within(point, self.space)

    def settle(self, at: PointLike) -> Point:
        """The point with its buffers under the policy."""
        point = self.point(at)
        if self.policy != "recomputed":
            return point
        version = point.theta._version
        if self._settled and self._settled[0] is point and self._settled[1] == version:
            return self._settled[2]
        (settled,) = self.calibration.at([point])
        self._settled = (point, version, settled)
        return settled

    def outputs(self, theta: Tensor, buffers: Mapping[str, Tensor], x: Inputs, policy: str) -> Tensor:
        """The network's outputs for prepared inputs; BatchNorm uses the statistics of ``buffers``, or of the batch."""
        batch = policy == "batch"
        if batch:  # the module writes running statistics, here into copies
            buffers = {name: b.clone() for name, b in buffers.items()}
        with fixed_mode(self.module, statistics=batch):
            return self.space.call(self.module, theta, buffers, x)

    def _has(self, *methods: str) -> bool:
        """True if no subclass overrides these methods."""
        return all(getattr(type(self), name) is getattr(EmpiricalRisk, name) for name in methods)

    def _batches(self, size: int | None = None) -> Iterator[slice]:
        return (slice(*span) for span in spans(len(self.x), size or self.batch_size, least_of(self.policy)))

    def _total(self, part: Callable[[slice], Tensor]) -> Tensor:
        batches = self._batches()
        total = part(next(batches))
        for rows in batches:
            total = total.add_(part(rows))
        return total

    def _evaluated(self, points: Sequence[Point]) -> list[Evaluation]:
        """Mean loss and share of wrong answers at points with the buffers of the policy."""
        tallies = [EvaluationSums(point.theta.device) for point in points]
        with torch.no_grad():
            for rows in self._batches():
                y, inputs = self.y[rows].clone(), Prepared(lambda rows=rows: self.prepare(self.x[rows]))
                for point, tally in zip(points, tallies, strict=True):
                    with deferred(self.heads):
                        outputs = self.outputs(point.theta, point.buffers, inputs(), self.policy)
                    tally.add(self.loss_of(outputs, y), outputs, y)
        return [tally.result() for tally in tallies]

    def _forward(self, theta: Tensor, point: Point, rows: slice, *, defer: bool = False) -> tuple[Tensor, Tensor]:
        inputs, y = self.prepare(self.x[rows]), self.y[rows].clone()
        with deferred(self.heads if defer else ()):
            return self.outputs(theta, point.buffers, inputs, self.policy), y

    def _share(self, theta: Tensor, point: Point, rows: slice) -> Float[Tensor, ""]:
        """The contribution of a batch to the mean loss."""
        return self.loss_of(*self._forward(theta, point, rows, defer=True)).sum() / len(self.x)

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        losses = self.loss_of(outputs, y)
        if losses.shape != (len(y),):
            raise ModelError(f"a loss must give one number per example: got shape {list(losses.shape)} for {len(y)}")
        return losses

    def _separate(self, what: str) -> None:
        if self.policy == "batch":
            raise ValueError(
                f"{what} is undefined under the 'batch' policy: BatchNorm couples the examples of a batch; "
                "use 'stored' or 'recomputed' statistics"
            )

    def _example_grads(self, point: Point, size: int) -> Iterator[Tensor]:
        def loss(theta: Tensor, x: Inputs, y: Tensor) -> Tensor:
            outputs = self.outputs(theta, point.buffers, each(x, lambda t: t[None]), self.policy)
            return self._losses(outputs, y[None])[0]

        for rows in self._batches(size):
            yield self._rows(loss, point.theta.detach(), self.prepare(self.x[rows]), self.y[rows])


def together(dim: int) -> int:
    """The number of points of D coordinates that are evaluated together."""
    return max(1, min(POINTS, NUMBERS // dim))
