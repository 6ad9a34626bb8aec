"""Several networks in one process, as one batched computation, against one after the other: is the total rate higher?

    python benchmarks/populations.py       # one thread: about a minute

Networks of one shape (seeds, branches of a level) can be trained together: their weights are stacked, and a step is one
batched product (torch.bmm) for a perceptron, one grouped convolution for a residual network, through `torch.func.vmap`
over the network. The other side takes the same steps of the same networks in turn. Both with one thread, since the
other cores have other cells to train. The figure is the rate of all networks together, batched over in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from common import alone, images, record, spread
from sublevel.problem import Problem

CASES = {
    "lenet-300-100": {"shape": (1, 28, 28), "options": {}, "batch": 128, "steps": 20},
    "resnet-8, width 8": {"shape": (3, 32, 32), "options": {"width": 8}, "batch": 128, "steps": 2},
}
NETWORKS, ROUNDS = 4, 7

Step = Callable[[], object]


def steps(problem: Problem, batch: int) -> tuple[Step, Step]:
    """A step of all networks: batched, and in turn."""
    modules = [problem.build(seed, "init").train() for seed in range(NETWORKS)]
    weights, buffers = stack_module_state(modules)
    weights = {name: w.detach() for name, w in weights.items()}
    x, y = problem.prepare(problem.splits.train.x[:batch]), problem.splits.train.y[:batch]

    def loss(w: dict[str, Tensor], b: dict[str, Tensor], module: torch.nn.Module) -> Tensor:
        return F.cross_entropy(functional_call(module, (w, b), (x,)), y)

    slope = vmap(grad(lambda w, b: loss(w, b, modules[0])), in_dims=(0, 0))

    def batched() -> None:
        found = slope(weights, buffers)
        torch._foreach_add_(list(weights.values()), list(found.values()), alpha=-1e-6)

    def in_turn() -> None:
        for module in modules:
            parameters = list(module.parameters())
            found = torch.autograd.grad(F.cross_entropy(module(x), y), parameters)
            with torch.no_grad():
                torch._foreach_add_(parameters, found, alpha=-1e-6)

    return batched, in_turn


def seconds(function: Step, times: int) -> float:
    """Wall time of so many calls."""
    began = time.perf_counter()
    for _ in range(times):
        function()
    return time.perf_counter() - began


def main() -> None:
    """Time both sides in turn, and record the ratios."""
    alone()
    results = {}
    for name, case in CASES.items():
        x, y = images(case["shape"], 500)
        problem = Problem(
            name.split(",")[0], train=(x, y), test=(x[:10], y[:10]), validation=0, options=case["options"]
        )
        batched, in_turn = steps(problem, case["batch"])
        batched(), in_turn()
        rounds = [(seconds(in_turn, case["steps"]), seconds(batched, case["steps"])) for _ in range(ROUNDS)]
        size = NETWORKS * case["steps"] * case["batch"]
        results[name] = {
            "images per second in turn": spread([size / turn for turn, _ in rounds]),
            "rate batched / rate in turn": spread([turn / together for turn, together in rounds]),
        }
    record("populations", __file__, {"threads": 1, "networks": NETWORKS, "results": results})


if __name__ == "__main__":
    main()
