"""TF32, and bfloat16 on a CPU, are off in every public call that measures, and the caller's switches come back."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

import sublevel as sl
from cases import named
from sublevel.field import Autograd, EveryExample, Field, plus_weight_decay
from sublevel.geometry import curvature, paths, planes, volume
from sublevel.numerics import _SWITCHES, tf32
from sublevel.risk import MiniBatches

B = torch.backends


def present() -> dict[str, str]:
    return {name: switch.fp32_precision for name, switch in _SWITCHES.items()}


def everything() -> dict[str, object]:
    """All switches, old and new; what PyTorch refuses to tell says that it does."""

    def read(switch: Callable[[], object]) -> object:
        try:
            return switch()
        except RuntimeError:
            return "refused"

    old = {
        "matmul": read(torch.get_float32_matmul_precision),
        "cuda": read(lambda: B.cuda.matmul.allow_tf32),
        "cudnn": read(lambda: B.cudnn.allow_tf32),
    }
    return {**old, **present(), "generic": B.fp32_precision, "cuda all": B.cudnn.fp32_precision}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    B.fp32_precision = "none"
    B.cudnn.fp32_precision = "none"
    for switch in _SWITCHES.values():
        switch.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    B.cudnn.allow_tf32 = True


def _set(owner: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


USERS = {
    "nothing": lambda: None,
    "legacy medium": lambda: torch.set_float32_matmul_precision("medium"),
    "legacy high": lambda: torch.set_float32_matmul_precision("high"),
    "legacy cuda": _set(B.cuda.matmul, "allow_tf32", True),
    "legacy cudnn off": _set(B.cudnn, "allow_tf32", False),
    "present, all": _set(B, "fp32_precision", "tf32"),
    "present, all ieee": _set(B, "fp32_precision", "ieee"),
    "present, cuda": _set(B.cudnn, "fp32_precision", "tf32"),
    "present, matmul": _set(B.cuda.matmul, "fp32_precision", "tf32"),
    "present, conv": _set(B.cudnn.conv, "fp32_precision", "ieee"),
    "present, oneDNN": _set(B.mkldnn.matmul, "fp32_precision", "bf16"),
    "both": lambda: (torch.set_float32_matmul_precision("high"), setattr(B.cuda.matmul, "fp32_precision", "ieee")),
    "both, at odds": lambda: (setattr(B, "fp32_precision", "tf32"), torch.set_float32_matmul_precision("medium")),
}


def watched() -> tuple[Field, list[dict[str, str]]]:
    """A field that notes the switches whenever it is asked for something."""
    seen: list[dict[str, str]] = []

    def function(theta: torch.Tensor) -> torch.Tensor:
        seen.append(present())
        return (theta**2).sum() + (theta**4).sum()

    return Autograd(function, 3), seen


ZERO = torch.zeros(3)
CALLS = {
    "loss": lambda f: f.loss(ZERO),
    "evaluate": lambda f: f.evaluate(ZERO),
    "evaluations": lambda f: f.evaluations([ZERO]),
    "evaluation_and_grad": lambda f: f.evaluation_and_grad(ZERO),
    "grad": lambda f: f.grad(ZERO),
    "hvp": lambda f: f.hvp(ZERO, ZERO + 1),
    "a sum": lambda f: plus_weight_decay(f, 0.1).loss(ZERO),
    "a batch": lambda f: EveryExample(f).loss_and_grad(ZERO, 0),
    "eigenvalues": lambda f: curvature.top_eigenvalues(f, ZERO, k=1),
    "a segment": lambda f: paths.segment(f, ZERO, ZERO + 1),
    "a plane": lambda f: planes.scan(f, planes.eigen_plane(ZERO, torch.eye(3)[:2]), [0.0, 1.0], [0.0, 1.0]),
    "a width": lambda f: planes.width(f, ZERO, ZERO + 1, 0.1),
    "a volume": lambda f: volume.log_volume(f, ZERO, method="radial", radius=9.0, samples=2),
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("call", CALLS)
def test_every_public_call_computes_as_ieee_says_and_leaves_the_switches(user, call):
    USERS[user]()
    before = everything()
    field, seen = watched()
    CALLS[call](field)
    assert seen
    assert all(set(one.values()) == {"ieee"} for one in seen)
    assert everything() == before


@pytest.mark.parametrize("user", USERS)
def test_old_switches_can_be_read_in_a_call_wherever_they_could_be_before(user):
    """PyTorch itself reads them, in ``cudnn.flags`` and where it compiles, and refuses if old and new contradict."""
    USERS[user]()
    before = everything()
    with tf32(False):
        inside = everything()
    for name, plain in (("matmul", "highest"), ("cuda", False), ("cudnn", False)):
        assert inside[name] == plain or before[name] == "refused"
    assert everything() == before


def test_a_later_general_switch_still_reaches_what_followed_it_before():
    B.fp32_precision = "tf32"
    named("perceptron").field().loss(named("perceptron").point)
    B.fp32_precision = "ieee"
    assert set(present().values()) == {"ieee"}


def test_public_functions_of_geometry_are_exact_even_between_the_calls_of_a_field():
    modules = (sl.curvature, sl.paths, sl.planes, sl.volume)
    functions = [getattr(m, n) for m in modules for n in m.__all__]
    functions = [f for f in functions if inspect.isfunction(f)]
    assert len(functions) > 30
    assert all(hasattr(f, "__wrapped__") for f in functions)
    seen = []
    torch.set_float32_matmul_precision("medium")
    paths.along(sl.Quadratic(torch.ones(1)), lambda alpha: (seen.append(present()), sl.Point(torch.ones(1)))[1])
    assert all(set(one.values()) == {"ieee"} for one in seen)


def test_an_error_and_a_generator_leave_the_switches_too():
    torch.set_float32_matmul_precision("medium")
    before = everything()

    def broken(theta: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Autograd(broken, 3).loss(ZERO)
    assert everything() == before
    case = named("perceptron")
    rows = case.field().example_grads(case.point, chunk=10)
    next(rows)
    assert everything() == before
    del rows
    assert everything() == before


def test_a_training_with_tf32_measures_without_and_goes_on():
    states = []
    with tf32(False):
        with tf32(True):
            states.append(present())
            field, seen = watched()
            field.loss(ZERO)
            states.append(present())
        states.append(present())
    on = {name: "ieee" if name.startswith("mkldnn") else "tf32" for name in _SWITCHES}
    assert states == [on, on, dict.fromkeys(_SWITCHES, "ieee")]
    assert seen == [dict.fromkeys(_SWITCHES, "ieee")]


def test_threads_that_measure_together_do_not_switch_each_other_back():
    torch.set_float32_matmul_precision("high")
    before = everything()
    inside, leave = threading.Barrier(2), threading.Event()
    seen = []

    def first() -> None:
        with tf32(False):
            inside.wait()
        leave.set()

    def second() -> None:
        with tf32(False):
            inside.wait()
            leave.wait(10)
            seen.append(present())

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [set(one.values()) for one in seen] == [{"ieee"}]
    assert everything() == before


def test_medium_precision_of_a_cpu_does_not_reach_a_loss():
    """Where the processor has bfloat16 the product is off by 1e-3; where it has none the switch does nothing."""
    case = named("wide")
    x, y = torch.randn(512, 256), torch.randint(0, 3, (512,))
    net = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Tanh(), torch.nn.Linear(256, 3))
    space = sl.Space.of(net)
    field, at = sl.EmpiricalRisk(space, net, x, y), space.point(net)
    loss, gradient = field.loss(at), field.grad(at)
    chained = MiniBatches(field, batch_size=512).loss_and_grad(at, 0)
    torch.set_float32_matmul_precision("medium")
    assert field.loss(at) == loss
    assert torch.equal(field.grad(at), gradient)
    assert torch.equal(MiniBatches(field, batch_size=512).loss_and_grad(at, 0)[1], chained[1])
    assert case.field().loss(case.point) == case.field().loss(case.point)
